"""Rows to learn from and to be judged on, against loops over the log in plain Python."""

from collections.abc import Callable
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qarm.core.tables.parquet import write_parquet
from qarm.data.interactions import Log
from qarm.data.splits import split_log
from qarm.errors import InputError
from qarm.recommender.batches import batches
from qarm.recommender.examples import Examples, TrainingRows, evaluation_rows, read_examples, row_numbers

MakeLog = Callable[..., Log]
Event = tuple[int, int, int, int]
EVENTS = st.lists(
    st.tuples(st.integers(0, 3), st.integers(0, 5), st.integers(0, 6), st.integers(0, 1)),
    min_size=1,
    max_size=40,
)
ITEMS = [f"{n}" for n in range(6)]
CATALOG = [f"{n:03d}" for n in range(300)]


def history_of(rows: Examples, row: int) -> list[str]:
    return [rows.item_ids[i] for i in rows.history[rows.start[row] : rows.end[row]]]


def searched(events: list[Event], user: int, time: int, limit: int) -> list[str]:
    """The user's positives before `time`, by time and then by row of the log."""
    found = [(t, n, i) for n, (u, i, t, label) in enumerate(events) if u == user and t < time and label]
    return [str(i) for _, _, i in sorted(found)][-limit:]


def same(one: Examples, other: Examples) -> bool:
    pairs = ((getattr(one, f.name), getattr(other, f.name)) for f in fields(Examples))
    return all(np.array_equal(a, b) for a, b in pairs)


def drawn_log(make_log: MakeLog, *, users: int = 12, first: int = 0, seed: int = 0, begin: int = 0) -> Log:
    random = np.random.default_rng(seed)
    events = [
        (f"u{user:02d}", CATALOG[item], begin + time)
        for user in range(users)
        for time, item in enumerate(random.integers(0, 200, 20))
    ]
    return make_log(events, first=first)


def by_event(frame: pl.DataFrame) -> dict[int, list[tuple[Any, ...]]]:
    found: dict[int, list[tuple[Any, ...]]] = {}
    for row in frame.select("event", "user_id", "item_id", "label", "time").iter_rows():
        found.setdefault(row[0], []).append(row[1:])
    return found


# ---- histories --------------------------------------------------------------------------------


@given(events=EVENTS, limit=st.integers(1, 5))
@settings(deadline=None)
def test_histories_are_strictly_before_the_event(make_log: MakeLog, events: list[Event], limit: int) -> None:
    log = make_log(events)
    rows = read_examples(
        evaluation_rows({"test": log}, log, item_ids=ITEMS, trained_items=ITEMS, negatives=2),
        [log],
        item_ids=ITEMS,
        history=limit,
    )
    assert rows.labels.sum() == sum(label for *_, label in events)
    for row, (event, time, user) in enumerate(zip(rows.events, rows.times, rows.users, strict=True)):
        assert (int(rows.user_ids[user]), time) == (events[event][0], events[event][2])
        assert history_of(rows, row) == searched(events, int(rows.user_ids[user]), time, limit)


@given(events=EVENTS, limit=st.integers(1, 5), explicit=st.booleans())
@settings(deadline=None)
def test_training_histories_are_strictly_before_the_event(
    make_log: MakeLog, events: list[Event], limit: int, explicit: bool
) -> None:
    if not explicit or not 0 < sum(label for *_, label in events) < len(events):
        events, explicit = [(u, i, t, 1) for u, i, t, _ in events], False
    rows = TrainingRows(
        make_log(events), item_ids=ITEMS, explicit=explicit, history=limit, negatives=2
    ).epoch(0)
    own = [row for row in range(len(rows)) if row == 0 or rows.events[row] != rows.events[row - 1]]
    assert sorted(rows.events[own].tolist()) == list(range(len(events)))
    for row, event in enumerate(rows.events):
        user, item, time, label = events[event]
        assert history_of(rows, row) == searched(events, user, time, limit)
        if row in own:
            assert (rows.item_ids[rows.items[row]], rows.labels[row]) == (str(item), label)


