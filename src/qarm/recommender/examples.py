"""Examples: rows of a user, a candidate, a label and the history before, for training and evaluation."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from qarm.config import Negatives, RankerConfig
from qarm.data.interactions import AUXILIARY, WEIGHT, Log
from qarm.data.users import Users
from qarm.errors import InputError, Problems, shown
from qarm.recommender.negative_sampling import Untouched, draw, draw_popular

__all__ = ["Examples", "TrainingRows", "UserEvents", "evaluation_rows", "read_examples", "row_numbers"]

Ints = npt.NDArray[np.int64]
Rows = npt.NDArray[np.int32]
LONG: int = RankerConfig().long_history  # events that are searched by code
TRAIN_NEGATIVES: int = Negatives().train
EVAL_NEGATIVES: int = Negatives().eval

UNKNOWN = -1  # an auxiliary label that nobody gave
PLAIN = ("user_id", "item_id", "time", "label", "row")  # columns that every log has
OF_ROWS = ("users", "items", "labels", "times", "events", "cold", "start", "end", "begin")
OF_SOME_ROWS = ("auxiliary", "weights")  # where there are any


@dataclass(frozen=True)
class UserEvents:
    """Positive events by user and time: items and times [m], user u's in offsets[u]:offsets[u + 1]."""

    items: Rows
    times: Ints
    offsets: Ints

    @classmethod
    def of(cls, log: Log, user_ids: list[str], item_ids: list[str]) -> "UserEvents":
        """Events of a log, with users and items as rows of their vocabularies."""
        frame = log.positives().frame
        users = row_numbers(frame["user_id"], user_ids)
        times, rows = frame["time"].to_numpy(), frame["row"].to_numpy()
        order = np.lexsort((rows, times, users))
        offsets = np.searchsorted(users[order], np.arange(len(user_ids) + 1))
        return cls(row_numbers(frame["item_id"], item_ids)[order], times[order], offsets)

    def before(self, users: Rows, times: Ints) -> tuple[Ints, Ints]:
        """Start and end of the events of each user strictly before each time."""
        clock = np.unique(np.concatenate([self.times, times]))
        owners = np.repeat(np.arange(len(self.offsets) - 1), np.diff(self.offsets))
        own = owners * len(clock) + np.searchsorted(clock, self.times)
        wanted = users.astype(np.int64) * len(clock) + np.searchsorted(clock, times)
        end = np.searchsorted(own, wanted)
        return self.offsets[users], end


@dataclass(frozen=True)
class Examples:
    """Rows of candidates; those of one event are neighbours and share user, time and history.

    user_ids, item_ids: sorted vocabularies; users, items: int32 [n], rows of them; labels: int8 [n];
    times, events: int64 [n], event is the log's row number of the positive that a row belongs to;
    cold: bool [n], the candidate has no training event;
    history: int32 [m], item rows of every user's positive events by time; row i's history is
    history[start[i]:end[i]], start and end int64 [n], oldest first; begin: int64 [n], where the user's long
    history begins, for search by code;
    tasks: names of the auxiliary labels; auxiliary: int8 [n, tasks], -1 where unknown, as for every drawn
    negative, which is no event that could have been liked or not; clock: int64 [m], times of the history's
    events; about: features of users, None where there are none. `Ranker.reading` sets what a batch is to hold
    of them: timed, whether gaps of time; user_codes: int64 [users, features]. weights: float32 [n], of each
    row's event in the loss, None where all count alike.
    """

    user_ids: list[str]
    item_ids: list[str]
    users: Rows
    items: Rows
    labels: npt.NDArray[np.int8]
    times: Ints
    events: Ints
    cold: npt.NDArray[np.bool_]
    history: Rows
    start: Ints
    end: Ints
    begin: Ints
    tasks: tuple[str, ...] = ()
    auxiliary: npt.NDArray[np.int8] | None = None
    clock: Ints | None = None
    about: Users | None = None
    timed: bool = False
    user_codes: Ints | None = None
    weights: npt.NDArray[np.float32] | None = None

    def __len__(self) -> int:
        return len(self.items)

    def only(self, rows: npt.NDArray[np.bool_]) -> "Examples":
        """Some of the rows, bool [n], in their order."""
        return replace(self, **self._of(rows))

    def _of(self, rows: npt.NDArray[Any]) -> dict[str, Any]:
        """What is held for each row, for some of the rows, by a mask or their numbers."""
        there = [*OF_ROWS, *(name for name in OF_SOME_ROWS if getattr(self, name) is not None)]
        return {name: getattr(self, name)[rows] for name in there}

    def of_label(self, name: str) -> "Examples":
        """The rows whose auxiliary label of that name is known, with it as their label."""
        if self.auxiliary is None or name not in self.tasks:
            known = f"there are {shown(self.tasks)}" if self.tasks else "there is none"
            raise InputError(f"no auxiliary label {name!r}; {known}")
        values = self.auxiliary[:, self.tasks.index(name)]
        return replace(self.only(values >= 0), labels=values[values >= 0])

    def groups(self) -> Ints:
        """First row of each event, then the number of rows: int64 [events + 1]."""
        changes = np.flatnonzero(self.events[1:] != self.events[:-1]) + 1
        edges = np.append(np.insert(changes, 0, 0), len(self))
        return edges if len(self) else edges[:1]


