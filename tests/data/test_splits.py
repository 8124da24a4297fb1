"""Splits by hand: where the cuts fall, what ties do, which items turn cold."""

from collections import Counter
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qarm.data.interactions import Log
from qarm.data.splits import Split, split_log
from qarm.errors import InputError

MakeLog = Callable[..., Log]


def rows(split: Split) -> tuple[list[int], list[int], list[int]]:
    train, valid, test = (sorted(part.frame["row"]) for part in (split.train, split.valid, split.test))
    return train, valid, test


def test_time_cuts_once_for_all_users(make_log: MakeLog) -> None:
    log = make_log([("a" if t % 2 else "b", t % 3, t) for t in range(10)])
    assert rows(split_log(log)) == ([0, 1, 2, 3, 4, 5, 6], [7], [8, 9])


def test_events_of_one_moment_stay_together(make_log: MakeLog) -> None:
    log = make_log([(user, user, time) for user, time in enumerate([1, 2, 3, 4, 5, 6, 7, 7, 7, 8])])
    # Test wants 2 events: from 8 on there is 1, from 7 on there are 4. Both want 4: from 7 on.
    assert rows(split_log(log, test=0.2, valid=0.2)) == ([0, 1, 2, 3, 4, 5], [6, 7, 8], [9])


@given(
    times=st.lists(st.integers(0, 12), min_size=1, max_size=40),
    test=st.floats(0.05, 0.6),
    seed=st.integers(0, 3),
)
@settings(deadline=None)
def test_time_parts_follow_each_other(make_log: MakeLog, times: list[int], test: float, seed: int) -> None:
    log = make_log([(seed, 0, time) for time in times])
    try:
        split = split_log(log, test=test, valid=0.2)
    except InputError:
        assert len(set(times)) < 12
        return
    parts = [set(part.frame["time"]) for part in (split.train, split.valid, split.test)]
    assert max(parts[0]) < min(parts[1]) <= max(parts[1]) < min(parts[2])
    assert sorted(n for part in rows(split) for n in part) == list(range(len(times)))


def test_user_tail_takes_whole_shares_of_each_user(make_log: MakeLog) -> None:
    log = make_log(
        [("long", n, n) for n in range(10)] + [("four", n, 5) for n in range(4)] + [("five", 1, 0)] * 5
    )
    train, valid, test = rows(split_log(log, kind="user_tail"))
    assert (valid, test) == ([7], [8, 9, 18])  # four events make 0.8 of one; five at one time: row order
    assert len(train) == 15
    counts = Counter(split_log(log, kind="user_tail", test=0.3).test.frame["user_id"])
    assert counts == {"long": 3, "four": 1, "five": 1}


def test_user_tail_without_a_test_part(make_log: MakeLog) -> None:
    split = split_log(make_log([(0, 0, n) for n in range(10)]), kind="user_tail", test=0.0)
    assert rows(split) == (list(range(9)), [9], [])


def test_shares_that_floats_miss_by_a_hair_are_whole(make_log: MakeLog) -> None:
    split = split_log(make_log([(0, 0, n) for n in range(100)]), kind="user_tail", test=0.29, valid=0.01)
    assert (len(split.test), len(split.valid)) == (29, 1)


def test_last_out(make_log: MakeLog) -> None:
    log = make_log(
        [
            ("a", 1, 3),
            ("a", 2, 1),
            ("a", 3, 2),
            ("b", 1, 1),
            ("b", 2, 2),
            ("c", 9, 0),
            ("c", 8, 0),
            ("c", 7, 0),
        ]
    )
    assert rows(split_log(log, kind="last_out", test=0.0, valid=0.0)) == ([1, 3, 4, 5], [2, 6], [0, 7])


def test_both_labels_are_split(make_log: MakeLog) -> None:
    split = split_log(make_log([(0, 0, t, t % 2) for t in range(10)]), test=0.4, valid=0.2)
    assert [part.explicit for part in (split.train, split.valid, split.test)] == [True] * 3


