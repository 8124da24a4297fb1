"""Drawn negatives: what may be drawn, that it is uniform, and that rows do not disturb each other."""

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import chisquare

from qarm.recommender.negative_sampling import Untouched, draw, draw_popular, log_q

ROWS = 40_000
# 5 of 20 items are touched: 15 free. Two draws are searched for, ten are dealt from a shuffled deck.
TOUCHED = [0, 3, 4, 11, 19]
FREE = sorted(set(range(20)) - set(TOUCHED))


def source_of(touched: list[list[int]], pool: list[int]) -> Untouched:
    users = np.array([u for u, items in enumerate(touched) for _ in items], dtype=np.int32)
    items = np.array([i for part in touched for i in part], dtype=np.int32)
    return Untouched.of(users, items, pool=np.array(pool, dtype=np.int32), n_users=len(touched))


def one_user(rows: int = ROWS, *, count: int, seed: int = 0) -> npt.NDArray[np.int32]:
    source = source_of([TOUCHED], list(range(20)))
    items, drawn = draw(source, np.zeros(rows, np.int32), np.arange(rows), count=count, seed=seed)
    assert (drawn == count).all()
    return items


def p_value(values: npt.NDArray[np.int64], cells: int) -> float:
    return float(chisquare(np.bincount(values, minlength=cells)).pvalue)


def places(items: npt.NDArray[np.int32]) -> npt.NDArray[np.int64]:
    found = np.searchsorted(FREE, items)
    assert (np.array(FREE)[found] == items).all()
    return found


@given(
    touched=st.lists(st.lists(st.integers(0, 12), max_size=14), min_size=1, max_size=5),
    pool=st.sets(st.integers(0, 12), min_size=1),
    count=st.integers(1, 8),
    seed=st.integers(-(2**70), 2**70),
)
@settings(deadline=None)
def test_draws_are_distinct_and_untouched(
    touched: list[list[int]], pool: set[int], count: int, seed: int
) -> None:
    """The lists hold repeats, any order, and items outside the pool."""
    users = np.arange(len(touched), dtype=np.int32)
    items, drawn = draw(
        source_of(touched, sorted(pool)), users, users.astype(np.int64), count=count, seed=seed
    )
    for user, own in enumerate(touched):
        allowed = pool - set(own)
        found = items[user, : drawn[user]].tolist()
        assert len(found) == min(count, len(allowed))
        assert len(set(found)) == len(found)
        assert set(found) <= allowed


def test_who_touched_everything_gets_nothing() -> None:
    items, drawn = draw(
        source_of([[0, 1, 2], [1]], [0, 1, 2]),
        np.array([0, 1], dtype=np.int32),
        np.array([7, 8]),
        count=5,
        seed=0,
    )
    assert drawn.tolist() == [0, 2]
    assert sorted(items[1, :2].tolist()) == [0, 2]


@pytest.mark.parametrize("count", [2, 10])
def test_every_place_is_uniform_over_what_is_free(count: int) -> None:
    items = one_user(count=count)
    for column in range(count):
        assert p_value(places(items[:, column]), 15) > 1e-4


@pytest.mark.parametrize("count", [2, 10])
def test_pairs_within_a_row_are_uniform(count: int) -> None:
    one, other = places(one_user(count=count)[:, :2]).T
    cells = one * 14 + other - (other > one)
    assert p_value(cells, 15 * 14) > 1e-4


def test_neighbouring_events_and_seeds_are_independent() -> None:
    first = places(one_user(count=2)[:, 0])
    assert p_value(first[::2] * 15 + first[1::2], 225) > 1e-4
    other = places(one_user(count=2, seed=1)[:, 0])
    assert p_value(first * 15 + other, 225) > 1e-4


@pytest.mark.parametrize("count", [3, 12])
def test_the_seed_decides(count: int) -> None:
    assert np.array_equal(one_user(50, count=count, seed=4), one_user(50, count=count, seed=4))
    assert not np.array_equal(one_user(50, count=count, seed=4), one_user(50, count=count, seed=5))


