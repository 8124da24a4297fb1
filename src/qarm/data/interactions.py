"""Interaction log: events from any table, checked, sorted by user and time."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime

import polars as pl

from qarm.config.sources import settings_with
from qarm.config.tables import InteractionsTable, LabelRule, Wanted
from qarm.core.tables import Table, read_table, rows_hash
from qarm.core.tables.times import PER_SECOND, Unit, guessed_unit, instant
from qarm.data.event_rows import EventRows, column_of
from qarm.data.users import Users
from qarm.errors import InputError, Problems, shown

__all__ = ["Log", "read_log"]

WEIGHT = "weight"  # column of the log, where weights are read
AUXILIARY = "label_"  # prefix of the column of an auxiliary label


@dataclass(frozen=True, repr=False)
class Log:
    """Events of users on items, with time and labels.

    frame: user_id str, item_id str, time i64, label i8 (1 positive, 0 negative) and row i64 (position
    in the file, from 0), sorted by user_id, time, row; a column `label_<name>` i8 for each auxiliary label,
    null where unknown; `weight` f64 where weights are read. unknown: events dropped because the catalogue
    lacks their item. unit: of `time` where the file had dates (always "us"), else None. about: features of
    its users, None where there are none. times: how they were read, such as `seconds since 1970, by their
    size`.
    """

    frame: pl.DataFrame
    unknown: int = 0
    unit: Unit | None = None
    about: Users | None = None
    times: str = ""

    def __len__(self) -> int:
        return self.frame.height

    def __repr__(self) -> str:
        period = "" if self.period is None else f", {' to '.join(self.period)}"
        return f"Log({len(self):,} events, {len(self.users):,} users, {len(self.items):,} items{period})"

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

    @property
    def period(self) -> tuple[str, str] | None:
        """First and last event as ISO dates and times, UTC; None where times are positions, no dates."""
        unit = self._time_unit()
        if unit is None:
            return None
        first, last = self.frame.select(pl.col("time").min(), last=pl.col("time").max()).row(0)
        return instant(first, unit), instant(last, unit)

    def rows_hash(self) -> str:
        """SHA-256 of all rows."""
        return rows_hash(self.frame)

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
        unit = self._time_unit()
        if unit is None:
            raise InputError(f"times run {self._range()}, no dates; got {text!r}, give a whole number")
        return unit

    def _time_unit(self) -> Unit | None:
        latest = self.frame["time"].max()
        return self.unit or (guessed_unit(latest) if isinstance(latest, int) else None)


def _strings(ids: Iterable[str]) -> pl.Series:
    return pl.Series(list(ids), dtype=pl.String).implode()


# ---- reading ----------------------------------------------------------------------------------


def read_log(
    table: Table,
    *,
    user: str = "user_id",
    item: str = "item_id",
    time: str = "timestamp",
    time_format: str | None = None,
    order: str | None = None,
    label: str | LabelRule | Mapping[str, object] | None = None,
    labels: Mapping[str, str | LabelRule | Mapping[str, object]] | None = None,
    where: Mapping[str, Wanted | Mapping[str, object]] | None = None,
    known_items: Iterable[str] | None = None,
    max_unknown: float = 0.05,
    weight: str | None = None,
) -> Log:
    """Interaction log from a file (Parquet, CSV or JSON Lines) or a frame.

    Args:
        table: the path of a file; or a frame of polars or pandas, an Arrow table, a `datasets.Dataset`.
        user, item, time: its columns. Whole numbers stay as they are; dates and date-times, also as ISO text,
            become microseconds since 1970, UTC (one without a zone is taken as UTC).
        time_format: form of a text column of times, such as `%m/%d/%Y`, where it is not ISO.
        order: a column that replaces `time`; whole numbers, larger is later.
        label: column of 0 and 1 (or booleans), or a rule, `{"column": "stars", "at_least": 4}`; without one
            every event is positive.
        labels: columns or rules of auxiliary labels by name; null where a label is unknown.
        where: keep only rows whose columns have a value, one of several (`[4, 5]`), or are within bounds:
            `{"at_least": 1}`, `{"at_most": 9}`, `{"not": ["DE"]}`.
        known_items: item ids of the catalogue; events on other items are dropped and counted in
            `Log.unknown`.
        max_unknown: largest accepted share of dropped events.
        weight: column of positive numbers, what an event counts in the ranker's loss.

    Raises:
        InputError: all problems, with the numbers of the rows (from 0).
    """
    problems, when = Problems(), order or time
    chosen = {"label": label, "labels": dict(labels or {}), "where": dict(where or {})}
    rules = settings_with(InteractionsTable(), chosen, problems=problems)
    marks = {AUXILIARY + name: rule for name, rule in rules.labels.items()}
    labelled = [column_of(rule) for rule in (rules.label, *marks.values()) if rule is not None]
    wanted = [user, item, when, *rules.where, *labelled, *([weight] if weight else [])]
    rows = EventRows.of(read_table(table, wanted, text=(user, item)), rules.where, problems)
    columns = {"user_id": rows.ids(user), "item_id": rows.ids(item)}
    times = rows.times(when, time_format)
    columns["time"] = None if times is None else times.values
    columns["label"] = rows.labels(rules.label)
    columns |= {name: rows.labels(rule, unknown=True) for name, rule in marks.items()}
    if weight is not None:
        columns[WEIGHT] = rows.weights(weight)
    known = _known(columns["item_id"], known_items, max_unknown, table=rows.table, problems=problems)
    problems.raise_any()
    assert times is not None  # noqa: S101 - else there was a problem
    events = pl.DataFrame({**columns, "row": rows.numbers.cast(pl.Int64)})
    kept = events if known is None else events.filter(known)
    return Log(
        kept.sort("user_id", "time", "row"),
        unknown=events.height - kept.height,
        unit=times.unit,
        times=times.said,
    )


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