class TrainingRows:
    """The training part as examples; where it has positives only, every epoch draws new negatives.

    Nothing here sees events outside the training part: neither histories nor the items that count as
    touched, so that a change of the future changes no training row.
    """

    def __init__(
        self,
        train: Log,
        *,
        item_ids: Sequence[str],
        explicit: bool,
        history: int = 50,
        long_history: int = LONG,
        negatives: int = TRAIN_NEGATIVES,
        since: Log | None = None,
        seed: int = 0,
    ) -> None:
        """Prepare rows of `train`; item_ids: the catalogue; explicit: labels 0 stand in the log.

        since: the part of `train` whose events are rows; the rest is history only. None: all of it.

        Raises:
            InputError: no event, no positive, one label only in an explicit log, unknown items.
        """
        self.negatives = 0 if explicit else negatives
        self.seed = seed
        user_ids, vocabulary = train.users, sorted(item_ids)
        self.events = _attach(
            _plain(train if since is None else since),
            UserEvents.of(train, user_ids, vocabulary),
            user_ids=user_ids,
            item_ids=vocabulary,
            limits=(history, long_history),
            about=train.about,
        )
        _check_training(self.events, explicit)
        touched = row_numbers(train.frame["item_id"], vocabulary)
        self.trained = np.unique(touched)
        self._source = Untouched.of(
            row_numbers(train.frame["user_id"], user_ids), touched, pool=self.trained, n_users=len(user_ids)
        )

    def epoch(self, number: int) -> Examples:
        """The rows of one epoch: events of the log, each positive followed by its drawn negatives."""
        if not self.negatives:
            return self.events
        seed = int(np.random.SeedSequence([self.seed, number]).generate_state(1, np.uint64)[0])
        return _with_negatives(self.events, self._source, self.negatives, seed)


