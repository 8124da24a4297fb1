"""The explorer's routes on a tiny bundle, without a browser."""

import re
from pathlib import Path

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient

from qarm.report.explorer import ASSETS
from qarm.serving.bundle import Bundle
from qarm.serving.http.explorer import explorer_routes


@pytest.fixture(scope="module")
def client(bundle: Bundle) -> TestClient:
    app = FastAPI()
    app.include_router(explorer_routes(lambda: bundle))
    return TestClient(app)


def test_the_page_and_its_parts_come_with_a_strict_policy(client: TestClient) -> None:
    page = client.get("/explorer/")
    assert page.headers["content-type"] == "text/html; charset=utf-8"
    policy = page.headers["content-security-policy"]
    assert "default-src 'none'; script-src 'self'; style-src 'self'" in policy
    assert "unsafe" not in policy
    assert client.get("/explorer", follow_redirects=False).headers["location"] == "explorer/"
    named = re.findall(r'(?:src|href)="([a-z]+\.(?:js|css))"', page.text)
    assert set(named) == set(ASSETS) - {"index.html"}
    for name in named:
        assert client.get(f"/explorer/{name}").headers["content-type"] == ASSETS[name]


def test_the_tree_counts_the_bundles_codes(client: TestClient, bundle: Bundle) -> None:
    about = client.get("/v1/explorer").json()
    assert about == {
        "bundle": bundle.version,
        "version": 1,
        "items": len(bundle),
        "levels": bundle.codes.rq.shape[1],
        "recommends": True,
    }
    nodes = client.get("/v1/explorer/tree").json()["nodes"]
    for node in nodes:
        prefix = [int(code) for code in node["prefix"].split("-")] if node["prefix"] else []
        under = bundle.under(prefix)
        assert node["items"] == len(under)
        assert set(node["examples"]) <= set(under)
    assert client.get("/v1/explorer/tree", params={"prefix": ""}).json()["nodes"] == nodes
    inner = next(node["prefix"] for node in nodes if node["codes"] and node["prefix"])
    below = client.get("/v1/explorer/tree", params={"prefix": inner}).json()["nodes"]
    assert below[0]["prefix"] == inner
    assert all(node["prefix"].startswith(inner) for node in below)
    for nowhere in ("999", "1-1-1-1-1-1"):
        assert client.get("/v1/explorer/tree", params={"prefix": nowhere}).json() == {"nodes": []}
    for wrong in ("a", "1-", "../1", "1" * 300):
        assert client.get("/v1/explorer/tree", params={"prefix": wrong}).status_code == 422


def test_cards_and_neighbours_before_alignment(client: TestClient, bundle: Bundle) -> None:
    item = bundle.item_ids[3]
    known, unknown = client.get("/v1/explorer/cards", params={"item": [item, "nobody"]}).json()["cards"]
    facts = bundle.facts(item)
    assert known["title"] == facts["title"]
    assert known["codes"] == bundle.codes.rq[3].tolist()
    assert (known["picture"], known["sound"]) == (facts["image"], facts["audio"])
    assert unknown == {
        "item": "nobody",
        **dict.fromkeys(("title", "picture", "sound", "codes", "suffix")),
    }
    before = client.get("/v1/explorer/before", params={"item": item}).json()["cards"]
    assert [card["item"] for card in before] == bundle.nearest_raw(item)[:5]
    assert client.get("/v1/explorer/before", params={"item": "nobody"}).json() == {"cards": []}
    assert client.get("/v1/explorer/cards", params={"item": ["x"] * 101}).status_code == 422


def test_media_come_by_their_hash_and_by_nothing_else(client: TestClient, bundle: Bundle) -> None:
    facts = bundle.facts(bundle.item_ids[0])
    for name, kind in ((facts["image"], "image/png"), (facts["audio"], "audio/wav")):
        found = client.get(f"/explorer/{name}")
        assert found.content == (bundle.folder / name).read_bytes()
        assert found.headers["content-type"] == kind
        assert found.headers["content-security-policy"] == "default-src 'none'; sandbox"
    part = client.get(f"/explorer/{facts['audio']}", headers={"Range": "bytes=0-9"})
    assert (part.status_code, len(part.content)) == (206, 10)
    file = Path(facts["image"]).name
    for name in ("..%2Fbundle.json", "%2e%2e%2fbundle.json", f"{file}%00", f"{file}/x", "bundle.json"):
        assert client.get(f"/explorer/media/{name}").status_code == 404, name
    assert client.get("/explorer/bundle.json").status_code == 404