@pytest.mark.parametrize("count", [3, 12])
def test_a_row_does_not_depend_on_the_others(count: int) -> None:
    random = np.random.default_rng(0)
    source = source_of([[0, 1], [5], [], [2, 3, 9]], list(range(20)))
    users, events = random.integers(0, 4, 60).astype(np.int32), random.permutation(900)[:60]
    items, drawn = draw(source, users, events, count=count, seed=3)
    for kept in (random.permutation(60), np.arange(60)[::7], np.array([41])):
        again, valid = draw(source, users[kept], events[kept], count=count, seed=3)
        assert np.array_equal(again, items[kept])
        assert np.array_equal(valid, drawn[kept])


def test_no_rows() -> None:
    items, drawn = draw(
        source_of([[0]], [0, 1]), np.empty(0, np.int32), np.empty(0, np.int64), count=4, seed=0
    )
    assert (items.shape, drawn.shape) == ((0, 4), (0,))


# ---- in proportion to popularity ----------------------------------------------------------------


def test_popular_items_are_drawn_as_often_as_they_are_popular() -> None:
    popularity = np.array([1, 0, 3, 6])
    source = Untouched.of(
        np.zeros(0, np.int32), np.zeros(0, np.int32), pool=np.arange(4, dtype=np.int32), n_users=1
    )
    rows = 20_000
    items, drawn = draw_popular(
        source, np.zeros(rows, np.int32), np.arange(rows), popularity=popularity, count=1, seed=0
    )
    assert (drawn == 1).all()
    shares = np.bincount(items[:, 0], minlength=4) / rows
    assert np.allclose(shares, popularity / 10, atol=0.015)
    assert shares[1] == 0


def test_popular_negatives_are_untouched_and_distinct() -> None:
    random = np.random.default_rng(0)
    users, items = random.integers(0, 20, 300).astype(np.int32), random.integers(0, 30, 300).astype(np.int32)
    pool = np.arange(0, 30, 2, dtype=np.int32)
    source = Untouched.of(users, items, pool=pool, n_users=20)
    popularity = random.integers(0, 50, len(pool))
    found, drawn = draw_popular(source, users, np.arange(300), popularity=popularity, count=5, seed=3)
    for row, user in enumerate(users):
        own = found[row, : drawn[row]].tolist()
        free = set(pool[popularity > 0]) - set(items[users == user])
        assert len(set(own)) == len(own)
        assert set(own) <= free
        assert drawn[row] == min(5, len(free))


def test_nothing_popular_draws_nothing() -> None:
    source = Untouched.of(
        np.zeros(1, np.int32), np.zeros(1, np.int32), pool=np.arange(2, dtype=np.int32), n_users=1
    )
    asked = source, np.zeros(3, np.int32), np.arange(3)
    for popularity in (np.array([0, 0]), np.array([7, 0])):  # none at all; only what the user touched
        assert not draw_popular(*asked, popularity=popularity, count=2, seed=0)[1].any()


def test_log_q_by_hand() -> None:
    """Chances 1/2 and 1/4, 1/4 of three items against 1/3; an unknown item has their mean by events."""
    found = log_q(np.array([4, 2, 0, 2]))
    known = np.log([1.5, 0.75, 0.75])
    np.testing.assert_allclose(found[[0, 1, 3]], known, rtol=1e-6)
    np.testing.assert_allclose(found[2], (known[0] * 4 + known[1] * 4) / 8, rtol=1e-6)


def test_logits_of_uniform_negatives_become_those_of_popular_ones() -> None:
    """Odds of a positive against negatives of chance q are p / q; with uniform ones they are p * items."""
    p, counts = np.array([0.5, 0.3, 0.2]), np.array([70, 20, 10])
    corrected = np.log(p * 3) - log_q(counts)
    np.testing.assert_allclose(corrected, np.log(p / (counts / 100)), rtol=1e-5)