def evaluation_rows(
    parts: Mapping[str, Log],
    past: Log,
    *,
    item_ids: Sequence[str],
    trained_items: Sequence[str],
    touched: Sequence[Log] = (),
    negatives: int = EVAL_NEGATIVES,
    popular: bool = False,
    seed: int = 0,
) -> pl.DataFrame:
    """The rows that variants are judged on, the content of `recommender/eval.parquet`.

    An explicit log (a label 0 somewhere) brings its own rows; otherwise each positive gets negatives,
    uniform over the whole catalogue, that its user touched neither in `past` nor in any part nor in
    `touched`.

    Args:
        parts: logs by name, such as valid and test; past: all other events of these users.
        trained_items: items with a training event; the others are cold.
        touched: further events whose items are no negatives of their users.
        popular: draw negatives in proportion to their events in all these logs instead of uniformly.

    Returns:
        part, user_id, item_id str, label i8, time, event i64 (row of the positive), cold bool; and
        `label_<name>` i8 for each auxiliary label, null where unknown.

    Raises:
        InputError: an item is not in `item_ids`.
    """
    everything = [past, *parts.values(), *touched]
    vocabulary = sorted(item_ids)
    events = pl.concat([log.frame.select("user_id", "item_id") for log in everything])
    user_ids = events["user_id"].unique().sort().to_list()
    explicit = any(log.explicit for log in everything)
    source = Untouched.of(
        row_numbers(events["user_id"], user_ids),
        row_numbers(events["item_id"], vocabulary),
        pool=np.arange(len(vocabulary), dtype=np.int32),
        n_users=len(user_ids),
    )
    numbers = row_numbers(events["item_id"], vocabulary)
    popularity = np.bincount(numbers, minlength=len(vocabulary)) if popular else None
    nothing = UserEvents(np.empty(0, np.int32), np.empty(0, np.int64), np.zeros(len(user_ids) + 1, np.int64))
    is_cold = ~np.isin(vocabulary, np.asarray(trained_items))
    frames = []
    for name, log in parts.items():
        rows = _attach(_plain(log), nothing, user_ids=user_ids, item_ids=vocabulary, limits=(0, 0))
        rows = rows if explicit else _with_negatives(rows, source, negatives, seed, popularity)
        frames.append(_frame(name, rows, is_cold))
    return pl.concat(frames)


def read_examples(
    rows: pl.DataFrame,
    past: Sequence[Log],
    *,
    item_ids: Sequence[str],
    history: int = 50,
    long_history: int = LONG,
) -> Examples:
    """Evaluation rows (as from `evaluation_rows`) with histories from the positive events of `past`.

    A row's history is everything of its user in `past` strictly before the row's time, the latest
    `history` events of it, or `long_history` where it is searched by code; `past` may hold later events,
    they are not seen.

    Raises:
        InputError: an item is not in `item_ids`.
    """
    vocabulary = sorted(item_ids)
    log = Log(pl.concat([part.frame.select(PLAIN) for part in past]))
    user_ids = pl.concat([rows["user_id"], log.frame["user_id"]]).unique().sort().to_list()
    events = UserEvents.of(log, user_ids, vocabulary)
    about = next((part.about for part in past if part.about is not None), None)
    limits = (history, long_history)
    return _attach(rows, events, user_ids=user_ids, item_ids=vocabulary, limits=limits, about=about)


def _plain(log: Log) -> pl.DataFrame:
    more = [AUXILIARY + name for name in log.auxiliary] + [WEIGHT] * (WEIGHT in log.frame.columns)
    columns = ["user_id", "item_id", "label", "time", *more]
    return log.frame.select(*columns, pl.col("row").alias("event"), pl.lit(False).alias("cold"))


def _attach(
    rows: pl.DataFrame,
    past: UserEvents,
    *,
    user_ids: list[str],
    item_ids: list[str],
    limits: tuple[int, int],
    about: Users | None = None,
) -> Examples:
    tasks = tuple(name.removeprefix(AUXILIARY) for name in rows.columns if name.startswith(AUXILIARY))
    auxiliary = [rows[AUXILIARY + name].fill_null(UNKNOWN).to_numpy().astype(np.int8) for name in tasks]
    users = row_numbers(rows["user_id"], user_ids)
    times = rows["time"].to_numpy()
    first, end = past.before(users, times)
    start, begin = (np.maximum(first, end - limit) for limit in limits)
    return Examples(
        user_ids=user_ids,
        item_ids=item_ids,
        users=users,
        items=row_numbers(rows["item_id"], item_ids),
        labels=rows["label"].to_numpy().astype(np.int8),
        times=times,
        events=rows["event"].to_numpy(),
        cold=rows["cold"].to_numpy(),
        history=past.items,
        start=start,
        end=end,
        begin=begin,
        tasks=tasks,
        auxiliary=np.stack(auxiliary, axis=1) if auxiliary else None,
        clock=past.times,
        about=about,
        weights=_mean_one(rows[WEIGHT]) if WEIGHT in rows.columns else None,
    )


