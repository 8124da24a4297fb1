"""Rows of an interactions' table: those that meet the conditions, and their ids, times and labels."""

from collections.abc import Mapping
from dataclasses import dataclass

import polars as pl

from qarm.config.tables import Condition, Label, Scalar, Wanted
from qarm.core.tables import TableColumns, as_ids, as_numbers
from qarm.core.tables.conditions import Bounds, meets
from qarm.core.tables.times import Times, as_times
from qarm.errors import Problems, shown

__all__ = ["EventRows", "column_of"]


def column_of(label: Label) -> str:
    """Column that a label is read from."""
    return label if isinstance(label, str) else label.column


@dataclass(frozen=True)
class EventRows:
    """Rows to validate, their numbers in the file, and the problems to add to."""

    columns: TableColumns
    numbers: pl.Series
    problems: Problems

    @classmethod
    def of(cls, columns: TableColumns, where: Mapping[str, Wanted], problems: Problems) -> "EventRows":
        """The rows that meet every condition."""
        kept = _matching(columns, where, problems=problems)
        chosen = TableColumns(columns.name, columns.frame.filter(kept), columns.names)
        return cls(chosen, kept.arg_true(), problems)

    @property
    def table(self) -> str:
        """Name of the table in messages."""
        return self.columns.name

    def ids(self, name: str) -> pl.Series | None:
        """Column of ids as text; None with a problem noted."""
        series = self._column(name)
        if series is None:
            return None
        return as_ids(series, table=self.table, problems=self.problems, rows=self.numbers)

    def times(self, name: str, time_format: str | None) -> Times | None:
        """Column of times; None with a problem noted."""
        series = self._column(name)
        if series is None:
            return None
        times = as_times(series, time_format=time_format)
        wrong = times.values.is_null()
        if times.fault is not None:
            unread = self.numbers.filter(wrong & series.is_not_null())
            rows = "" if len(unread) == len(series) else f" (rows {shown(unread)})"
            self._refuse(name, f"{times.fault}{rows}")
            return None
        right = self._unless(wrong, times.values, name, "null or beyond 64 bits", "remove those rows")
        return None if right is None else times

    def labels(self, label: Label | None, *, unknown: bool = False) -> pl.Series | None:
        """Labels of a column or a rule; `unknown`: nulls are accepted."""
        if label is None:
            return pl.repeat(1, self.numbers.len(), dtype=pl.Int8, eager=True)
        name = column_of(label)
        series = self._column(name)
        if series is None:
            return None
        numbers = as_numbers(series) if isinstance(label, str) else self._met(series, label)
        if numbers is None:
            fault = f"got {series.dtype}, need 0 and 1 or booleans; cast the column"
            rule = f"got {series.dtype}, and the label's rule is of another type; compare like with like"
            self._refuse(name, fault if isinstance(label, str) else rule)
            return None
        wrong = ~numbers.is_in([0.0, 1.0]).fill_null(unknown)
        values = shown(series.filter(wrong).unique(maintain_order=True))
        remedy = "labels are 0 and 1; set a rule, {column: stars, at_least: 4}, or make such a column"
        return self._unless(wrong, numbers.cast(pl.Int8, strict=False), name, f"got {values}", remedy)

    def weights(self, name: str) -> pl.Series | None:
        """Weights of a column, f64; None with a problem noted."""
        series = self._column(name)
        if series is None:
            return None
        numbers = as_numbers(series)
        if numbers is None:
            self._refuse(name, f"got {series.dtype}, need positive numbers as weights; cast the column")
            return None
        wrong = ~((numbers > 0) & numbers.is_finite()).fill_null(False)
        fault = f"got {shown(series.filter(wrong).unique(maintain_order=True))}"
        return self._unless(
            wrong, numbers, name, fault, "weights are positive numbers; drop those rows by where"
        )

    def _met(self, series: pl.Series, rule: Condition) -> pl.Series | None:
        """1 where a value is within a rule's bounds, else 0; null where there is none."""
        met = meets(series, _bounds(rule))
        missing = series.is_null() | series.is_nan() if series.dtype.is_float() else series.is_null()
        return None if met is None else met.cast(pl.Float64).set(missing, None)

    def _column(self, name: str) -> pl.Series | None:
        return self.columns.column(name, problems=self.problems)

    def _refuse(self, name: str, fault: str) -> None:
        self.problems.add(f"{self.table}.{name}: {fault}")

    def _unless(
        self, wrong: pl.Series, values: pl.Series, name: str, fault: str, remedy: str
    ) -> pl.Series | None:
        if not wrong.any():
            return values
        self._refuse(name, f"{fault} in rows {shown(self.numbers.filter(wrong))}; {remedy}")
        return None


def _bounds(wanted: Wanted) -> Bounds:
    if isinstance(wanted, Condition):
        return Bounds(no=wanted.no, at_least=wanted.at_least, at_most=wanted.at_most)
    return Bounds(one_of=wanted if isinstance(wanted, list) else [wanted])


def _said(name: str, wanted: Wanted) -> str:
    content = wanted.model_dump() if isinstance(wanted, Condition) else wanted
    sign = "=" if isinstance(wanted, Scalar) else "in"
    return f"{name} {sign} {content!r}"


def _matching(columns: TableColumns, where: Mapping[str, Wanted], *, problems: Problems) -> pl.Series:
    """True for the rows that meet every condition; bool [rows]."""
    kept, before = pl.repeat(True, columns.frame.height, eager=True), len(problems.messages)
    for name, wanted in where.items():
        if (series := columns.column(name, problems=problems)) is None:
            continue
        met = meets(series, _bounds(wanted))
        if met is None:
            problems.add(
                f"{columns.name}.{name}: is {series.dtype}, got where {_said(name, wanted)}; "
                "compare like with like"
            )
        else:
            kept &= met
    if len(problems.messages) == before and not kept.any():
        wanted_all = ", ".join(_said(name, wanted) for name, wanted in where.items())
        problems.add(f"{columns.name}: no row has {wanted_all}; loosen where")
    return kept