def test_events_of_one_moment_are_not_in_one_anothers_history(make_log: MakeLog) -> None:
    log = make_log([("a", 0, 1), ("a", 1, 2), ("a", 2, 2), ("a", 3, 2), ("a", 4, 3), ("b", 5, 1)])
    rows = TrainingRows(log, item_ids=ITEMS, explicit=False).events
    assert [history_of(rows, row) for row in range(6)] == [
        [],
        ["0"],
        ["0"],
        ["0"],
        ["0", "1", "2", "3"],
        [],
    ]


def test_the_past_may_hold_what_comes_later(make_log: MakeLog) -> None:
    log = make_log([("a", item, item) for item in range(6)])
    rows = pl.DataFrame(
        {"user_id": ["a", "new"], "item_id": ["0", "0"], "label": [1, 1], "time": [3, 3], "event": [0, 1]}
    ).with_columns(cold=False)
    found = read_examples(rows, [log], item_ids=ITEMS)
    assert [history_of(found, 0), history_of(found, 1)] == [["0", "1", "2"], []]


# ---- training rows ----------------------------------------------------------------------------


def test_every_training_positive_gets_untouched_trained_items(make_log: MakeLog) -> None:
    log = drawn_log(make_log)
    rows = TrainingRows(log, item_ids=CATALOG, explicit=False, negatives=4, seed=3).epoch(0)
    assert np.array_equal(rows.labels.reshape(-1, 5), np.tile([1, 0, 0, 0, 0], (len(log), 1)))
    touched = set(log.frame.select("user_id", "item_id").iter_rows())
    for start in range(0, len(rows), 5):
        user = rows.user_ids[rows.users[start]]
        names = [rows.item_ids[i] for i in rows.items[start : start + 5]]
        assert (user, names[0]) in touched
        assert len(set(names)) == 5
        assert all((user, name) not in touched and name in log.items for name in names[1:])
        assert len(set(rows.events[start : start + 5])) == len(set(rows.users[start : start + 5])) == 1


def test_epochs_draw_anew_and_the_seed_decides(make_log: MakeLog) -> None:
    def rows(seed: int) -> TrainingRows:
        return TrainingRows(drawn_log(make_log), item_ids=CATALOG, explicit=False, seed=seed)

    assert same(rows(0).epoch(1), rows(0).epoch(1))
    assert (rows(0).epoch(0).items != rows(0).epoch(1).items).mean() > 0.7
    assert (rows(0).epoch(0).items != rows(1).epoch(0).items).mean() > 0.7
    assert (rows(0).epoch(1).items != rows(1).epoch(0).items).mean() > 0.7


@pytest.mark.parametrize("kind", ["time", "user_tail"])
def test_the_future_changes_no_training_row(make_log: MakeLog, kind: Any) -> None:
    log = drawn_log(make_log)
    split = split_log(log, kind=kind)
    later = pl.col("row").is_in([*split.valid.frame["row"], *split.test.frame["row"]])
    other = Log(
        log.frame.with_columns(
            item_id=pl.when(later).then(pl.lit(CATALOG[250])).otherwise("item_id"),
        )
    )
    again = split_log(other, kind=kind)
    assert not again.test.frame.equals(split.test.frame)
    one, two = (TrainingRows(s.train, item_ids=CATALOG, explicit=False) for s in (split, again))
    assert same(one.events, two.events)
    assert same(one.epoch(0), two.epoch(0))
    assert np.array_equal(one.trained, two.trained)


def test_new_items_in_the_catalogue_change_no_training_row(make_log: MakeLog) -> None:
    log = drawn_log(make_log)
    small, large = (
        TrainingRows(log, item_ids=ids, explicit=False).epoch(0) for ids in (CATALOG, [*CATALOG, "0", "zzz"])
    )
    assert [small.item_ids[i] for i in small.items] == [large.item_ids[i] for i in large.items]
    assert {"0", "zzz"} < set(large.item_ids)


