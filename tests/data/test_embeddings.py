"""Embeddings in a file, and their rows by item id."""

from pathlib import Path

import numpy as np
import polars as pl
import pytest

from qarm.data.embeddings import Embeddings
from qarm.errors import InputError


def test_embeddings_survive_and_match_by_id(tmp_path: Path) -> None:
    vectors = np.arange(6, dtype=np.float32).reshape(3, 2)
    Embeddings(["a", "b", "c"], vectors).write(tmp_path / "e.parquet")
    back = Embeddings.read(tmp_path / "e.parquet")
    assert back.item_ids == ["a", "b", "c"]
    np.testing.assert_array_equal(back.rows(["c", "a"]), vectors[[2, 0]])
    assert pl.read_parquet_schema(tmp_path / "e.parquet")["embedding"] == pl.Array(pl.Float32, 2)
    with pytest.raises(InputError, match="no vector for items x"):
        back.rows(["a", "x"])
