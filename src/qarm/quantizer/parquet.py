"""An embeddings Parquet as rows and ids, in bounded memory."""

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from qarm.core.tables import as_ids
from qarm.errors import InputError, Problems, shown

__all__ = ["parquet_ids", "parquet_rows"]

_VALUES = 1 << 24  # read at once; fewer would decode a row group many times over


def parquet_rows(path: Path) -> npt.NDArray[np.float32]:
    """Column `embedding` as float32 [n, d], in a temporary file that is mapped and goes with the array.

    Raises:
        InputError: not readable as Parquet, without the columns `item_id` and `embedding`, embeddings that
            are no fixed-size lists of floats, or rows without one.
    """
    dim = _dimension(path)
    table = pl.scan_parquet(path).select("embedding")
    n = int(_collected(path, table.select(pl.len())).item())
    if n == 0:
        return np.empty((0, dim), dtype=np.float32)
    with tempfile.TemporaryFile(prefix="qarm-") as file:
        rows: npt.NDArray[np.float32] = np.memmap(file, dtype=np.float32, mode="w+", shape=(n, dim))
    step = max(_VALUES // dim, 1)
    for start in range(0, n, step):
        part = _collected(path, table.slice(start, step))["embedding"]
        missing = (part.is_null() | part.arr.contains(None)).arg_true() + start
        if len(missing):
            raise InputError(f"{path}: rows {shown(missing)} have no whole embedding; embed or remove them")
        rows[start : start + step] = part.to_numpy()
    return rows


def parquet_ids(path: Path) -> list[str]:
    """Column `item_id` as text, n distinct ids; integers become text.

    Raises:
        InputError: as `parquet_rows`; or ids of another type, missing, empty or not distinct.
    """
    _dimension(path)
    column = _collected(path, pl.scan_parquet(path).select("item_id"))["item_id"]
    problems = Problems()
    ids = as_ids(column, table=str(path), problems=problems)
    if ids is not None and ids.n_unique() < len(ids):
        twice = ids.filter(ids.is_duplicated()).unique().sort()
        problems.add(f"{path}: item ids occur more than once: {shown(twice)}; keep one row per item")
    problems.raise_any()
    assert ids is not None  # noqa: S101 - else there was a problem
    return ids.to_list()


def _dimension(path: Path) -> int:
    """Length of an embedding, from the schema."""
    schema = _collected(path, None)
    missing = [name for name in ("item_id", "embedding") if name not in schema]
    if missing:
        raise InputError(f"{path}: no column {' and '.join(missing)}; it has {shown(schema)}")
    kind = schema["embedding"]
    if not (isinstance(kind, pl.Array) and len(kind.shape) == 1 and kind.inner.is_float()):
        raise InputError(f"{path}: embedding is {kind}, need a fixed-size list of f32; cast it to pl.Array")
    return int(kind.shape[0])


def _collected(path: Path, query: pl.LazyFrame | None) -> Any:
    """The frame of a query, or the file's schema; a fault of the file becomes an `InputError`."""
    try:
        return dict(pl.read_parquet_schema(path)) if query is None else query.collect()
    except (pl.exceptions.PolarsError, OSError) as error:
        reason = str(error).splitlines()[0]
        raise InputError(f"{path}: not readable as Parquet: {reason}") from error