def test_negatives_have_the_weight_of_their_event(make_log: MakeLog) -> None:
    log = make_log([("u", "1", 1), ("u", "2", 2), ("v", "3", 1), ("v", "4", 2)])
    weighted = Log(log.frame.with_columns(weight=pl.Series([1.0, 3.0, 2.0, 2.0])))
    rows = TrainingRows(weighted, item_ids=ITEMS, explicit=False, negatives=2).epoch(0)
    assert rows.weights is not None
    by_row = dict(zip(log.frame["row"], [0.5, 1.5, 1.0, 1.0], strict=True))  # of mean 1
    assert rows.weights.tolist() == [by_row[event] for event in rows.events]
    assert rows.only(rows.labels == 1).weights is not None
    assert len(rows) > len(log)
    (batch,) = batches(rows, 100)
    assert batch.weights is not None
    assert batch.weights[batch.real].sort().values.tolist() == sorted(rows.weights.tolist())
    plain = TrainingRows(log, item_ids=ITEMS, explicit=False, negatives=2).epoch(0)
    assert plain.weights is None
    assert same(plain, replace(rows, weights=None))


def test_an_explicit_log_brings_its_own_rows(make_log: MakeLog) -> None:
    log = make_log([("a", 0, 1, 1), ("a", 1, 2, 0), ("a", 2, 3, 1), ("b", 3, 1, 0)])
    rows = TrainingRows(log, item_ids=ITEMS, explicit=True, negatives=4)
    assert rows.epoch(0) is rows.events
    assert rows.events.labels.tolist() == [1, 0, 1, 0]
    assert rows.trained.tolist() == [0, 1, 2, 3]  # a shown item has been met, clicked or not
    assert history_of(rows.events, 2) == ["0"]  # the 0 at time 2 is no click


@pytest.mark.parametrize(
    ("events", "explicit", "message"),
    [
        ([], False, "the training part has no events"),
        ([("a", 0, 1, 0)], True, "none of the 1 training events has label 1"),
        ([("a", 0, 1, 1)], True, "all 1 training events have label 1 though the log holds labels 0"),
        ([("a", "new", 1, 1)], False, "item_id: 1 unknown, new; add them to the catalogue"),
    ],
)
def test_training_refuses(make_log: MakeLog, events: list[Any], explicit: bool, message: str) -> None:
    with pytest.raises(InputError, match=message):
        TrainingRows(make_log(events), item_ids=ITEMS, explicit=explicit)


# ---- evaluation rows --------------------------------------------------------------------------


def test_each_positive_gets_a_hundred_untouched_items(make_log: MakeLog) -> None:
    log = drawn_log(make_log)
    split = split_log(log, kind="user_tail")
    frame = evaluation_rows(
        {"valid": split.valid, "test": split.test},
        split.train,
        item_ids=CATALOG,
        trained_items=split.train.items,
    )
    touched = set(log.frame.select("user_id", "item_id").iter_rows())
    facts = {row[0]: row[1:] for row in log.frame.select("row", "user_id", "item_id", "time").iter_rows()}
    groups = by_event(frame)
    assert set(groups) == {*split.valid.frame["row"], *split.test.frame["row"]}
    for event, rows in groups.items():
        user, item, time = facts[event]
        assert rows[0] == (user, item, 1, time)
        assert len({name for _, name, *_ in rows}) == len(rows) == 101
        assert all((u, y, t) == (user, 0, time) and (u, i) not in touched for u, i, y, t in rows[1:])
    parts = dict(frame.select("event", "part").unique().iter_rows())
    assert {e for e, part in parts.items() if part == "test"} == set(split.test.frame["row"])
    assert frame["cold"].to_list() == [item not in set(split.train.items) for item in frame["item_id"]]
    assert set(frame.filter(pl.col("label") == 0)["item_id"]) == set(CATALOG)  # cold and unseen ones too


