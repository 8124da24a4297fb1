"""Settings that were added to a format: read as what their absence meant, and no reason to begin anew."""

import json

import pytest

from qarm.config import Config
from qarm.core.formats import LATER, comparison_key, upgraded
from qarm.errors import ArtifactError
from qarm.schemas.base import FORMAT


def without_later(settings: dict) -> dict:
    """The settings as a qarm that did not know the later ones wrote them."""
    old = json.loads(json.dumps(settings))
    for name in LATER:
        *path, key = name.split(".")
        section = old
        for part in path:
            section = section[part]
        del section[key]
    return old


def test_a_manifest_of_format_2_is_read_with_the_settings_added_since() -> None:
    """The ranker's defaults are what their absence meant, so that a finished stage stays fresh."""
    ranker = {"ranker": Config().model_dump(mode="json")["ranker"]}
    old = {"ranker": dict(ranker["ranker"])}
    for name in LATER:
        old["ranker"].pop(name.removeprefix("ranker."), None)
    assert old != ranker
    found = upgraded({"format": FORMAT, "config": old, "stage": "train"})
    assert found == {"format": FORMAT, "config": ranker, "stage": "train"}
    assert "compare" not in found["config"]
    given = {"ranker": old["ranker"] | {"ngrams": 7}}
    assert upgraded({"format": FORMAT, "config": given})["config"]["ranker"]["ngrams"] == 7


def test_a_comparison_of_the_first_edition_keeps_its_key() -> None:
    settings = Config.model_validate({"compare": {"edition": 1}}).model_dump(mode="json")
    assert comparison_key(settings, ["a"]) == comparison_key(without_later(settings), ["a"])
    second = Config().model_dump(mode="json")
    assert comparison_key(second, ["a"]) != comparison_key(without_later(second), ["a"])
    tuned = {**settings, "ranker": settings["ranker"] | {"ngrams": 7}}
    assert comparison_key(tuned, ["a"]) != comparison_key(settings, ["a"])


def test_a_later_format_is_refused() -> None:
    with pytest.raises(ArtifactError, match=f"format 9, need at most {FORMAT}"):
        upgraded({"format": 9, "config": {}})
