"""Lift on later behaviour: by hand, against brute force, and what popularity alone is worth."""

from collections import Counter
from collections.abc import Callable
from itertools import combinations
from typing import Any

import numpy as np
import polars as pl
import pytest

from qarm.data.interactions import Log
from qarm.pairs import lift as module
from qarm.pairs.lift import pair_lift

MakeLog = Callable[..., Log]


def table(*ends: str) -> pl.DataFrame:
    return pl.DataFrame([tuple(pair) for pair in ends], schema=["trigger_id", "target_id"], orient="row")


@pytest.fixture(scope="module")
def log(make_log: MakeLog) -> Log:
    clicks = {"u": "aabc", "v": "ad", "w": "d", "x": "e"}
    return make_log([(user, item, time) for user, items in clicks.items() for time, item in enumerate(items)])


@pytest.fixture(scope="module")
def future(make_log: MakeLog) -> Log:
    later = {"u": "abn", "v": "abc", "w": "aac", "x": "e"}
    return make_log([(user, item, 9) for user, items in later.items() for item in items] + [("y", "b", 9, 0)])


def test_five_items_by_hand(log: Log, future: Log) -> None:
    # Pairs of known items that later users have: ab; ab, ac, bc; ac. In all 5, over the 10 pairs of 5 items.
    found = pair_lift(table("ab", "ac", "ba"), log, future).content()
    assert found["users_per_pair"] == (2 + 2) / 2
    assert found["users_per_random_pair"] == pytest.approx(5 / 10)
    assert found["lift"] == pytest.approx(4.0)
    assert found["users_per_matched_pair"] == pytest.approx(5 / 10)  # five items are one group
    assert found["matched_lift"] == pytest.approx(4.0)


def test_popularity_groups_join_the_rarer_neighbour_until_they_are_large() -> None:
    users = np.array([1] * 12 + [2, 3] * 6 + [4] * 3 + [8] * 8 + [100])
    assert module._groups(users).tolist() == [0] * 12 + [1] * 12 + [2] * 12
    assert module._groups(np.array([1, 5, 9])).tolist() == [0, 0, 0]


def test_matched_pairs_are_those_of_the_same_two_groups(make_log: MakeLog) -> None:
    """Against the definition, pair by pair: 12 items of one user, 12 of two, 12 of four."""
    names = [f"{4 ** (n // 12)}-{n:02}" for n in range(36)]
    log = make_log([(u, name, 0) for name in names for u in range(int(name[0]) if name[1] == "-" else 16)])
    rng = np.random.default_rng(0)
    held = [rng.choice(names, size=6, replace=False) for _ in range(30)]
    future = make_log([(u, item, 1) for u, items in enumerate(held) for item in items])
    mined = [(a, b) for a, b in combinations(names, 2) if rng.random() < 0.1]
    users: Counter[Any] = Counter(pair for items in held for pair in combinations(sorted(items), 2))
    groups = {name: n // 12 for n, name in enumerate(names)}
    cells: dict[Any, list[int]] = {}
    for pair in combinations(sorted(names), 2):
        cells.setdefault(tuple(sorted(groups[end] for end in pair)), []).append(users[pair])
    wanted = [np.mean(cells[tuple(sorted((groups[a], groups[b])))]) for a, b in mined]
    found = pair_lift(
        pl.DataFrame(mined, schema=["trigger_id", "target_id"], orient="row"), log, future
    ).content()
    assert found["users_per_pair"] == pytest.approx(np.mean([users[tuple(sorted(p))] for p in mined]))
    assert found["users_per_random_pair"] == pytest.approx(30 * 15 / (36 * 35 / 2))
    assert found["users_per_matched_pair"] == pytest.approx(np.mean(wanted))


def test_pairs_of_popular_items_gain_nothing_over_matched_ones(make_log: MakeLog) -> None:
    """Independent choices: popular items meet by chance alone."""
    rng = np.random.default_rng(1)
    chances = np.repeat([0.5, 0.1], [12, 48])

    def clicks(time: int, users: int) -> list[tuple[int, str, int]]:
        taken = rng.random((users, 60)) < chances
        return [(int(u), f"{i:02}", time) for u, i in zip(*taken.nonzero(), strict=True)]

    log, future = make_log(clicks(0, 200)), make_log(clicks(1, 400))
    top = pl.DataFrame(
        list(combinations([f"{i:02}" for i in range(12)], 2)),
        schema=["trigger_id", "target_id"],
        orient="row",
    )
    found = pair_lift(top, log, future).content()
    assert found["lift_interval"][0] > 5.0
    low, high = found["matched_lift_interval"]
    assert low <= found["matched_lift"] <= high
    assert low < 1.05
    assert high > 0.95


def test_intervals_are_of_users_seeded_and_optional(log: Log, make_log: MakeLog) -> None:
    held = {"u": "ab", "v": "abc", "w": "ac"}
    future = make_log([(user, item, 9) for user, items in held.items() for item in items])
    one, again, other = (pair_lift(table("ab"), log, future, seed=seed).content() for seed in (0, 0, 1))
    assert one == again
    assert pair_lift(table("ab"), log, future, resamples=0).content()["lift_interval"] is None
    assert other["lift"] == one["lift"]
    # Draws of three of the three: u has ab and 1 pair, v ab and 3, w not ab and 1; 10 pairs of 5 items.
    rng = np.random.default_rng(0)
    draws = np.array([rng.integers(0, 3, 3) for _ in range(1000)])
    ratios = np.array([1, 1, 0])[draws].sum(axis=1) / np.array([1, 3, 1])[draws].sum(axis=1) * 10
    assert one["lift_interval"] == pytest.approx(np.percentile(ratios, [2.5, 97.5]).tolist())


def test_bootstrap_agrees_with_the_formula_for_a_ratio(make_log: MakeLog) -> None:
    """Many users: the interval is that of the delta method for a ratio of two means."""
    rng = np.random.default_rng(2)
    items = [f"{n}" for n in range(8)]
    log = make_log([(0, item, 0) for item in items])
    held = [rng.choice(items, size=rng.integers(1, 8), replace=False) for _ in range(600)]
    future = make_log([(u, item, 1) for u, row in enumerate(held) for item in row])
    found = pair_lift(table("01", "23"), log, future, resamples=2000).content()
    mined = np.array([({"0", "1"} <= set(row)) + ({"2", "3"} <= set(row)) for row in held]) / 2
    random = np.array([len(row) * (len(row) - 1) / 2 for row in held]) / 28
    ratio = mined.mean() / random.mean()
    error = (mined - ratio * random).std() / random.mean() / np.sqrt(len(held))
    assert found["lift"] == pytest.approx(ratio)
    assert found["lift_interval"] == pytest.approx([ratio - 1.96 * error, ratio + 1.96 * error], rel=0.02)


def test_no_later_pair_is_no_lift(log: Log, make_log: MakeLog) -> None:
    nothing = {
        "users_per_pair": 0.0,
        "users_per_random_pair": 0.0,
        "users_per_matched_pair": 0.0,
        "lift": None,
        "lift_interval": None,
        "matched_lift": None,
        "matched_lift_interval": None,
    }
    assert pair_lift(table("ab"), log, make_log([("u", "a", 9), ("v", "n", 9)])).content() == nothing
    assert pair_lift(table("ab"), log, make_log([("u", "n", 9)])).content() == nothing
