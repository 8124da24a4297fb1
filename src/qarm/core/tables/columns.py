"""Columns of tables: found by name, and cast to what the config says that they are."""

import polars as pl

from qarm.errors import Problems, shown

__all__ = ["as_ids", "column"]


def column(frame: pl.DataFrame, name: str, *, table: str, problems: Problems) -> pl.Series | None:
    """Column by its name.

    None, and a problem, where it is missing or its values are Python objects of several types.
    """
    if name not in frame.columns:
        problems.add(f"{table}: no column {name!r}; it has {shown(frame.columns, first=12)}")
        return None
    series = frame.get_column(name)
    if series.dtype != pl.Object:
        return series
    kinds = sorted({type(value).__name__ for value in series if value is not None})
    problems.add(f"{table}.{name}: values are of type {' and '.join(kinds)}, need one; convert them to it")
    return None


def as_ids(
    series: pl.Series, *, table: str, problems: Problems, rows: pl.Series | None = None
) -> pl.Series | None:
    """Ids as strings. Text and integers are accepted; nulls, empty text and other types are problems.

    Args:
        rows: row of each entry in the file, from 0, for messages; by default its position.
    """
    kind = series.dtype
    if not (kind.is_integer() or kind in (pl.String, pl.Categorical, pl.Enum)):
        problems.add(f"{table}.{series.name}: ids are {kind}, need text or integers; cast them")
        return None
    ids = series.cast(pl.String)
    bad = (ids.is_null() | (ids == "")).arg_true()
    if len(bad):
        file_rows = bad if rows is None else rows.gather(bad)
        problems.add(f"{table}.{series.name}: null or empty ids in rows {shown(file_rows)}; remove them")
        return None
    return ids
