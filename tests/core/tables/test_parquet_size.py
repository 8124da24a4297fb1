"""Parquet files that unpack to far more than they hold."""

from pathlib import Path

import numpy as np
import polars as pl
import pytest

from qarm.core.tables import read_table
from qarm.core.tables.parquet_size import LIMIT, check_parquet_size
from qarm.errors import InputError

ROWS = 50_000_000


@pytest.fixture(scope="module")
def bomb(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """50 million times one text and one number, in a few KB."""
    path = tmp_path_factory.mktemp("bomb") / "items.parquet"
    one = pl.select(item_id=pl.lit("a"), price=pl.lit(1.0)).lazy()
    ids = one.select(pl.all().repeat_by(ROWS).explode())
    ids.collect().write_parquet(path, row_group_size=ROWS)
    assert path.stat().st_size < 200_000
    return path


def test_many_equal_values_are_refused_before_they_are_read(bomb: Path) -> None:
    with pytest.raises(InputError, match=r"items.parquet: .* unpack to 1.1 GiB.* set QARMTABLE_MAX_GIB=2"):
        read_table(bomb)


def test_the_limit_can_be_raised_and_counts_the_columns_that_are_read(
    bomb: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    check_parquet_size(str(bomb), ["price"])
    monkeypatch.setenv(LIMIT, "2")
    check_parquet_size(str(bomb), None)
    monkeypatch.setenv(LIMIT, "0.2")
    with pytest.raises(InputError, match=r"unpack to 0.4 GiB, more than the 0.2 GiB"):
        check_parquet_size(str(bomb), ["price"])
    monkeypatch.setenv(LIMIT, "much")
    with pytest.raises(InputError, match="QARMTABLE_MAX_GIB = 'much', need a number"):
        check_parquet_size(str(bomb), None)


def test_one_long_text_in_many_rows_is_refused(tmp_path: Path) -> None:
    """polars keeps it once; what reads the rows would not."""
    pl.DataFrame({"item_id": ["x" * 1_000_000] * 1_200}).write_parquet(tmp_path / "a.parquet")
    with pytest.raises(InputError, match=r"a.parquet: .* unpack to 1.1 GiB"):
        read_table(tmp_path / "a.parquet")


def test_tables_of_every_type_are_read(tmp_path: Path) -> None:
    vectors = pl.Series([np.zeros(8)] * 100, dtype=pl.Array(pl.Float32, 8))
    frame = pl.DataFrame(
        {"item_id": [f"i{k}" for k in range(100)], "tags": [["a", None]] * 100, "vector": vectors}
    ).with_columns(
        info=pl.struct(title=pl.lit("x"), price=1.5), seen=pl.lit(True), at=pl.datetime(2026, 1, 1)
    )
    frame.write_parquet(tmp_path / "a.parquet")
    assert read_table(tmp_path / "a.parquet").frame.equals(frame)
    found = read_table(tmp_path / "a.parquet", ["item_id", "info.price"]).frame
    assert found["info.price"].to_list() == [1.5] * 100


def test_a_damaged_footer_is_left_to_the_reader(tmp_path: Path) -> None:
    pl.DataFrame({"a": [1]}).write_parquet(tmp_path / "a.parquet")
    content = bytearray((tmp_path / "a.parquet").read_bytes())
    for place in range(len(content) - 60, len(content)):
        broken = bytearray(content)
        broken[place] ^= 0xFF
        (tmp_path / "b.parquet").write_bytes(broken)
        check_parquet_size(str(tmp_path / "b.parquet"), None)
