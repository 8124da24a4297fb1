"""Codes of given vectors: a file of vectors in, a sealed folder of codes out, without catalogue and log."""

from pathlib import Path

import numpy as np
import polars as pl

from qarm.config import QuantizerConfig
from qarm.core.atomic_io import write_json
from qarm.core.sealed_folder import building, seal
from qarm.core.tables import TableColumns, as_ids, read_table
from qarm.core.tables.feature_columns import vector_column
from qarm.data.embeddings import Embeddings
from qarm.errors import InputError, Problems, shown
from qarm.quantizer.evaluation.quality import code_quality
from qarm.quantizer.factory import all_codes, new_quantizer
from qarm.quantizer.knn_codes import NearestCodes
from qarm.quantizer.versions.archive import write_codes
from qarm.schemas.base import Figure

__all__ = ["KIND", "quantize_vectors", "read_vectors"]

KIND = "qarm-codes"


def quantize_vectors(path: Path, out: Path, settings: QuantizerConfig, *, seed: int) -> dict[str, Figure]:
    """Codes of the vectors in a file, their codebooks and quality, in a new folder; returns their figures.

    Args:
        path: `.npy` [n, d], whose items are called by their rows; or a table of `item_id` and a list column.
        out: folder to write; one with other content is never replaced.
        settings: of the codes.
        seed: of the codebooks.

    Raises:
        InputError: the file is wrong, or the settings do not fit the number of vectors.
    """
    vectors = read_vectors(path)
    books = new_quantizer(settings, len(vectors), seed=seed).fit(vectors)
    nearest = NearestCodes(settings.nearest, pool=settings.pool, index=settings.index, seed=seed).fit(vectors)
    codes = all_codes(vectors, vectors.item_ids, books, nearest, collisions=settings.collisions)
    quality = code_quality(vectors, codes, books, seed=seed)
    with building(out) as work:
        write_codes(work, codes, books, nearest, known=vectors)
        write_json(work / "quality.json", quality)
        seal(work, kind=KIND)
    shared = quality.full_codes.collision_rate
    return {"items": len(codes), "width": books.widths_, "collision_rate": shared}


def read_vectors(path: Path) -> Embeddings:
    """Vectors of a file; arguments and errors as in `quantize_vectors`."""
    problems = Problems()
    if path.suffix == ".npy":
        ids, cells = _of_array(path, problems)
    else:
        ids, cells = _of_table(path, problems)
    if ids is not None and (missing := ids.filter(cells.is_null())).len():
        problems.add(f"{path}: items {shown(missing.to_list())} have no vector; remove the rows")
    problems.raise_any()
    assert ids is not None  # noqa: S101 - else there was a problem
    rows = [np.frombuffer(cell, dtype="<f4") for cell in cells]
    return Embeddings(ids.to_list(), np.stack(rows).astype(np.float32))


def _of_array(path: Path, problems: Problems) -> tuple[pl.Series | None, pl.Series]:
    try:
        array = np.load(path, allow_pickle=False)
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: not readable ({' '.join(str(error).split())[:200]})") from None
    if array.ndim != 2 or not len(array) or array.dtype.kind not in "fiu":
        raise InputError(f"{path}: got {array.dtype} {list(array.shape)}, need numbers [n, d]")
    vectors = pl.Series("vector", array.astype(np.float32), dtype=pl.Array(pl.Float32, array.shape[1]))
    names = [str(row) for row in range(len(array))]
    return _cells(path, pl.DataFrame({"item_id": names, "vector": vectors}), problems)


def _of_table(path: Path, problems: Problems) -> tuple[pl.Series | None, pl.Series]:
    return _cells(path, read_table(path).frame, problems)


def _cells(path: Path, frame: pl.DataFrame, problems: Problems) -> tuple[pl.Series | None, pl.Series]:
    """Ids and vectors as bytes; None for the ids where something is wrong."""
    lists = [name for name, kind in frame.schema.items() if isinstance(kind, pl.List | pl.Array)]
    if "item_id" not in frame.columns or len(lists) != 1:
        problems.add(f"{path}: it has {shown(frame.columns)}, need item_id and one list column of vectors")
        return None, pl.Series(dtype=pl.Binary)
    ids = as_ids(frame["item_id"], table=str(path), problems=problems)
    if ids is not None and ids.n_unique() < len(ids):
        problems.add(f"{path}: duplicate ids: {shown(ids.filter(ids.is_duplicated()).unique().to_list())}")
    table = TableColumns(str(path), frame, frame.columns)
    return ids, vector_column(table, lists[0], ids=frame["item_id"], folder=None, problems=problems)
