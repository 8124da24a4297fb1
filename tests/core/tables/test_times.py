"""Times of every form, how they were read, and forms that are refused with the setting that decides."""

from datetime import UTC, date, datetime
from typing import Any

import polars as pl
import pytest

from qarm.core.tables.times import as_times, guessed_unit, instant

NEW_YEAR = 1_704_067_200  # 2024-01-01, UTC, in seconds
MICRO = NEW_YEAR * 10**6


@pytest.mark.parametrize(
    "text",
    [
        "2024-01-01",
        "2024/1/1",
        "2024-01-01T00:00",
        "2024-01-01 00:00:00",
        "2024-01-01T00:00:00Z",
        "2024-01-01 00:00:00 UTC",
        "2024-01-01T05:30:00+05:30",
        "2024-01-01T05:30:00.000000+0530",
        "2023-12-31T19:00:00-05",
        " 2024-01-01T00:00:00.000000999Z ",
    ],
)
def test_iso_texts(text: str) -> None:
    times = as_times(pl.Series([text]))
    assert (times.values.to_list(), times.unit, times.fault) == ([MICRO], "us", None)
    assert times.said.startswith("ISO dates")


def test_fractions_of_seconds_stay() -> None:
    assert as_times(pl.Series(["2024-01-01T00:00:01.25"])).values.to_list() == [MICRO + 1_250_000]


@pytest.mark.parametrize(
    ("values", "found", "unit", "said"),
    [
        ([NEW_YEAR], [NEW_YEAR], None, "seconds since 1970, by their size"),
        ([NEW_YEAR * 1000], [NEW_YEAR * 1000], None, "milliseconds since 1970, by their size"),
        ([str(MICRO)], [MICRO], None, "microseconds since 1970, by their size"),
        ([float(NEW_YEAR)], [NEW_YEAR], None, "seconds since 1970, by their size"),
        ([MICRO * 1000 + 1], [MICRO * 1000 + 1], None, "nanoseconds since 1970, by their size"),
        ([NEW_YEAR + 0.5], [MICRO + 500_000], "us", "seconds since 1970 with fractions, by their size"),
        (["1704067200000.5"], [MICRO + 500], "us", "milliseconds since 1970 with fractions, by their size"),
        ([3, 1], [3, 1], None, "positions, no dates"),
        ([date(2024, 1, 1)], [MICRO], "us", "dates"),
        ([datetime(2024, 1, 1)], [MICRO], "us", "dates and times, as UTC"),
        ([datetime(2024, 1, 1, tzinfo=UTC)], [MICRO], "us", "dates and times of zone UTC"),
    ],
)
def test_how_times_were_read_is_said(
    values: list[Any], found: list[int], unit: str | None, said: str
) -> None:
    times = as_times(pl.Series(values))
    assert (times.values.to_list(), times.unit, times.said, times.fault) == (found, unit, said, None)


@pytest.mark.parametrize(
    ("texts", "first"),
    [
        (["13/01/2024", "01/02/2024"], "2024-01-13T00:00:00"),
        (["01/13/2024", "01/02/2024"], "2024-01-13T00:00:00"),
        (["13.01.2024 10:30", "01.02.2024 00:00"], "2024-01-13T10:30:00"),
        (["02.01.2024"], "2024-01-02T00:00:00"),
        (["02/02/2024"], "2024-02-02T00:00:00"),
    ],
)
def test_day_or_month_first_where_the_column_shows_it(texts: list[str], first: str) -> None:
    times = as_times(pl.Series(texts))
    assert times.fault is None
    assert instant(times.values[0], "us") == first


def test_ambiguous_dates_are_refused_with_the_setting_that_decides() -> None:
    series = pl.Series(["01/02/2024", "03/04/2024"])
    assert as_times(series).fault == (
        "dates such as 01/02/2024 have the day or the month first; set data.interactions.time_format to "
        "'%d/%m/%Y' or '%m/%d/%Y'"
    )
    for time_format, days in (("%d/%m/%Y", [1, 3]), ("%m/%d/%Y", [2, 4])):
        times = as_times(series, time_format=time_format)
        assert [int(instant(value, "us")[8:10]) for value in times.values] == days


@pytest.mark.parametrize(
    ("values", "time_format", "fault"),
    [
        (["yesterday"], None, "got yesterday, need ISO dates"),
        (["2024-02-30"], None, "got 2024-02-30, need ISO dates"),
        (["2024-01-01", "13/01/2024"], None, "got 13/01/2024, need ISO dates"),
        (["13/13/2024"], None, "got 13/13/2024, need one form of dates in all rows"),
        (["1/2/2024 3:05 PM"], None, "set data.interactions.time_format"),
        (["2024-01-01"], "%d/%m/%Y", "got 2024-01-01, need '%d/%m/%Y'"),
        ([1.5], None, "got fractions up to 1.5, too small for dates"),
        ([True], None, "got Boolean, need integers, dates or datetimes"),
    ],
)
def test_what_is_no_time(values: list[Any], time_format: str | None, fault: str) -> None:
    assert fault in (as_times(pl.Series(values), time_format=time_format).fault or "")


def test_a_time_format_reads_what_iso_does_not() -> None:
    times = as_times(pl.Series(["1/2/2024 3:05 PM"]), time_format="%m/%d/%Y %I:%M %p")
    assert instant(times.values[0], "us") == "2024-01-02T15:05:00"


def test_units_by_size() -> None:
    assert [guessed_unit(value) for value in (99, NEW_YEAR, 10**12, 10**15, 10**18)] == [
        None,
        "s",
        "ms",
        "us",
        "ns",
    ]
