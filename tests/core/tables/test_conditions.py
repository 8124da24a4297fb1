"""Conditions on columns of every type; unlike things are not compared."""

from datetime import date
from decimal import Decimal
from typing import Any

import polars as pl
import pytest

from qarm.core.tables.conditions import Bounds, meets


@pytest.mark.parametrize(
    ("values", "bounds", "kept"),
    [
        ([1, 4, 5, None], Bounds(one_of=[4, 5]), [False, True, True, False]),
        (["1", "4", "5.0"], Bounds(one_of=[4, 5]), [False, True, True]),
        (["DE", "FR", None], Bounds(no=["DE"]), [False, True, True]),
        ([0.5, 1.0, None, float("nan")], Bounds(at_least=1), [False, True, False, False]),
        (["0.5", "10"], Bounds(at_least=1, at_most=20), [False, True]),
        ([Decimal("0.5"), Decimal("2.5")], Bounds(at_least=1, at_most=2), [False, False]),
        ([date(2024, 1, 1), date(2024, 2, 1)], Bounds(at_least="2024-01-15"), [False, True]),
        (["2024-01-01", "2024-02-01"], Bounds(at_most="2024-01-15"), [True, False]),
        ([True, False, None], Bounds(one_of=[True]), [True, False, False]),
        (["true", "False"], Bounds(one_of=[False]), [False, True]),
        (["007", "7"], Bounds(one_of=["007"]), [True, False]),
        ([1, 2], Bounds(), [True, True]),
    ],
)
def test_values_within_bounds(values: list[Any], bounds: Bounds, kept: list[bool]) -> None:
    found = meets(pl.Series(values), bounds)
    assert found is not None
    assert found.to_list() == kept


@pytest.mark.parametrize(
    ("values", "bounds"),
    [
        (["x"], Bounds(one_of=[4])),
        ([4], Bounds(one_of=["4"])),
        ([4], Bounds(one_of=[True])),
        ([True], Bounds(one_of=[1])),
        (["x"], Bounds(at_least="a")),
        ([date(2024, 1, 1)], Bounds(at_least=4)),
        ([date(2024, 1, 1)], Bounds(one_of=["soon"])),
        ([4], Bounds(one_of=[10**30])),
        (["x"], Bounds(one_of=["\ud800"])),
        ([[1]], Bounds(one_of=[1])),
        ([True], Bounds(at_least=1)),
    ],
)
def test_unlike_things_are_not_compared(values: list[Any], bounds: Bounds) -> None:
    assert meets(pl.Series(values), bounds) is None
