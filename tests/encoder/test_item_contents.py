"""Several pictures of an item: its feature is the mean of theirs, for every kind of tower."""

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch

from qarm.data.catalog import Catalog
from qarm.encoder.alignment.model import Collated
from qarm.encoder.feature_cache import tower_features
from qarm.encoder.item_contents import Several, content_key, contents_of, flattened, load_item
from qarm.errors import InputError

ENTRY = pl.Struct({"bytes": pl.Binary, "path": pl.String})
ROWS = np.arange(10, dtype=np.float32).reshape(5, 2)


@pytest.fixture
def catalog(tmp_path: Path) -> Catalog:
    """i0 has two pictures, i1 one in a file, i2 none, i3 two that are alike."""
    (tmp_path / "one").write_bytes(ROWS[2].tobytes())
    a, b, d = ({"bytes": ROWS[n].tobytes(), "path": None} for n in (0, 1, 3))
    cells = [[a, b], [{"bytes": None, "path": "one"}], None, [d, d]]
    columns = {"item_id": ["i0", "i1", "i2", "i3"], "text": ["1 2", "3 4", "5 6", "7 8"]}
    frame = pl.DataFrame(columns).with_columns(
        image=pl.Series(cells, dtype=pl.List(ENTRY)), audio=pl.lit(None, pl.String)
    )
    return Catalog(frame, tmp_path)


class Joint:
    """A tower that reads text and picture together: their sum."""

    name, fingerprint, modalities = "joint", "j" * 20, ("text", "image")

    def load(self, content: dict[str, Any]) -> np.ndarray:
        text = np.array(content["text"].split(), dtype=np.float32)
        return text + (np.frombuffer(content["image"], dtype=np.float32) if "image" in content else 0)

    def encode(self, inputs: Any) -> np.ndarray:
        return np.stack(inputs)


def test_the_feature_is_the_mean_of_the_pictures(catalog: Catalog, fake: Any, tmp_path: Path) -> None:
    for cache in (None, tmp_path / "cache", tmp_path / "cache"):
        found = tower_features(catalog, {"image": fake("image")}, cache=cache)
        assert found.present["image"].tolist() == [True, True, False, True]
        np.testing.assert_array_equal(found.values["image"], [(ROWS[0] + ROWS[1]) / 2, ROWS[2], ROWS[3]])


def test_a_tower_of_whole_items_reads_each_picture_with_the_text(catalog: Catalog) -> None:
    found = tower_features(catalog, {"item": Joint()})  # type: ignore[dict-item]
    means = [(ROWS[0] + ROWS[1]) / 2, ROWS[2], np.zeros(2), ROWS[3]]
    texts = [[1, 2], [3, 4], [5, 6], [7, 8]]
    np.testing.assert_array_equal(found.values["item"], np.array(means) + texts)


def test_keys_tell_pictures_and_their_order_and_single_ones_keep_theirs(catalog: Catalog, fake: Any) -> None:
    rows = catalog.frame.rows(named=True)
    contents = {
        row["item_id"]: contents_of(catalog, "image", fake("image"), row) for row in rows if row["image"]
    }
    assert [len(found) for found in contents.values()] == [2, 1, 2]
    first, second = contents["i0"]
    keys = [
        content_key(c) for c in ([first, second], [second, first], [first], [first, first], [first + second])
    ]
    assert len(set(keys)) == 5
    assert content_key([first]) == hashlib.sha256(first).digest()  # what an earlier qarm cached is found


def test_an_unreadable_one_of_several_is_named(catalog: Catalog, fake: Any) -> None:
    row = {
        "item_id": "i0",
        "text": None,
        "image": [{"bytes": None, "path": "one"}, {"bytes": None, "path": "gone"}],
    }
    with pytest.raises(InputError, match="item 'i0': image gone: no such file"):
        contents_of(catalog, "image", fake("image"), row)
    (catalog.folder / "gone").write_bytes(b"odd")
    contents = contents_of(catalog, "image", fake("image"), row)
    with pytest.raises(InputError, match="item 'i0': image gone: no whole number of floats"):
        load_item("image", fake("image"), row, contents)


def test_means_where_the_tower_is_trained_have_a_gradient() -> None:
    flat, sizes = flattened([Several((1.0, 3.0)), 5.0, Several((2.0, 2.0, 5.0))])
    assert flat == [1.0, 3.0, 5.0, 2.0, 2.0, 5.0]
    values = torch.tensor(flat, requires_grad=True)
    found = Collated(values, torch.from_numpy(sizes)).mean(values[:, None])
    assert found[:, 0].tolist() == [2.0, 5.0, 3.0]
    found.sum().backward()
    assert values.grad is not None
    assert values.grad.tolist() == pytest.approx([1 / 2, 1 / 2, 1, 1 / 3, 1 / 3, 1 / 3])
