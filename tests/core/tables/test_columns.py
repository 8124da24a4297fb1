"""Columns as what the config says that they are: ids, texts, numbers."""

from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from typing import Any

import polars as pl
import pytest

from qarm.core.tables import as_ids, as_keys, as_numbers, as_texts
from qarm.errors import Problems

NAN = float("nan")


@pytest.mark.parametrize("kind", [pl.String, pl.Categorical, pl.Enum(["7", "8"])])
def test_text_ids_stay(kind: pl.DataType) -> None:
    ids = as_ids(pl.Series("id", ["7", "8"], dtype=kind), table="t", problems=Problems())
    assert ids is not None
    assert ids.to_list() == ["7", "8"]
    assert ids.dtype == pl.String


def test_whole_numbers_become_text_and_others_are_refused() -> None:
    problems = Problems()
    ids = as_ids(pl.Series("id", [7, 8]), table="t", problems=problems)
    assert ids is not None
    assert ids.to_list() == ["7", "8"]
    assert as_ids(pl.Series("id", [7.0]), table="t", problems=problems) is None
    assert problems.messages == ["t.id: ids are Float64, need text or integers; cast them"]


def test_null_and_empty_ids_are_named_by_their_row_in_the_file() -> None:
    problems = Problems()
    series = pl.Series("id", ["a", None, ""])
    as_ids(series, table="t", problems=problems)
    as_ids(series, table="t", problems=problems, rows=pl.Series([10, 20, 30]))
    assert [p.split(" in ")[1] for p in problems.messages] == [
        "rows 1, 2; remove them",
        "rows 20, 30; remove them",
    ]


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (date(2024, 1, 2), "2024-01-02"),
        (True, "true"),
        (Decimal(7), "7"),
        (b"007", "007"),
        (2**63, str(2**63)),
    ],
)
def test_further_types_of_ids(value: Any, text: str) -> None:
    keys = as_keys(pl.Series([value, None]))
    assert keys is not None
    assert keys.to_list() == [text, None]


@pytest.mark.parametrize("value", [7.0, Decimal("7.5"), b"\xff", [1], {"a": 1}, timedelta(days=1)])
def test_what_is_no_id(value: Any) -> None:
    assert as_keys(pl.Series([value])) is None


@pytest.mark.parametrize(
    ("series", "texts"),
    [
        (pl.Series([29.31, NAN, None], dtype=pl.Float32), ["29.31", None, None]),
        (pl.Series([29.312237696333487, 3.0, 0.1]), ["29.312237696333487", "3.0", "0.1"]),
        (pl.Series([Decimal("1.10"), None]), ["1.10", None]),
        (pl.Series([1, None]), ["1", None]),
        (pl.Series([True, False]), ["true", "false"]),
        (pl.Series([date(2024, 1, 2)]), ["2024-01-02"]),
        (pl.Series([time(3, 4)]), ["03:04:00"]),
        (pl.Series([datetime(2024, 1, 2, 3)]), ["2024-01-02 03:00:00"]),
        (pl.Series([datetime(2024, 1, 2, 3, 0, 0, 5, tzinfo=UTC)]), ["2024-01-02 03:00:00.000005Z"]),
        (pl.Series([timedelta(days=1, seconds=3)]), ["P1DT3S"]),
        (pl.Series(["NaN", " x "], dtype=pl.Categorical), ["NaN", " x "]),
        (pl.Series([["a", None, " ", "b"], [], None]), ["a, b", None, None]),
        (pl.Series([[1.5, NAN], [2.0]]), ["1.5", "2.0"]),
        (pl.Series([[1, 2]], dtype=pl.Array(pl.Int8, 2)), ["1, 2"]),
        (pl.Series([{"a": "x", "b": [1, 2]}, {"a": None, "b": None}, None]), ["x, 1, 2", None, None]),
        (pl.Series([[{"a": "x"}, {"a": "y"}], []]), ["x, y", None]),
        (pl.Series([b"text", None]), ["text", None]),
        (pl.Series([None, None]), [None, None]),
    ],
)
def test_texts_as_an_encoder_reads_them(series: pl.Series, texts: list[str | None]) -> None:
    found = as_texts(series.alias("x"))
    assert found is not None
    assert found.to_list() == texts


@pytest.mark.parametrize("series", [pl.Series([b"\xff"]), pl.Series([object()], dtype=pl.Object)])
def test_what_is_no_text(series: pl.Series) -> None:
    assert as_texts(series) is None


def test_numbers_may_be_texts() -> None:
    numbers = as_numbers(pl.Series(["1", " 2.5 ", "", "True", "FALSE", None, "-1e3"]))
    assert numbers is not None
    assert numbers.to_list() == [1.0, 2.5, None, 1.0, 0.0, None, -1000.0]
    assert as_numbers(pl.Series(["1", "x"])) is None
    assert as_numbers(pl.Series([date(2024, 1, 1)])) is None
    decimals = as_numbers(pl.Series([Decimal("1.5"), None]))
    assert decimals is not None
    assert decimals.to_list() == [1.5, None]
