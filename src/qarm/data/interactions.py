"""Interaction log: events from any table, checked, sorted by user and time."""

from bisect import bisect_right
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Literal

import polars as pl

from qarm.core.tables import Table, as_ids, column, read_table, table_name
from qarm.data.users import Users
from qarm.errors import InputError, Problems, shown

__all__ = ["Log", "read_log"]

Value = bool | int | float | str
Unit = Literal["s", "ms", "us", "ns"]
PER_SECOND: dict[Unit, int] = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}
AUXILIARY = "label_"  # prefix of the column of an auxiliary label
EARLIEST_GUESS = 10**8  # 1973 in seconds; smaller whole numbers are positions, not dates
UNIT_ENDS = (10**11, 10**14, 10**17)  # the year 5138 in s, ms, us, and 1973 in the next finer unit


@dataclass(frozen=True)
class Log:
    """Events of users on items, with time and labels.

    frame: user_id str, item_id str, time i64, label i8 (1 positive, 0 negative) and row i64 (position
    in the file, from 0), sorted by user_id, time, row; a column `label_<name>` i8 for each auxiliary label,
    null where unknown. unknown: events dropped because the catalogue lacks their item. unit: of `time` where
    the file had dates (always "us"), else None. about: features of its users, None where there are none.
    """

    frame: pl.DataFrame
    unknown: int = 0
    unit: Unit | None = None
    about: Users | None = None

    def __len__(self) -> int:
        return self.frame.height

    @property
    def items(self) -> list[str]:
        """Distinct item ids, sorted."""
        return self.frame["item_id"].unique().sort().to_list()

    @property
    def users(self) -> list[str]:
        """Distinct user ids, sorted."""
        return self.frame["user_id"].unique().sort().to_list()

    @property
    def explicit(self) -> bool:
        """True where the log holds negatives."""
        return bool((self.frame["label"] == 0).any())

    @property
    def auxiliary(self) -> list[str]:
        """Names of the auxiliary labels."""
        return [name.removeprefix(AUXILIARY) for name in self.frame.columns if name.startswith(AUXILIARY)]

    def with_users(self, users: Users) -> "Log":
        """The same events, with features of their users.

        Raises:
            InputError: the table has none of the users.
        """
        ids = self.users
        if not set(ids) & set(users.frame["user_id"]):
            raise InputError(f"the table of users has none of the log's: {shown(ids)}; compare their ids")
        return replace(self, about=users)

    def positives(self) -> "Log":
        """The events with label 1."""
        return self._where(pl.col("label") == 1)

    def only_items(self, item_ids: Iterable[str]) -> "Log":
        """The events on the given items."""
        return self._where(pl.col("item_id").is_in(_strings(item_ids)))

    def without_items(self, item_ids: Iterable[str]) -> "Log":
        """The events on all but the given items."""
        return self._where(~pl.col("item_id").is_in(_strings(item_ids)))

    def only_users(self, user_ids: Iterable[str]) -> "Log":
        """The events of the given users."""
        return self._where(pl.col("user_id").is_in(_strings(user_ids)))

    def split_at(self, time: int | str) -> tuple["Log", "Log"]:
        """Events before `time`, and events at or after it.

        Args:
            time: in the unit of the log; or an ISO date or date and time, UTC unless it names a zone.
                Where the file had whole numbers, their unit is guessed from the largest: below 1e11
                seconds, below 1e14 milliseconds, below 1e17 microseconds, else nanoseconds.

        Raises:
            InputError: the text is no date, the log's times are no dates, or a side is empty.
        """
        at = self._instant(time) if isinstance(time, str) else time
        past, future = self._where(pl.col("time") < at), self._where(pl.col("time") >= at)
        if not (len(past) and len(future)):
            side = "at or after" if len(past) else "before"
            raise InputError(f"no event {side} {time}; the log's times run {self._range()}, choose between")
        return past, future

    def _where(self, condition: pl.Expr) -> "Log":
        return replace(self, frame=self.frame.filter(condition))

    def _range(self) -> str:
        first, last = self.frame.select(pl.col("time").min(), last=pl.col("time").max()).row(0)
        return f"from {first} to {last}"

    def _instant(self, text: str) -> int:
        try:
            moment = datetime.fromisoformat(text)
        except ValueError:
            raise InputError(f"got time {text!r}, need an ISO date such as 2024-06-01") from None
        if moment.tzinfo is None:
            moment = moment.replace(tzinfo=UTC)
        since = moment - datetime(1970, 1, 1, tzinfo=UTC)
        microseconds = (since.days * 86_400 + since.seconds) * 10**6 + since.microseconds
        return microseconds * PER_SECOND[self.unit or self._guessed_unit(text)] // 10**6

    def _guessed_unit(self, text: str) -> Unit:
        latest = self.frame["time"].max()
        if not isinstance(latest, int) or latest < EARLIEST_GUESS:
            raise InputError(f"times run {self._range()}, no dates; got {text!r}, give a whole number")
        return list(PER_SECOND)[bisect_right(UNIT_ENDS, latest)]


