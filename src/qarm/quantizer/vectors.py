"""Vectors as quantisers read them: checks, ids, an embeddings Parquet, residual rows in bounded memory."""

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl
from sklearn.utils.validation import validate_data

from qarm.core.parallel.numba_jit import compiled
from qarm.core.parallel.torchrun import current
from qarm.core.paths import as_path
from qarm.core.tables import as_ids
from qarm.core.tables.parquet import parquet_schema, scan_parquet
from qarm.data.embeddings import Embeddings
from qarm.errors import InputError, Problems, shown

__all__ = [
    "AugmentedRows",
    "ResidualRows",
    "Vectors",
    "VectorsError",
    "augmented",
    "augmented_rows",
    "checked_ids",
    "checked_item_ids",
    "checked_rows",
    "has_item_ids",
    "parquet_ids",
    "parquet_rows",
    "subtract_centroids",
]

Vectors = Embeddings | npt.ArrayLike | Path | str
_PARQUET = ".parquet"
_LARGEST = 1e15  # squares of larger values, summed over some thousand dimensions, leave float32
_CHECKED_VALUES = 1 << 22


class VectorsError(InputError, ValueError):
    """Vectors that a quantiser cannot take; also a ValueError, as scikit-learn expects."""


def checked_rows(estimator: Any, values: Vectors, *, reset: bool) -> npt.NDArray[Any]:
    """The vectors as a two-dimensional float array [n, d], neither copied nor read into memory twice.

    Args:
        estimator: learns `n_features_in_` when `reset`, and is compared with it otherwise.
        values: embeddings, an array (float16, 32 or 64, any strides), the path of an `.npy` file, which is
            mapped, or that of an embeddings Parquet (`item_id`, `embedding`), which goes through a
            temporary file.

    Raises:
        VectorsError: no rows, a wrong dimension, or values that are not finite (rows are named) or
            above 1e15 in size.
        TypeError: a sparse matrix, or values that are no numbers.
    """
    if isinstance(values, Embeddings):
        checked_ids(values)
        values = values.vectors
    elif isinstance(values, Path | str):
        values = _mapped(as_path(values))
    kinds = [np.float64, np.float32, np.float16]
    try:
        rows = validate_data(estimator, values, reset=reset, dtype=kinds, ensure_all_finite=False)
    except ValueError as error:
        raise VectorsError(str(error)) from error
    _check_values(rows)
    return np.asarray(rows)


def has_item_ids(values: Vectors) -> bool:
    """Whether vectors come with item ids: embeddings, or the path of an embeddings Parquet."""
    named = isinstance(values, Path | str) and as_path(values).suffix.lower() == _PARQUET
    return named or isinstance(values, Embeddings)


def checked_item_ids(values: Vectors) -> list[str]:
    """The ids of embeddings, or of an embeddings Parquet.

    Raises:
        VectorsError: vectors that come without ids.
    """
    if isinstance(values, Embeddings):
        return list(values.item_ids)
    if isinstance(values, Path | str) and has_item_ids(values):
        try:
            return parquet_ids(as_path(values))
        except InputError as error:
            raise VectorsError(error.problems) from error
    raise VectorsError("vectors come without item ids; give embeddings or an embeddings Parquet")


def _mapped(path: Path) -> npt.NDArray[Any]:
    if path.suffix.lower() == _PARQUET:
        checked_item_ids(path)
        try:
            return parquet_rows(path)
        except InputError as error:
            raise VectorsError(error.problems) from error
    try:
        rows: npt.NDArray[Any] = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise VectorsError(f"{path}: not readable as .npy: {error}") from error
    return rows


