"""Times of events: whole numbers, dates and texts of dates as int64; how they were read is reported."""

from bisect import bisect_right
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Literal

import polars as pl

from qarm.core.tables.columns import as_numbers
from qarm.errors import shown

__all__ = ["PER_SECOND", "Times", "Unit", "as_times", "guessed_unit", "instant"]

Unit = Literal["s", "ms", "us", "ns"]
PER_SECOND: dict[Unit, int] = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}
NAMES: dict[Unit, str] = {"s": "seconds", "ms": "milliseconds", "us": "microseconds", "ns": "nanoseconds"}
EARLIEST_GUESS = 10**8  # 1973 in seconds; smaller whole numbers are positions, not dates
UNIT_ENDS = (10**11, 10**14, 10**17)  # the year 5138 in s, ms, us, and 1973 in the next finer unit
ISO = (
    r"^(?<date>\d{4}[-/]\d{1,2}[-/]\d{1,2})"
    r"(?:[T ]+(?<hour>\d{1,2}):(?<minute>\d{2})(?::(?<second>\d{2})(?:[.,](?<fraction>\d{1,9}))?)?)?"
    r"(?: *(?<zone>Z|z|UTC|GMT|[+-]\d{2}:?\d{2}|[+-]\d{2}))?$"
)
DAY_OR_MONTH_FIRST = r"^(?<first>\d{1,2})(?<mark>[-/.])(?<second>\d{1,2})[-/.](?<year>\d{4})(?<rest>.*)$"
SETTING = "data.interactions.time_format"
DAY_FIRST, MONTH_FIRST = "%d/%m/%Y", "%m/%d/%Y"


@dataclass(frozen=True)
class Times:
    """Times of rows: values int64, null where one cannot be read; unit: of dates, None for whole numbers.

    said: how they were read; fault: why the column cannot be read, with the way out, None where it can.
    """

    values: pl.Series
    unit: Unit | None
    said: str
    fault: str | None = None


def guessed_unit(latest: int) -> Unit | None:
    """Unit of whole numbers since 1970, by the largest of them; None where they are too small for dates."""
    return None if latest < EARLIEST_GUESS else list(PER_SECOND)[bisect_right(UNIT_ENDS, latest)]