def _strings(ids: Iterable[str]) -> pl.Series:
    return pl.Series(list(ids), dtype=pl.String).implode()


# ---- reading ----------------------------------------------------------------------------------


def read_log(
    table: Table,
    *,
    user: str = "user_id",
    item: str = "item_id",
    time: str = "timestamp",
    order: str | None = None,
    label: str | None = None,
    labels: Mapping[str, str] | None = None,
    where: Mapping[str, Value] | None = None,
    known_items: Iterable[str] | None = None,
    max_unknown: float = 0.05,
) -> Log:
    """Interaction log from a file (Parquet, CSV or JSON Lines) or a frame.

    Args:
        table: the path of a file; or a frame of polars or pandas, an Arrow table, a `datasets.Dataset`.
        user, item, time: its columns. Whole numbers stay as they are; dates and date-times become
            microseconds since 1970, UTC (a date-time without a zone is taken as UTC).
        order: a column that replaces `time`; whole numbers, larger is later.
        label: column of 0 and 1 (or booleans); without one every event is positive.
        labels: columns of auxiliary labels by name; null where a label is unknown.
        where: keep only rows whose columns equal these values.
        known_items: item ids of the catalogue; events on other items are dropped and counted in
            `Log.unknown`.
        max_unknown: largest accepted share of dropped events.

    Raises:
        InputError: all problems, with the numbers of the rows (from 0).
    """
    name, problems = table_name(table), Problems()
    frame = read_table(table, text=(user, item))
    kept = _matching(frame, where or {}, table=name, problems=problems)
    rows = _Rows(name, frame.filter(kept), kept.arg_true(), problems)
    columns = {"user_id": rows.ids(user), "item_id": rows.ids(item), "time": rows.times(order or time)}
    columns["label"] = rows.labels(label)
    columns |= {AUXILIARY + key: rows.labels(col, unknown=True) for key, col in (labels or {}).items()}
    known = _known(columns["item_id"], known_items, max_unknown, table=name, problems=problems)
    problems.raise_any()
    events = pl.DataFrame({**columns, "row": rows.numbers.cast(pl.Int64)})
    dated = rows.frame[order or time].dtype.is_temporal()
    kept_events = events if known is None else events.filter(known)
    return Log(
        kept_events.sort("user_id", "time", "row"),
        unknown=events.height - kept_events.height,
        unit="us" if dated else None,
    )


