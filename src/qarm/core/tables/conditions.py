"""Conditions on a column: equal to a value or one of several, not one of several, at least, at most."""

from collections.abc import Sequence
from dataclasses import dataclass

import polars as pl

from qarm.core.tables.columns import TEXTS, as_numbers
from qarm.core.tables.times import as_times

__all__ = ["Bounds", "Scalar", "meets"]

Scalar = bool | int | float | str


@dataclass(frozen=True)
class Bounds:
    """Values that a column may have; a missing value is within `no` only. None and empty: no such bound."""

    one_of: Sequence[Scalar] = ()
    no: Sequence[Scalar] = ()
    at_least: int | float | str | None = None
    at_most: int | float | str | None = None


def meets(series: pl.Series, bounds: Bounds) -> pl.Series | None:
    """True for the values within all bounds, bool; None where a bound is of another type than the column.

    Numbers are compared with numbers, also with those of a text column; texts with texts, texts of dates with
    dates.
    """
    kept = pl.repeat(True, len(series), eager=True)
    for wanted, inside in ((bounds.one_of, True), (bounds.no, False)):
        if wanted:
            pairs = [_comparable(series, value) for value in wanted]
            if None in pairs:
                return None
            kept &= _any([pair for pair in pairs if pair is not None], len(series)) == inside
    for bound, least in ((bounds.at_least, True), (bounds.at_most, False)):
        if bound is not None:
            ordered = _ordered(series, bound)
            if ordered is None:
                return None
            values, limit = ordered
            kept &= (values >= limit if least else values <= limit).fill_null(False)
    return kept


def _any(pairs: Sequence[tuple[pl.Series, Scalar]], length: int) -> pl.Series:
    """True where a column, as the type of one of the values, is equal to it."""
    found = pl.repeat(False, length, eager=True)
    for values, value in pairs:
        found |= (values == value).fill_null(False)
    return found


def _comparable(series: pl.Series, value: Scalar) -> tuple[pl.Series, Scalar] | None:
    """The column and the value as one type; None where there is none."""
    kind = series.dtype
    if isinstance(value, str):
        if kind.is_temporal():
            return _dates(series, value)
        return (series.cast(pl.String), value) if kind in TEXTS and _is_utf8(value) else None
    if isinstance(value, bool) != (kind == pl.Boolean) and kind not in TEXTS:
        return None
    return _numbers(series, value)


def _ordered(series: pl.Series, value: int | float | str) -> tuple[pl.Series, int | float] | None:
    """The column and the value as numbers or as dates; None where they are neither."""
    if isinstance(value, str):
        return _dates(series, value)
    return None if series.dtype == pl.Boolean else _numbers(series, value)


def _numbers(series: pl.Series, value: int | float) -> tuple[pl.Series, int | float] | None:
    if series.dtype.is_integer() and isinstance(value, int):
        return (series, value) if -(2**63) <= value < 2**64 else None
    numbers = as_numbers(series)
    return None if numbers is None or abs(value) >= 2**64 else (numbers, float(value))


def _dates(series: pl.Series, value: str) -> tuple[pl.Series, int] | None:
    if not (series.dtype.is_temporal() or series.dtype == pl.String) or not _is_utf8(value):
        return None
    times, limit = as_times(series), as_times(pl.Series([value]))
    if times.fault or limit.fault or not times.unit == limit.unit == "us":
        return None
    return times.values, int(limit.values[0])


def _is_utf8(text: str) -> bool:
    try:
        text.encode()
    except UnicodeError:
        return False
    return True