def instant(time: int, unit: Unit) -> str:
    """A time since 1970 as an ISO date and time, UTC."""
    moment = datetime(1970, 1, 1) + timedelta(microseconds=time * 10**6 // PER_SECOND[unit])
    return moment.isoformat(timespec="seconds")


def as_times(series: pl.Series, *, time_format: str | None = None) -> Times:
    """Times of a column.

    Whole numbers stay as they are, also those in a text or a float column. Fractions are dates: seconds to
    nanoseconds since 1970, by the largest. Dates, and texts of dates, become microseconds since 1970, UTC;
    one without a zone is UTC. Texts are ISO 8601, or of `time_format`; `31/01/2024` or `01/31/2024` where the
    column shows which of the two it is.
    """
    kind = series.dtype
    if kind.is_integer():
        return _whole(series.cast(pl.Int64, strict=False))
    if kind == pl.Date:
        return Times(series.cast(pl.Datetime("us")).dt.epoch("us"), "us", "dates")
    if isinstance(kind, pl.Datetime):
        zone = f"dates and times of zone {kind.time_zone}" if kind.time_zone else "dates and times, as UTC"
        return Times(series.dt.epoch("us"), "us", zone)
    if kind == pl.String and time_format is not None:
        return _of_format(series, time_format)
    numbers = as_numbers(series) if kind.is_numeric() or kind == pl.String else None
    if numbers is not None:
        return _of_numbers(series, numbers)
    if kind == pl.String:
        return _of_texts(series.str.strip_chars())
    fault = f"got {kind}, need integers, dates or datetimes; cast the column"
    return Times(_nothing(series), None, "", fault)


def _nothing(series: pl.Series) -> pl.Series:
    return pl.repeat(None, len(series), dtype=pl.Int64, eager=True)


def _whole(values: pl.Series) -> Times:
    latest = values.max()
    unit = guessed_unit(latest) if isinstance(latest, int) else None
    return Times(values, None, f"{NAMES[unit]} since 1970, by their size" if unit else "positions, no dates")


def _of_numbers(series: pl.Series, numbers: pl.Series) -> Times:
    fractions = numbers.drop_nulls()
    if not (fractions != fractions.round()).any():
        exact = series.str.strip_chars() if series.dtype == pl.String else series
        whole = exact.cast(pl.Int64, strict=False)  # a float64 has 53 bits
        return _whole(whole.zip_with(whole.is_not_null(), numbers.cast(pl.Int64, strict=False)))
    largest = float(fractions.max() or 0.0)  # type: ignore[arg-type] # of floats
    unit = guessed_unit(int(largest))
    if unit is None:
        fault = f"got fractions up to {largest:g}, too small for dates; give whole numbers or dates"
        return Times(_nothing(series), None, "", fault)
    values = (numbers * (10**6 / PER_SECOND[unit])).round().cast(pl.Int64, strict=False)
    return Times(values, "us", f"{NAMES[unit]} since 1970 with fractions, by their size")


# ---- texts ------------------------------------------------------------------------------------


def _of_format(series: pl.Series, time_format: str) -> Times:
    """Times of a format; a fault where a text does not have it.

    Day or month first without a clock decides for texts with a clock too, as `as_times` proposes it.
    """
    texts = series.str.strip_chars()
    values = texts.str.to_datetime(time_format, time_unit="us", strict=False).cast(pl.Int64)
    if time_format in (DAY_FIRST, MONTH_FIRST):
        read = _reader(texts)
        values = read("first", "second") if time_format == DAY_FIRST else read("second", "first")
    wrong = texts.filter(values.is_null() & texts.is_not_null())
    fault = None
    if len(wrong):
        fault = (
            f"got {shown(wrong.unique(maintain_order=True), first=3)}, need {time_format!r}; set {SETTING}"
        )
    return Times(values, "us", f"dates of {time_format}", fault)


def _of_texts(texts: pl.Series) -> Times:
    iso = _iso(texts)
    if not (iso.is_null() & texts.is_not_null()).any():
        return Times(iso, "us", "ISO dates; those without a zone as UTC")
    if texts.drop_nulls().str.contains(DAY_OR_MONTH_FIRST).all():
        return _day_or_month_first(texts)
    wrong = texts.filter(iso.is_null() & texts.is_not_null()).unique(maintain_order=True)
    fault = (
        f"got {shown(wrong, first=3)}, need ISO dates (2024-01-31 18:30:00) or whole numbers; set {SETTING}"
    )
    return Times(iso, None, "", f"{fault}, for example to {DAY_FIRST!r}")


def _iso(texts: pl.Series) -> pl.Series:
    """Microseconds since 1970 of ISO 8601 dates and times; null where a text is none."""
    parts = texts.str.extract_groups(ISO).struct.unnest()
    day = parts["date"].str.replace_all("/", "-").str.to_date("%Y-%m-%d", strict=False)
    clock = {name: parts[name].cast(pl.Int64).fill_null(0) for name in ("hour", "minute", "second")}
    fraction = parts["fraction"].str.pad_end(9, "0").cast(pl.Int64).fill_null(0) // 1000
    right = (clock["hour"] < 24) & (clock["minute"] < 60) & (clock["second"] < 61)
    seconds = (clock["hour"] * 60 + clock["minute"]) * 60 + clock["second"] - _offset(parts["zone"])
    values = day.cast(pl.Datetime("us")).dt.epoch("us") + seconds * 10**6 + fraction
    return values.set(~right, None)


def _offset(zones: pl.Series) -> pl.Series:
    """Seconds that zones such as +05:30 are ahead of UTC."""
    parts = zones.str.extract_groups(r"^(?<sign>[+-])(?<hours>\d{2}):?(?<minutes>\d{2})?$").struct.unnest()
    hours, minutes = (parts[name].cast(pl.Int64).fill_null(0) for name in ("hours", "minutes"))
    sign = (parts["sign"] == "-").fill_null(False).cast(pl.Int64) * -2 + 1
    return sign * (hours * 60 + minutes) * 60


def _reader(texts: pl.Series) -> Callable[[str, str], pl.Series]:
    """Times of dates such as 31/01/2024 18:30, by the parts that are the day and the month."""
    parts = texts.str.extract_groups(DAY_OR_MONTH_FIRST).struct.unnest()

    def read(day: str, month: str) -> pl.Series:
        return _iso(parts["year"] + "-" + parts[month] + "-" + parts[day] + parts["rest"])

    return read


def _day_or_month_first(texts: pl.Series) -> Times:
    """Dates such as 31/01/2024, by which of day and month the column shows to come first."""
    parts, read = texts.str.extract_groups(DAY_OR_MONTH_FIRST).struct.unnest(), _reader(texts)
    day_first, month_first = read("first", "second"), read("second", "first")
    there = texts.is_not_null()
    fits = [not (values.is_null() & there).any() for values in (day_first, month_first)]
    if (parts["mark"] == ".").all() and fits[0]:
        return Times(day_first, "us", "dates of day.month.year, as UTC")
    if fits[0] and fits[1] and not day_first.equals(month_first):
        fault = (
            f"dates such as {texts.drop_nulls().first()!s} have the day or the month "
            f"first; set {SETTING} to {DAY_FIRST!r} or {MONTH_FIRST!r}"
        )
        return Times(_nothing(texts), None, "", fault)
    if fits[0]:
        return Times(day_first, "us", "dates of day/month/year, as UTC; a day above 12 shows it")
    if fits[1]:
        return Times(month_first, "us", "dates of month/day/year, as UTC; a day above 12 shows it")
    wrong = texts.filter(day_first.is_null() & there).unique(maintain_order=True)
    fault = f"got {shown(wrong, first=3)}, need one form of dates in all rows; set {SETTING}"
    return Times(day_first, None, "", fault)
