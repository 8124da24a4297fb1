"""Roles of a shop's tables: which is the catalogue, the log, the users, and what their ids are."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import permutations

import polars as pl

from qarm.core.tables import TableColumns, as_keys
from qarm.errors import InputError, shown
from qarm.pipeline.column_detection import (
    IDS,
    ORDERS,
    TIMES,
    USERS,
    Choice,
    choose_time,
    choose_user,
    is_named,
    open_table,
    place,
)

__all__ = ["Opened", "Roles", "UserTable", "assign_roles"]

ROWS = 10_000  # of events whose ids are looked up
LEAST_KNOWN = 0.5  # share of the events whose item the catalogue has, where the ids are said to match
MOSTLY_DISTINCT = 0.9  # of the values of a column of ids; `check` names the others


@dataclass(frozen=True)
class Opened:
    """A table: where it is, and its columns."""

    location: str
    table: TableColumns

    @classmethod
    def read(cls, location: str) -> tuple["Opened", list[str]]:
        """The table, and what of it cannot be read."""
        table, notes = open_table(location)
        return cls(location, table), [f"{location}: {note}" for note in notes]

    @property
    def frame(self) -> pl.DataFrame:
        """Rows of the table."""
        return self.table.frame


@dataclass(frozen=True)
class UserTable:
    """The table of users, the column of their ids, and their categorical features."""

    opened: Opened
    id: str
    features: list[str]


@dataclass(frozen=True)
class Roles:
    """The catalogue and the log, how they are joined, and when and whose events are.

    known: share of the events whose item the catalogue has; rival: another table that could be the log or the
    catalogue; when: `time` or `order`, with its column.
    """

    items: Opened
    log: Opened
    id: Choice
    item: Choice
    known: float
    user: Choice
    when: tuple[str, Choice]
    users: UserTable | None
    unused: list[str]
    rival: str | None


@dataclass(frozen=True)
class _Match:
    items: Opened
    log: Opened
    id: str
    item: str
    share: float

    @property
    def strength(self) -> tuple[bool, int, float]:
        """Order of matches: no users' columns, well named, most events known."""
        names = (self.id, self.item)
        named = sum(is_named(name, IDS) for name in names) + (place(names[0], [names[1].lower()]) == 0)
        return not any(is_named(name, USERS) for name in names), named, round(self.share, 2)


def assign_roles(tables: Sequence[Opened]) -> Roles:
    """The catalogue and the log among tables, by ids of the one that repeat in the other.

    Raises:
        InputError: no two tables share ids, or a log lacks users or times.
    """
    if len(tables) < 2:
        raise InputError(
            f"got {len(tables)} table, need two: a catalogue with a row for each item, and a log of events"
        )
    matches = [match for items, log in permutations(tables, 2) for match in _matches(items, log)]
    if not matches:
        raise InputError(_no_match(tables))
    matches.sort(key=lambda match: (match.strength, match.log.frame.height), reverse=True)
    problems = list[str]()
    for match in matches:
        try:
            return _roles(match, matches, tables)
        except InputError as error:
            problems += [problem for problem in error.problems if problem not in problems]
    raise InputError(problems)


def _matches(items: Opened, log: Opened) -> Iterator[_Match]:
    distinct = dict(_distinct_keys(items.frame))
    for other in log.frame.columns:
        keys = _keys(log.frame[other].head(ROWS))
        if keys is None or keys.n_unique() < 2:
            continue
        for name, known in distinct.items():
            share = float(keys.is_in(known.implode()).sum()) / len(keys)
            if share >= LEAST_KNOWN:
                yield _Match(items, log, name, other, share)


def _distinct_keys(frame: pl.DataFrame) -> Iterator[tuple[str, pl.Series]]:
    for name in frame.columns:
        keys = _keys(frame[name])
        if keys is not None and keys.n_unique() >= max(2, MOSTLY_DISTINCT * len(keys)):
            yield name, keys