def _check_values(rows: npt.NDArray[Any]) -> None:
    not_finite: list[int] = []
    too_large: list[int] = []
    step = max(_CHECKED_VALUES // rows.shape[1], 1)
    for start in range(0, len(rows), step):
        tile = rows[start : start + step]
        # NaN and infinity make the comparison false
        if float(tile.min()) >= -_LARGEST and float(tile.max()) <= _LARGEST:
            continue
        finite = np.isfinite(tile).all(axis=1)
        not_finite.extend((np.flatnonzero(~finite) + start).tolist())
        large = finite & (np.abs(tile.astype(np.float64)).max(axis=1) > _LARGEST)
        too_large.extend((np.flatnonzero(large) + start).tolist())
    problems = []
    if not_finite:
        problems.append(f"vectors hold NaN or infinity in rows {shown(not_finite)}; remove or repair them")
    if too_large:
        problems.append(f"vectors hold values above {_LARGEST:g} in rows {shown(too_large)}; rescale them")
    if problems:
        raise VectorsError(problems)


def checked_ids(embeddings: Embeddings) -> None:
    """Refuse item ids that are not distinct strings, one per row.

    Raises:
        VectorsError: another count than rows, ids that are no text, or ids that occur twice.
    """
    ids = embeddings.item_ids
    if len(ids) != len(embeddings.vectors):
        raise VectorsError(f"got {len(ids)} item ids for {len(embeddings.vectors)} vectors; give one per row")
    kinds = sorted({type(item).__name__ for item in ids})
    if kinds not in ([], ["str"]):
        raise VectorsError(
            f"item ids are of type {' and '.join(kinds)}, need text only; convert with str(...)"
        )
    if len(set(ids)) != len(ids):
        seen: set[str] = set()
        twice = sorted({item for item in ids if item in seen or seen.add(item)})  # type: ignore[func-returns-value]
        raise VectorsError(f"item ids occur more than once: {shown(twice)}; keep one row per item")


@dataclass(frozen=True)
class ResidualRows:
    """What earlier levels leave of the vectors, computed tile by tile, never stored.

    values: float [n, d] in any float type; codebooks: earlier levels' centroids, float32 [width, d] each;
    codes: int32 [n, levels], of which the first len(codebooks) columns are read.
    """

    values: npt.NDArray[Any]
    codebooks: Sequence[npt.NDArray[np.float32]] = ()
    codes: npt.NDArray[np.int32] | None = None

    def __len__(self) -> int:
        return len(self.values)

    @property
    def dim(self) -> int:
        """Number of dimensions of a row."""
        return int(self.values.shape[1])

    @property
    def largest(self) -> float:
        """An upper bound of the absolute residual, from the extremes of rows and centroids."""
        shard = current()
        first, last = shard.stretch(len(self))
        step = max(_CHECKED_VALUES // self.dim, 1)
        tiles = (self.values[start : min(start + step, last)] for start in range(first, last, step))
        own = max((_extreme(tile) for tile in tiles), default=0.0)
        return shard.largest(own) + sum(_extreme(book) for book in self.codebooks)

    def tile(self, start: int, stop: int) -> npt.NDArray[np.float32]:
        """Residuals of rows start to stop, float32 [stop - start, d], contiguous, read only."""
        return self.take(slice(start, stop))

    def take(self, rows: slice | npt.NDArray[np.int64]) -> npt.NDArray[np.float32]:
        """Residuals of the given rows, float32 [len(rows), d], subtracted level by level."""
        if not self.codebooks or self.codes is None:
            return np.ascontiguousarray(self.values[rows], dtype=np.float32)
        tile = np.array(self.values[rows], dtype=np.float32, order="C")
        codes = self.codes[rows]
        for level, codebook in enumerate(self.codebooks):
            subtract_centroids(tile, codebook, codes[:, level])
        return tile


def _extreme(values: npt.NDArray[Any]) -> float:
    return max(abs(float(values.min())), abs(float(values.max())))


class AugmentedRows(ResidualRows):
    """Residuals with one more coordinate, zero, beside centroids that have one too (see `balance`)."""

    @property
    def dim(self) -> int:
        """Number of dimensions of a row."""
        return super().dim + 1

    def take(self, rows: slice | npt.NDArray[np.int64]) -> npt.NDArray[np.float32]:
        """Rows [n, d + 1], with a last coordinate of zero."""
        return augmented_rows(super().take(rows))


def augmented_rows(rows: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Rows [n, d] with a last coordinate of zero, float32 [n, d + 1]."""
    wider = np.zeros((rows.shape[0], rows.shape[1] + 1), dtype=np.float32)
    wider[:, :-1] = rows
    return wider


def augmented(centroids: npt.NDArray[np.float32], lift: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Centroids [width, d] with a last coordinate `lift` [width], whose square adds to every distance."""
    return np.concatenate([centroids, lift[:, None]], axis=1)


@compiled()
def subtract_centroids(
    rows: npt.NDArray[np.float32], centroids: npt.NDArray[np.float32], codes: npt.NDArray[np.int32]
) -> None:
    """Take centroid codes[i] from row i of [n, d], in place."""
    for i in range(rows.shape[0]):
        code = codes[i]
        for j in range(rows.shape[1]):
            rows[i, j] -= centroids[code, j]


_VALUES = 1 << 24  # read at once; fewer would decode a row group many times over


def parquet_rows(path: Path) -> npt.NDArray[np.float32]:
    """Column `embedding` as float32 [n, d], in a temporary file that is mapped and goes with the array.

    Raises:
        InputError: not readable as Parquet, without the columns `item_id` and `embedding`, embeddings that
            are no fixed-size lists of floats, or rows without one.
    """
    dim = _dimension(path)
    table = scan_parquet(path).select("embedding")
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
    column = _collected(path, scan_parquet(path).select("item_id"))["item_id"]
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
        return dict(parquet_schema(path)) if query is None else query.collect()
    except (pl.exceptions.PolarsError, OSError) as error:
        reason = str(error).splitlines()[0]
        raise InputError(f"{path}: not readable as Parquet: {reason}") from error
