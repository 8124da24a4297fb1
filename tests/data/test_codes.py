"""Codes in a file."""

from pathlib import Path

import numpy as np
import polars as pl

from qarm.data.codes import Codes


def test_codes_survive(tmp_path: Path) -> None:
    rq = np.array([[0, 1, 2], [3, 4, 5]], dtype=np.int32)
    vq = np.array([[7, 8], [9, 7]], dtype=np.int32)
    Codes(["a", "b"], rq, vq, version=3).write(tmp_path / "c.parquet")
    back = Codes.read(tmp_path / "c.parquet")
    assert (back.item_ids, back.version) == (["a", "b"], 3)
    np.testing.assert_array_equal(back.rq, rq)
    np.testing.assert_array_equal(back.vq, vq)
    schema = pl.read_parquet_schema(tmp_path / "c.parquet")
    assert schema["rq"] == pl.Array(pl.Int32, 3)
    assert schema["version"] == pl.Int32
    Codes(["a", "b"], rq).write(tmp_path / "d.parquet")
    assert Codes.read(tmp_path / "d.parquet").vq is None