def _mean_one(weights: pl.Series) -> npt.NDArray[np.float32]:
    """Weights with mean 1, so that they do not change the step size."""
    values = weights.to_numpy()
    return (values / values.mean()).astype(np.float32) if len(values) else values.astype(np.float32)


def _with_negatives(
    events: Examples, source: Untouched, count: int, seed: int, popularity: Ints | None = None
) -> Examples:
    """Every positive, followed by its negatives."""
    asked = source, events.users, events.events
    if popularity is None:
        drawn, valid = draw(*asked, count=count, seed=seed)
    else:
        drawn, valid = draw_popular(*asked, popularity=popularity, count=count, seed=seed)
    keep = np.arange(count) < valid[:, None]
    row = np.repeat(np.arange(len(events)), 1 + valid)
    first = np.cumsum(1 + valid) - 1 - valid
    is_negative = np.ones(len(row), dtype=bool)
    is_negative[first] = False
    items = events.items[row]
    items[is_negative] = drawn[keep]
    rows = events._of(row) | {"items": items, "labels": (~is_negative).astype(np.int8)}
    if "auxiliary" in rows:
        rows["auxiliary"][is_negative] = UNKNOWN
    return replace(events, **rows)


def _frame(part: str, rows: Examples, is_cold: npt.NDArray[np.bool_]) -> pl.DataFrame:
    columns = {
        "part": pl.repeat(part, len(rows), dtype=pl.String, eager=True),
        "user_id": pl.Series(rows.user_ids, dtype=pl.String).gather(rows.users),
        "item_id": pl.Series(rows.item_ids, dtype=pl.String).gather(rows.items),
        "label": rows.labels,
        "time": rows.times,
        "event": rows.events,
        "cold": is_cold[rows.items],
    }
    for number, name in enumerate(rows.tasks):
        values = pl.Series(rows.auxiliary[:, number]) if rows.auxiliary is not None else pl.Series([])
        columns[AUXILIARY + name] = values.set(values == UNKNOWN, None)
    return pl.DataFrame(columns)


def _check_training(rows: Examples, explicit: bool) -> None:
    if len(rows) == 0:
        raise InputError("the training part has no events; give an earlier log or a later split time")
    problems = Problems()
    if not rows.labels.any():
        problems.add(f"none of the {len(rows)} training events has label 1; check data.interactions.label")
    if explicit and rows.labels.all():
        problems.add(
            f"all {len(rows)} training events have label 1 though the log holds labels 0; "
            "split so that the training part has both"
        )
    for name in rows.tasks:
        values = np.unique(rows.of_label(name).labels).tolist()
        if len(values) < 2:
            held = f"only {values[0]}" if values else "nothing known"
            problems.add(
                f"label {name}: {held} among the {len(rows)} training events, need 0 and 1; "
                f"check data.interactions.labels.{name}, or remove it"
            )
    problems.raise_any()


def row_numbers(ids: pl.Series, vocabulary: list[str]) -> Rows:
    """Position of each id in a vocabulary of distinct strings, int32 [len(ids)].

    Raises:
        InputError: ids that the vocabulary has not, named and counted.
    """
    places = ids.cast(pl.Enum(vocabulary), strict=False).to_physical()
    if places.null_count():
        unknown = ids.filter(places.is_null()).unique().sort()
        raise InputError(
            f"{ids.name}: {len(unknown)} unknown, {shown(unknown)}; add them to the catalogue and its codes"
        )
    return places.to_numpy().astype(np.int32)
