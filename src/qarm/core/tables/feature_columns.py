"""Feature columns of a table: vectors as bytes, and attributes as one JSON text per row."""

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt
import polars as pl

from qarm.core.tables.columns import as_ids, as_numbers, as_texts
from qarm.core.tables.parquet import read_parquet
from qarm.core.tables.reader import TableColumns
from qarm.errors import Problems, shown

__all__ = [
    "AttributeKind",
    "attribute_column",
    "is_vector_file",
    "split_list",
    "vector_column",
    "vector_field",
    "vector_key",
]

AttributeKind = Literal["categorical", "list", "number"]
FILES = (".npy", ".parquet")
SEPARATORS = re.compile(r"[|;,]")
Floats = npt.NDArray[np.float32]


def is_vector_file(name: str) -> bool:
    """Whether a name is that of a file of vectors, and not of a column."""
    return name.endswith(FILES)


def vector_key(name: str) -> str:
    """The name of a column or file of vectors within the package."""
    return f"vector_{re.sub('[^A-Za-z0-9_-]', '_', vector_field(name))}"


def vector_field(name: str) -> str:
    """The name of vectors in a request: that of the column, or of the file without its ending."""
    return Path(name).stem if is_vector_file(name) else name


def split_list(text: str) -> list[str]:
    """The values of a list that is written as one text, split at `|`, `;` and `,`."""
    return SEPARATORS.split(text)


# ---- vectors ------------------------------------------------------------------------------------


def vector_column(
    table: TableColumns, name: str, *, ids: pl.Series, folder: Path | None, problems: Problems
) -> pl.Series:
    """Vectors of the rows as float32 bytes, null where there is none.

    Args:
        table: whose list column `name` is read, unless it is a file.
        name: a list column; or a file in the table's folder: `.npy` of a row for each row of the table, or
            Parquet of `item_id` and one list column.
        ids: item ids of the rows.
        folder: of the table; None where it has none.
        problems: gets what is wrong.
    """
    where = f"{table.name}.{name}"
    if not is_vector_file(name):
        series = table.column(name, problems=problems)
    elif folder is None:
        problems.add(f"{where}: a remote table has no folder of files; put the vectors into a list column")
        series = None
    else:
        series, where = _of_file(folder / name, ids, problems=problems), str(folder / name)
    nothing = pl.repeat(None, len(ids), dtype=pl.Binary, eager=True)
    return nothing if series is None else _as_bytes(series, where=where, problems=problems)


def _of_file(path: Path, ids: pl.Series, *, problems: Problems) -> pl.Series | None:
    try:
        if path.suffix == ".npy":
            array = np.load(path, allow_pickle=False)
            if array.ndim != 2 or len(array) != len(ids) or array.dtype.kind not in "fiu":
                problems.add(
                    f"{path}: got {array.dtype} {list(array.shape)}, need numbers [{len(ids)}, d], a row for "
                    "each row of the items' table; or give Parquet with item_id"
                )
                return None
            return pl.Series(array.astype(np.float32), dtype=pl.Array(pl.Float32, array.shape[1]))
        return _of_parquet(path, ids, problems=problems)
    except (OSError, ValueError, pl.exceptions.PolarsError) as error:
        problems.add(f"{path}: not readable ({' '.join(str(error).split())[:200]}); give .npy or Parquet")
    return None


def _of_parquet(path: Path, ids: pl.Series, *, problems: Problems) -> pl.Series | None:
    frame = read_parquet(path)
    vectors = [n for n, kind in frame.schema.items() if isinstance(kind, pl.List | pl.Array)]
    if "item_id" not in frame.columns or len(vectors) != 1:
        problems.add(f"{path}: it has {shown(frame.columns)}, need item_id and one list column")
        return None
    own = as_ids(frame["item_id"], table=str(path), problems=problems)
    if own is None or own.n_unique() < len(own):
        problems.add(f"{path}: item_id holds one twice; keep one row per item")
        return None
    found = pl.DataFrame({"item_id": own, "vector": frame[vectors[0]]})
    return pl.DataFrame({"item_id": ids}).join(found, on="item_id", how="left", maintain_order="left")[
        "vector"
    ]


