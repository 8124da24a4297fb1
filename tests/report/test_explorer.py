"""The static explorer as text: nothing outside it is asked for, and no item's text can leave its place."""

import base64
import hashlib
import json
import re
from typing import Any

from qarm.report.explorer import ASSETS, explorer_asset, explorer_page
from qarm.schemas.explorer import ExplorerItems, Tree

HOSTILE = '</script><img src=x onerror="alert(1)"><!-- \u2028 &amp;'


def page(title: str) -> str:
    entry: dict[str, Any] = {"item": "i1", "title": title, "text": title, "codes": [1], "suffix": None}
    entry |= {"raw": [], "aligned": [], "picture": None, "sound": None}
    node = {"prefix": "1", "items": 1, "codes": 0, "examples": ["i1"]}
    counts = {"coded": 1, "listed": 1, "pictures": 0, "sounds": 0}
    tree = {
        "items": 1,
        "levels": 1,
        "limits": {"nodes": 9, "examples": 1},
        "nodes": [node],
        "first": [],
        "cards": {"x": {"title": None, "picture": None}},
    }
    limits = {"items": 1, "neighbours": 1, "picture_bytes": 1, "sound_bytes": 1}
    items = {"limits": limits, "counts": counts, "items": [entry]}
    return explorer_page(tree=Tree.model_validate(tree), items=ExplorerItems.model_validate(items))


def test_data_come_back_as_they_went_in() -> None:
    text = page(HOSTILE)
    assert "<img" not in text
    (data,) = re.findall(r'<script type="application/json" id="data">(.*?)</script>', text, flags=re.S)
    found = json.loads(data)
    assert found["items"]["items"][0]["title"] == HOSTILE
    assert "cards" not in found["tree"]


def test_the_policy_allows_these_scripts_and_this_style_alone() -> None:
    text = page("A thing")
    (policy,) = re.findall(r'http-equiv="Content-Security-Policy" content="([^"]*)"', text)
    (script,) = re.findall(r"<script>(.*?)</script>", text, flags=re.S)
    (style,) = re.findall(r"<style>(.*?)</style>", text, flags=re.S)
    rules = dict(rule.strip().split(" ", 1) for rule in policy.split(";"))
    for name, content in (("script-src", script), ("style-src", style)):
        assert (
            rules[name] == f"'sha256-{base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()}'"
        )
    assert (rules["default-src"], rules["img-src"]) == ("'none'", "data:")


def test_the_page_asks_for_nothing_outside_itself() -> None:
    text = page("A thing")
    assert re.findall(r'(?:src|href)="(?!data:|#|index\.html)[^"]*"', text) == []
    foreign = re.compile(r"https?://(?!www\.w3\.org/2000/svg)")
    assert not foreign.search(text)
    for name in ASSETS:
        asset = explorer_asset(name)
        assert not foreign.search(asset), name
        assert not re.search(r"\son[a-z]+=|innerHTML|insertAdjacentHTML|document\.write|eval\(", asset), name
