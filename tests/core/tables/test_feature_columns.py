"""Feature columns: vectors from columns and files, attributes as JSON."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from qarm.core.tables.feature_columns import vector_field, vector_key
from qarm.data.catalog import Catalog, read_catalog
from qarm.errors import InputError

IDS = ["a", "b", "c"]
VECTORS = np.arange(6, dtype=np.float32).reshape(3, 2) + 1


def catalog(frame: dict[str, Any], folder: Path, **given: Any) -> Catalog:
    return read_catalog(
        pl.DataFrame({"item_id": IDS, **frame}), folder=folder, text=[], image=None, audio=None, **given
    )


def vectors(found: Catalog, name: str) -> list[list[float] | None]:
    return [None if c is None else np.frombuffer(c, "<f4").tolist() for c in found.frame[vector_key(name)]]


@pytest.mark.parametrize("dtype", [pl.List(pl.Float64), pl.Array(pl.Float32, 2), pl.List(pl.Int32)], ids=str)
def test_vectors_of_a_list_column(dtype: pl.DataType, tmp_path: Path) -> None:
    cells = [VECTORS[0].tolist(), None, VECTORS[2].tolist()]
    cells = (
        [None if c is None else [int(x) for x in c] for c in cells] if dtype == pl.List(pl.Int32) else cells
    )
    found = catalog(
        {"v": pl.Series(cells, dtype=dtype), "w": [[1.0], [2.0], [3.0]]}, tmp_path, vectors=["v", "w"]
    )
    assert vectors(found, "v") == [[1, 2], None, [5, 6]]
    assert found.features == ["vector_v", "vector_w"]
    assert found.counts() == {"text": 0, "image": 0, "audio": 0, "vector_v": 2, "vector_w": 3}


def test_vectors_of_files_beside_the_table(tmp_path: Path) -> None:
    np.save(tmp_path / "clip.npy", VECTORS.astype(np.float64))
    frame = pl.DataFrame({"item_id": ["c", "x", "a"], "embedding": VECTORS[[2, 1, 0]].tolist()})
    frame.write_parquet(tmp_path / "bert.v1.parquet")
    found = catalog({"t": ["x"] * 3}, tmp_path, vectors=["clip.npy", "bert.v1.parquet"])
    assert vectors(found, "clip.npy") == VECTORS.tolist()
    assert vectors(found, "bert.v1.parquet") == [[1, 2], None, [5, 6]]
    assert [vector_field(n) for n in ("clip.npy", "bert.v1.parquet", "v")] == ["clip", "bert.v1", "v"]
    assert found.features == ["vector_clip", "vector_bert_v1"]


def test_vectors_that_are_none_are_refused(tmp_path: Path) -> None:
    np.save(tmp_path / "short.npy", VECTORS[:2])
    (tmp_path / "junk.npy").write_bytes(b"junk")
    pl.DataFrame({"id": IDS}).write_parquet(tmp_path / "ids.parquet")
    frame = {
        "uneven": [[1.0], [1.0, 2.0], None],
        "words": ["x", "y", "z"],
        "nan": [[1.0], [float("nan")], None],
    }
    named = ["uneven", "words", "nan", "short.npy", "junk.npy", "ids.parquet", "gone.npy", "lost"]
    with pytest.raises(InputError) as refused:
        catalog(frame, tmp_path, vectors=named)
    said = refused.value.problems
    for name, reason in (
        ("uneven", "vectors of 1, 2 numbers, need one length"),
        ("words", "vectors are String, need lists of numbers"),
        ("nan", "rows 1 hold no finite numbers"),
        ("short.npy", "got float32 [2, 2], need numbers [3, d]"),
        ("junk.npy", "not readable"),
        ("ids.parquet", "it has id, need item_id and one list column"),
        ("gone.npy", "not readable"),
        ("lost", "no column 'lost'"),
    ):
        assert [line for line in said if name in line and reason in line], (name, said)


def attributes(found: Catalog) -> list[dict[str, Any] | None]:
    return [None if cell is None else json.loads(cell) for cell in found.frame["attributes"]]


def test_attributes_by_their_kinds(tmp_path: Path) -> None:
    frame = {
        "brand": [" Acme ", "", None],
        "size": [7, 7, 8],
        "genres": ["Action|Drama", "Drama, Action", " "],
        "tags": [["b", "a", "a"], [], None],
        "price": ["9.50", None, "10"],
        "year": [1999.0, float("inf"), float("nan")],
    }
    kinds: dict[str, Any] = {"brand": "categorical", "size": "categorical", "genres": "list", "tags": "list"}
    kinds |= {"price": "number", "year": "number"}
    found = attributes(catalog(frame, tmp_path, attributes=kinds))
    both = ["Action", "Drama"]
    assert found[0] == {
        "brand": ["Acme"],
        "size": ["7"],
        "genres": both,
        "tags": ["a", "b"],
        "price": 9.5,
        "year": 1999.0,
    }
    assert found[1:] == [{"size": ["7"], "genres": both}, {"size": ["8"], "price": 10.0}]


def test_files_of_every_kind_hold_the_same_attributes(tmp_path: Path) -> None:
    frame = pl.DataFrame({"item_id": IDS, "brand": ["007", "x", None], "price": [1.5, None, 2.0]})
    kinds: dict[str, Any] = {"brand": "categorical", "price": "number"}
    found = []
    for name, write in (
        ("i.csv", frame.write_csv),
        ("i.jsonl", frame.write_ndjson),
        ("i.parquet", frame.write_parquet),
    ):
        write(tmp_path / name)
        read = read_catalog(tmp_path / name, text=["brand"], image=None, audio=None, attributes=kinds)
        found.append(attributes(read))
    assert found == [[{"brand": ["007"], "price": 1.5}, {"brand": ["x"]}, {"price": 2.0}]] * 3


def test_attributes_of_other_types_are_refused(tmp_path: Path) -> None:
    frame = {"price": ["cheap", "1", "2"], "t": ["x"] * 3}
    with pytest.raises(InputError, match=r"price: the attribute is String, need numbers \(price: number\)"):
        catalog(frame, tmp_path, attributes={"price": "number"})
    with pytest.raises(InputError, match="items c have no text, picture or sound, nor others"):
        catalog({"brand": ["x", "y", None]}, tmp_path, attributes={"brand": "categorical"})