def _as_bytes(series: pl.Series, *, where: str, problems: Problems) -> pl.Series:
    nothing = pl.repeat(None, len(series), dtype=pl.Binary, eager=True)
    kind = series.dtype
    if kind == pl.Null:
        return nothing
    if not isinstance(kind, pl.List | pl.Array) or not kind.inner.is_numeric():
        problems.add(f"{where}: vectors are {kind}, need lists of numbers")
        return nothing
    lists = series.cast(pl.List(pl.Float32))
    lengths = lists.list.len().drop_nulls().unique()
    if len(lengths) > 1 or (len(lengths) and lengths[0] == 0):
        problems.add(f"{where}: vectors of {shown(sorted(lengths))} numbers, need one length for all")
        return nothing
    some = lists.drop_nulls()
    values: Floats = some.explode().to_numpy().reshape(len(some), -1) if len(some) else np.zeros((0, 1), "f4")
    bad = ~np.isfinite(values).all(axis=1)
    if bad.any():
        rows = np.flatnonzero(lists.is_not_null().to_numpy())[bad]
        problems.add(
            f"{where}: rows {shown(rows.tolist())} hold no finite numbers; leave such vectors out (null)"
        )
        return nothing
    cells: list[bytes | None] = [None] * len(series)
    for row, vector in zip(np.flatnonzero(lists.is_not_null().to_numpy()), values, strict=True):
        cells[row] = np.ascontiguousarray(vector, dtype="<f4").tobytes()
    return pl.Series(cells, dtype=pl.Binary)


# ---- attributes ---------------------------------------------------------------------------------


def attribute_column(
    table: TableColumns, kinds: Mapping[str, AttributeKind], *, problems: Problems
) -> pl.Series:
    """Attributes of the rows as JSON by name, null where a row has none.

    A category is a list of one text, a list one of several; a text of several is split at `|`, `;` and `,`. A
    number that is missing, or no finite one, is left out, and so is an empty text.
    """
    rows: list[dict[str, list[str] | float]] = [{} for _ in range(table.frame.height)]
    for name, kind in sorted(kinds.items()):
        series = table.column(name, problems=problems)
        if series is None:
            continue
        cells = _cells(series, kind)
        if cells is None:
            need = "numbers" if kind == "number" else "text or numbers, or lists of them"
            problems.add(
                f"{table.name}.{name}: the attribute is {series.dtype}, need {need} ({name}: {kind})"
            )
            continue
        for row, cell in zip(rows, cells, strict=True):
            if cell is not None and cell != []:
                row[name] = cell
    texts = [json.dumps(row, sort_keys=True, ensure_ascii=False) if row else None for row in rows]
    return pl.Series("attributes", texts, dtype=pl.String)


def _cells(series: pl.Series, kind: AttributeKind) -> list[list[str] | float | None] | None:
    if series.dtype == pl.Null:
        return [None] * len(series)
    if kind == "number":
        numbers = as_numbers(series)
        finite = None if numbers is None else numbers.cast(pl.Float64)
        return None if finite is None else [x if x is not None and np.isfinite(x) else None for x in finite]
    if kind == "list" and isinstance(series.dtype, pl.List | pl.Array):
        return _lists(series.cast(pl.List(series.dtype.inner)))
    texts = as_texts(series)
    if texts is None:
        return None
    return [None if t is None else _stripped(split_list(t) if kind == "list" else [t]) for t in texts]


def _lists(series: pl.Series) -> list[list[str] | float | None] | None:
    sizes = series.list.len().fill_null(0)
    texts = as_texts(series.filter(sizes > 0).explode())
    if texts is None:
        return None
    flat = iter(texts)
    return [_stripped([next(flat) for _ in range(size)]) for size in sizes]


def _stripped(parts: list[str | None] | list[str]) -> list[str]:
    """Distinct texts without spaces around them, in alphabetical order."""
    return sorted({part.strip() for part in parts if part is not None and part.strip()})
