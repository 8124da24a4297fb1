"""Items of the explorer: twelve, whose codes and neighbours are planted."""

from base64 import b64decode
from io import BytesIO
from typing import Any

import numpy as np
import pytest
import soundfile
from PIL import Image
from tests.report.conftest import IDS

from qarm.data.catalog import Catalog
from qarm.data.codes import Codes
from qarm.data.embeddings import Embeddings
from qarm.quantizer.code_tree import CodeTree
from qarm.report import item_data as items_module
from qarm.report.item_data import explorer_items
from qarm.schemas.explorer import ExplorerItems


def on_circle(numbers: np.ndarray) -> Embeddings:
    angles = 2 * np.pi * numbers / 12
    return Embeddings(IDS, np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32))


def explored(codes: Codes, catalog: Catalog) -> Any:
    raw, aligned = on_circle(np.arange(12.0)), on_circle(np.arange(12) * 5 % 12)
    return explorer_items(CodeTree(codes), codes, catalog, raw=raw, aligned=aligned).content()


def test_items_have_their_codes_neighbours_pictures_and_sounds(codes: Codes, catalog: Catalog) -> None:
    found = explored(codes, catalog)
    ExplorerItems.model_validate(found)
    assert found["counts"] == {"coded": 13, "listed": 13, "pictures": 11, "sounds": 1}
    items = {entry["item"]: entry for entry in found["items"]}
    assert next(iter(items)) == "i11"  # of the largest code: 1, in it 1-1, in it 1-1-2
    first = items["i0"]
    assert (first["title"], first["text"], first["codes"]) == ("Thing 0", "Thing 0\nof group 0", [0, 0, 0])
    assert set(first["raw"][:4]) == {"i1", "i11", "i2", "i10"}
    assert set(first["aligned"][:2]) == {"i5", "i7"}  # 5 * 5 = 1 and 7 * 5 = 11, modulo 12
    assert items["i1"]["picture"] is None
    assert items["new"] == {
        "item": "new",
        "title": None,
        "text": None,
        "codes": [1, 1, 2],
        "suffix": None,
        "raw": [],
        "aligned": [],
        "picture": None,
        "sound": None,
    }
    picture = Image.open(BytesIO(b64decode(first["picture"].removeprefix("data:image/webp;base64,"))))
    assert picture.size == (96, 48)
    sound, rate = soundfile.read(BytesIO(b64decode(first["sound"].removeprefix("data:audio/mpeg;base64,"))))
    assert rate == 16_000
    assert 1.9 < len(sound) / rate < 2.3  # of five seconds
    assert explored(codes, catalog) == found


def test_what_the_page_can_carry_is_bounded(
    codes: Codes, catalog: Catalog, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = explored(codes, catalog)
    room = sum(len(entry["picture"] or "") for entry in whole["items"]) // 2
    monkeypatch.setattr(items_module, "PICTURE_BYTES", room)
    monkeypatch.setattr(items_module, "SOUND_BYTES", 10)
    monkeypatch.setattr(items_module, "ITEMS", 3)
    found = explored(codes, catalog)
    listed = [entry for entry in found["items"] if entry["raw"] is not None]
    assert [len(listed), found["counts"]["listed"], found["counts"]["sounds"]] == [3, 3, 0]
    assert 0 < sum(len(entry["picture"] or "") for entry in found["items"]) <= room
    named = {item for entry in listed for item in [*entry["raw"], *entry["aligned"]]}
    others = {entry["item"] for entry in found["items"] if entry not in listed}
    assert others == named - {entry["item"] for entry in listed} != set()  # a card each, but no list