def test_rows_of_other_users_do_not_matter(make_log: MakeLog) -> None:
    past, future = drawn_log(make_log), drawn_log(make_log, first=1000, seed=1, begin=50)

    def rows(past: Log, future: Log, seed: int = 0) -> dict[int, list[tuple[Any, ...]]]:
        return by_event(
            evaluation_rows({"test": future}, past, item_ids=CATALOG, trained_items=past.items, seed=seed)
        )

    def some(log: Log) -> Log:
        return Log(log.frame.filter(pl.col("user_id") > "u05"))

    everything, fewer = rows(past, future), rows(some(past), some(future))
    assert len(fewer) == 120
    assert fewer == {event: everything[event] for event in fewer}
    assert rows(past, future) == everything
    assert rows(past, future, seed=1) != everything


def test_few_untouched_items_are_all_taken(make_log: MakeLog) -> None:
    log = make_log([("a", item, item) for item in range(4)])
    frame = evaluation_rows({"test": log}, log, item_ids=ITEMS, trained_items=ITEMS)
    for rows in by_event(frame).values():
        assert sorted(item for _, item, label, _ in rows if not label) == ["4", "5"]


def test_explicit_logs_are_judged_on_their_own_rows(make_log: MakeLog) -> None:
    past = make_log([("a", 0, 1, 1), ("b", 1, 1, 0)])
    future = make_log([("a", 2, 5, 1), ("a", 0, 6, 1)], first=2)
    frame = evaluation_rows({"test": future}, past, item_ids=ITEMS, trained_items=past.items)
    assert frame.rows() == [("test", "a", "2", 1, 5, 2, True), ("test", "a", "0", 1, 6, 3, False)]


def test_an_empty_part_has_no_rows(make_log: MakeLog) -> None:
    log = make_log([("a", 0, 1), ("a", 1, 2)])
    none = replace(log, frame=log.frame.clear())
    frame = evaluation_rows({"valid": none, "test": log}, log, item_ids=ITEMS, trained_items=["0"])
    assert set(frame["part"]) == {"test"}
    rows = read_examples(frame.filter(pl.col("part") == "valid"), [log], item_ids=ITEMS)
    assert (len(rows), rows.groups().tolist()) == (0, [0])


def test_saved_rows_read_back_the_same(make_log: MakeLog, tmp_path: Path) -> None:
    log = drawn_log(make_log, users=3)
    frame = evaluation_rows({"test": log}, log, item_ids=CATALOG, trained_items=log.items, negatives=3)
    write_parquet(tmp_path / "eval.parquet", frame)
    saved = pl.read_parquet(tmp_path / "eval.parquet")
    assert saved.schema == pl.Schema(
        {
            "part": pl.String,
            "user_id": pl.String,
            "item_id": pl.String,
            "label": pl.Int8,
            "time": pl.Int64,
            "event": pl.Int64,
            "cold": pl.Boolean,
        }
    )
    one, two = (read_examples(rows, [log], item_ids=CATALOG) for rows in (frame, saved))
    assert same(one, two)


def test_unknown_items_are_named(make_log: MakeLog) -> None:
    log = make_log([("a", 0, 1), ("a", "x", 2), ("a", "y", 3)])
    with pytest.raises(InputError, match="item_id: 2 unknown, x, y; add them"):
        evaluation_rows({"test": log}, log, item_ids=ITEMS, trained_items=ITEMS)


def test_row_numbers_follow_the_vocabulary() -> None:
    found = row_numbers(pl.Series("item_id", ["c", "a", "c"]), ["a", "b", "c"])
    assert (found.dtype, found.tolist()) == (np.int32, [2, 0, 2])


def test_groups_by_hand(make_examples: Callable[..., Examples]) -> None:
    rows = make_examples([([1, 2], [1, 0], []), ([3], [1], []), ([4, 5, 6], [1, 0, 0], [1])])
    assert rows.groups().tolist() == [0, 2, 3, 6]
    assert make_examples([]).groups().tolist() == [0]