def test_an_unwanted_part_may_be_empty(make_log: MakeLog) -> None:
    split = split_log(make_log([(0, 0, t) for t in range(10)]), valid=0.0)
    assert [len(part) for part in (split.train, split.valid, split.test)] == [8, 0, 2]


# ---- cold items -------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def busy(make_log: MakeLog) -> Log:
    """40 items; item n has n + 1 events in each of ten rounds, and item "new" comes in the last."""
    events = [(t % 7, f"{n:02}", t) for t in range(10) for n in range(40) for _ in range(n + 1)]
    return make_log([*events, (0, "new", 9)])


def test_items_without_training_events_are_cold(busy: Log) -> None:
    assert split_log(busy).cold_items == ["new"]


def test_drawn_items_leave_train_and_valid_but_not_test(busy: Log) -> None:
    whole, split = split_log(busy), split_log(busy, cold_items=0.25)
    drawn = set(split.cold_items) - {"new"}
    assert len(drawn) == 10
    assert not drawn & {*split.train.items, *split.valid.items}
    assert split.test.frame.equals(whole.test.frame)
    assert split.train.frame.equals(whole.train.without_items(drawn).frame)
    assert split.valid.frame.equals(whole.valid.without_items(drawn).frame)


def test_drawn_items_are_as_often_rare_as_frequent(busy: Log) -> None:
    drawn = set(split_log(busy, cold_items=0.25).cold_items) - {"new"}
    assert Counter(int(item) // 4 for item in drawn) == dict.fromkeys(range(10), 1)


def test_the_draw_follows_the_seed(busy: Log) -> None:
    draws = [tuple(split_log(busy, cold_items=0.25, seed=seed).cold_items) for seed in (0, 0, 1)]
    assert draws[0] == draws[1] != draws[2]


def test_validation_has_cold_items_of_its_own(busy: Log) -> None:
    """A second draw keeps the events of its items in validation alone; the first keeps those of the test."""
    whole = split_log(busy)
    split = split_log(busy, cold_items=0.25, cold_valid_items=0.25)
    of_test = set(split_log(busy, cold_items=0.25).cold_items) - {"new"}
    of_valid = set(split.cold_items) - of_test - {"new"}
    assert (len(of_test), len(of_valid)) == (10, 10)
    assert not (of_test | of_valid) & {*split.train.items}
    assert split.train.frame.equals(whole.train.without_items(of_test | of_valid).frame)
    assert split.valid.frame.equals(whole.valid.without_items(of_test).frame)
    assert split.test.frame.equals(whole.test.without_items(of_valid).frame)
    assert {*split.left_out_later.items} == of_valid
    parts = (split.train, split.valid, split.test, split.left_out, split.left_out_later)
    assert sum(map(len, parts)) == len(busy)


# ---- what is refused --------------------------------------------------------------------------


def test_all_wrong_arguments_at_once(make_log: MakeLog) -> None:
    with pytest.raises(InputError) as caught:
        split_log(make_log([]), kind="random", test=0.7, valid=0.4, cold_items=1.0)  # type: ignore[arg-type]
    assert caught.value.problems == [
        "the log has no event to split",
        "got split kind 'random', need one of time, user_tail, last_out",
        "got cold_items=1, need a share of at least 0 and below 1",
        "got test + valid = 1.1, need less than 1; lower one of them",
    ]


def test_empty_parts_are_named(make_log: MakeLog) -> None:
    log = make_log([("a", 1, 5), ("b", 2, 5)])
    for kind in ("time", "user_tail", "last_out"):
        with pytest.raises(InputError) as caught:
            split_log(log, kind=kind)  # type: ignore[arg-type]
        assert [p.split(";")[0] for p in caught.value.problems] == [
            f"split {kind}: no event falls into valid",
            f"split {kind}: no event falls into test",
        ]


def test_too_small_a_cold_share(make_log: MakeLog) -> None:
    with pytest.raises(
        InputError, match=r"cold_items=0.1 of 3 training items is none; raise split.cold_items"
    ):
        split_log(make_log([(0, t % 3, t) for t in range(10)]), cold_items=0.1)