@dataclass(frozen=True)
class _Rows:
    """Rows to validate, their numbers in the file, and the problems to add to."""

    table: str
    frame: pl.DataFrame
    numbers: pl.Series
    problems: Problems

    def ids(self, name: str) -> pl.Series | None:
        """Column of ids as text; None with a problem noted."""
        series = self._column(name)
        if series is None:
            return None
        return as_ids(series, table=self.table, problems=self.problems, rows=self.numbers)

    def times(self, name: str) -> pl.Series | None:
        """Column of times as int64; None with a problem noted."""
        series = self._column(name)
        if series is None:
            return None
        kind = series.dtype
        if kind.is_integer():
            times = series.cast(pl.Int64, strict=False)
        elif kind == pl.Date or kind == pl.Datetime:
            times = series.cast(pl.Datetime("us") if kind == pl.Date else kind).dt.epoch("us")
        else:
            self._refuse(name, f"got {kind}, need integers, dates or datetimes; cast the column")
            return None
        return self._unless(times.is_null(), times, name, "null or beyond 64 bits", "remove those rows")

    def labels(self, name: str | None, *, unknown: bool = False) -> pl.Series | None:
        """Labels of a column; `unknown`: nulls are accepted."""
        if name is None:
            return pl.repeat(1, self.frame.height, dtype=pl.Int8, eager=True)
        series = self._column(name)
        if series is None:
            return None
        if not (series.dtype.is_numeric() or series.dtype == pl.Boolean):
            self._refuse(name, f"got {series.dtype}, need 0 and 1 or booleans; cast the column")
            return None
        numbers = series.cast(pl.Float64).fill_nan(None) if unknown else series.cast(pl.Float64)
        wrong = ~numbers.is_in([0.0, 1.0]).fill_null(unknown)
        values = shown(series.filter(wrong).unique(maintain_order=True))
        remedy = "labels are 0 and 1; make such a column, for example rating >= 4"
        return self._unless(
            wrong, numbers.fill_nan(None).cast(pl.Int8, strict=False), name, f"got {values}", remedy
        )

    def _column(self, name: str) -> pl.Series | None:
        return column(self.frame, name, table=self.table, problems=self.problems)

    def _refuse(self, name: str, fault: str) -> None:
        self.problems.add(f"{self.table}.{name}: {fault}")

    def _unless(
        self, wrong: pl.Series, values: pl.Series, name: str, fault: str, remedy: str
    ) -> pl.Series | None:
        if not wrong.any():
            return values
        self._refuse(name, f"{fault} in rows {shown(self.numbers.filter(wrong))}; {remedy}")
        return None


def _matching(
    frame: pl.DataFrame, where: Mapping[str, Value], *, table: str, problems: Problems
) -> pl.Series:
    """True for the rows that equal every value of `where`; bool [rows]."""
    kept, before = pl.repeat(True, frame.height, eager=True), len(problems.messages)
    for name, value in where.items():
        if (series := column(frame, name, table=table, problems=problems)) is None:
            continue
        try:
            kept &= frame.select((pl.col(name) == pl.lit(value)).fill_null(False)).to_series()
        except (pl.exceptions.PolarsError, UnicodeError, OverflowError):
            problems.add(
                f"{table}.{name}: is {series.dtype}, got where {name} = {value!r}; compare like with like"
            )
    if len(problems.messages) == before and not kept.any():
        wanted = ", ".join(f"{name} = {value!r}" for name, value in where.items())
        problems.add(f"{table}: no row has {wanted}; loosen where")
    return kept


def _known(
    items: pl.Series | None,
    known_items: Iterable[str] | None,
    max_unknown: float,
    *,
    table: str,
    problems: Problems,
) -> pl.Series | None:
    """True for the events on items of the catalogue; None where no catalogue is given."""
    if items is None or known_items is None or not len(items):
        return None
    known = items.is_in(_strings(known_items))
    unknown = items.filter(~known)
    share = len(unknown) / len(items)
    if share > max_unknown or share == 1.0:
        problems.add(
            f"{table}: {len(unknown):,} of {len(items):,} events ({share:.1%}) are on items that the "
            f"catalogue lacks, need at most {max_unknown:.1%}: {shown(unknown.unique().sort())}; "
            "add those items, or raise max_unknown"
        )
    return known