def _keys(series: pl.Series) -> pl.Series | None:
    keys = as_keys(series)
    return keys if keys is not None and keys.dtype == pl.String and len(keys) else None


def _roles(match: _Match, matches: Sequence[_Match], tables: Sequence[Opened]) -> Roles:
    frame, log = match.log.frame, match.log
    user = choose_user(frame, match.item)
    when = choose_time(frame, [n for n in frame.columns if n not in (match.item, user and user.column)])
    problems = []
    if user is None:
        problems.append(
            f"{log.location}: none of its columns ({shown(frame.columns, first=12)}) is named as users are "
            f"({shown(USERS)}); rename the one that holds them"
        )
    if when is None:
        problems.append(
            f"{log.location}: no column of times, and none named as an order is ({shown(ORDERS)}), among "
            f"{shown(frame.columns, first=12)}; add one, or rename it to one of {shown(TIMES)}"
        )
    if user is None or when is None:
        raise InputError(problems)
    others = [other for other in tables if other not in (match.items, log)]
    users = next((found for other in others if (found := _user_table(other, frame, user.column))), None)
    unused = [other.location for other in others if users is None or other != users.opened]
    keys = _keys(frame[match.item])
    assert keys is not None  # noqa: S101 - its first rows matched
    known = float(keys.is_in(dict(_distinct_keys(match.items.frame))[match.id].implode()).sum()) / len(keys)
    id_choice, item = _joined_by(match, matches, known)
    rival = next((_rival(match, other) for other in matches if _rival(match, other)), None)
    return Roles(match.items, log, id_choice, item, known, user, when, users, unused, rival)


def _joined_by(match: _Match, matches: Sequence[_Match], known: float) -> tuple[Choice, Choice]:
    """The ids of both tables; unsure where other columns match as well."""
    same = [other for other in matches if (other.items, other.log) == (match.items, match.log)]
    rivals = [other for other in same if other is not match and other.strength >= match.strength]
    why = f"{known:.1%} of the events are on an item of the catalogue"
    if rivals:
        why += f"; {rivals[0].item} matches {rivals[0].id} as well"
    sure = not rivals and match.strength[1] > 0
    return Choice(match.id, "a value for each item", sure), Choice(match.item, why, sure)


def _rival(match: _Match, other: _Match) -> str | None:
    """Another table that could have the role of one of the match's, None where it could not."""
    if not other.strength[0] or {other.items.location, other.log.location} <= {
        match.items.location,
        match.log.location,
    }:
        return None
    if other.items == match.items and choose_user(other.log.frame, other.item) is not None:
        return f"{other.log.location} could be the log too"
    return f"{other.items.location} could be the catalogue too" if other.log == match.log else None


def _user_table(opened: Opened, log: pl.DataFrame, user: str) -> UserTable | None:
    """The table as one of users, None where its ids are not those of the log."""
    asked = _keys(log[user].head(ROWS))
    if asked is None:
        return None
    for name, known in _distinct_keys(opened.frame):
        if float(asked.is_in(known.implode()).sum()) / len(asked) >= LEAST_KNOWN:
            features = [other for other in opened.frame.columns if _is_feature(opened.frame[other])]
            return UserTable(opened, name, features) if features else None
    return None


def _is_feature(series: pl.Series) -> bool:
    keys = _keys(series)
    return keys is not None and 2 <= keys.n_unique() <= max(2, len(keys) // 4)


def _no_match(tables: Sequence[Opened]) -> str:
    lines = []
    for opened in tables:
        keys = [series for series in opened.frame if _keys(series.head(ROWS)) is not None]
        lines.append(
            f"{opened.location} has {shown([f'{series.name}={_first(series)}' for series in keys], first=8)}"
        )
    return (
        "no column of one table holds the ids of another, so that none can be the log of the items: "
        f"{'; '.join(lines)}; ids are compared as text, and floats are none: write them alike in both tables"
    )


def _first(series: pl.Series) -> str:
    return repr(series.drop_nulls().first())
