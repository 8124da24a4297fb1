"""Parquet and JSON Lines files of the package's own; a path is a name, whatever characters it holds.

polars takes `*`, `?` and brackets in a path for a pattern, and would read `run1/` where `run[1]/` was meant.
"""

from collections.abc import Sequence
from pathlib import Path

import polars as pl

from qarm.core.atomic_io import atomic

__all__ = ["parquet_schema", "read_parquet", "scan_parquet", "write_json_lines", "write_parquet"]


def read_parquet(path: Path, *, columns: Sequence[str] | None = None) -> pl.DataFrame:
    """Content of one Parquet file, or some of its columns."""
    table = scan_parquet(path)
    return (table if columns is None else table.select(columns)).collect()


def scan_parquet(path: Path) -> pl.LazyFrame:
    """Query of one Parquet file, which is not read before it is collected."""
    return pl.scan_parquet(path, glob=False, hive_partitioning=False)


def parquet_schema(path: Path) -> dict[str, pl.DataType]:
    """Types of a Parquet file's columns by name."""
    return dict(scan_parquet(path).collect_schema())


def write_parquet(path: Path, frame: pl.DataFrame) -> None:
    """Atomic write of a Parquet file, compressed with zstd."""
    with atomic(path) as temporary:
        frame.write_parquet(temporary, compression="zstd", statistics=False)


def write_json_lines(path: Path, frame: pl.DataFrame) -> None:
    """Atomic write of a JSON Lines file."""
    with atomic(path) as temporary:
        frame.write_ndjson(temporary)
