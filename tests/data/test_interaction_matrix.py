"""The click matrix from both sides, and its samples."""

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qarm.data.interaction_matrix import Lists, click_matrix, sampled
from qarm.data.interactions import Log

MakeLog = Callable[..., Log]

held = st.lists(st.sets(st.integers(0, 20), max_size=12), min_size=1, max_size=12)


def lists_of(sets: list[set[int]]) -> Lists:
    starts = np.cumsum([0, *(len(s) for s in sets)])
    return Lists(starts, np.array([v for s in sets for v in sorted(s)], dtype=np.int32))


def sets_of(lists: Lists) -> list[set[int]]:
    return [set(lists.values[a:b].tolist()) for a, b in zip(lists.starts[:-1], lists.starts[1:], strict=True)]


def test_clicks_are_numbered_in_the_order_of_their_ids(make_log: MakeLog) -> None:
    log = make_log(
        [("b", "z", 0), ("b", "x", 1), ("b", "x", 2), ("a", "z", 0), ("a", "y", 1, 0), ("c", "y", 0)]
    )
    matrix = click_matrix(log)
    assert matrix.item_ids.to_list() == ["x", "y", "z"]
    assert sets_of(matrix.by_user) == [{2}, {0, 2}, {1}]
    assert sets_of(matrix.by_item) == [{1}, {2}, {0, 1}]
    assert sets_of(click_matrix(log, min_items=2).by_user) == [{0, 2}]


def test_no_click_is_no_list(make_log: MakeLog) -> None:
    matrix = click_matrix(make_log([(0, 0, 0, 0)]))
    assert (len(matrix.item_ids), len(matrix.by_user), len(matrix.by_item)) == (0, 0, 0)


@given(sets=held)
@settings(deadline=None)
def test_flipping_twice_changes_nothing(sets: list[set[int]]) -> None:
    flipped = lists_of(sets).flipped(21)
    assert sets_of(flipped) == [{row for row, s in enumerate(sets) if value in s} for value in range(21)]
    assert sets_of(flipped.flipped(len(sets))) == sets


@given(sets=held, cap=st.integers(1, 12), seed=st.integers(-5, 2**63))
@settings(deadline=None)
def test_samples_are_subsets_of_the_right_size(sets: list[set[int]], cap: int, seed: int) -> None:
    drawn = sets_of(sampled(lists_of(sets), cap, seed=seed))
    assert all(part <= whole for part, whole in zip(drawn, sets, strict=True))
    assert [len(part) for part in drawn] == [min(cap, len(whole)) for whole in sets]


def test_no_cap_keeps_all() -> None:
    lists = lists_of([{1, 2, 3}])
    assert sampled(lists, None, seed=0) is lists


def test_every_value_is_as_likely_as_any_other() -> None:
    lists = lists_of([set(range(10))] * 3000)
    counts = np.bincount(sampled(lists, 3, seed=7).values, minlength=10)
    assert counts.sum() == 9000
    assert counts == pytest.approx(900, rel=0.12)  # about four standard deviations
