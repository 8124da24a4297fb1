"""Hit rates by hand, and intervals against a loop that draws users one by one."""

import numpy as np
import pytest

from qarm.encoder.evaluation.hit_rates import hit_rates

USERS = np.array([0, 0, 1, 2, 2, 2])
PLACES = {"raw": np.array([0, 9, 5, 1, 9, 9]), "aligned": np.array([0, 1, 5, 1, 0, 9])}
SLICES = {"all": np.ones(6, bool), "cold": np.array([0, 1, 0, 0, 1, 0], bool), "none": np.zeros(6, bool)}
CUTOFFS = {"1": 1, "2": 2, "6": 6}


def test_rates_by_hand() -> None:
    judged = hit_rates(PLACES, USERS, slices=SLICES, cutoffs=CUTOFFS, draws=0)
    rates = {(row.method, row.slice): row.hit_rate for row in judged.table()}
    assert rates["raw", "all"] == pytest.approx({"1": 1 / 6, "2": 2 / 6, "6": 3 / 6})
    assert rates["aligned", "all"] == pytest.approx({"1": 2 / 6, "2": 4 / 6, "6": 5 / 6})
    assert rates["aligned", "cold"] == pytest.approx({"1": 1 / 2, "2": 1.0, "6": 1.0})
    assert rates["raw", "none"] == {"1": None, "2": None, "6": None}
    assert judged.clicks.tolist() == [6, 2, 0]
    assert judged.users.tolist() == [3, 2, 0]
    rows = {(row.slice, row.cutoff): row for row in judged.differences("aligned", "raw")}
    assert rows["all", "2"].difference == pytest.approx(1 / 3)
    assert rows["all", "2"].ratio == pytest.approx(2.0)
    assert rows["cold", "2"].ratio is None
    assert rows["all", "2"].ratio_interval is None


def test_intervals_are_those_of_a_loop_over_the_same_draws() -> None:
    random = np.random.default_rng(0)
    users = np.sort(random.integers(0, 30, size=200))
    places = {name: random.integers(0, high, size=200) for name, high in (("raw", 40), ("aligned", 20))}
    judged = hit_rates(places, users, slices={"all": np.ones(200, bool)}, cutoffs={"5": 5}, draws=120, seed=4)
    found = next(judged.differences("aligned", "raw"))
    again = np.random.default_rng(4)
    differences, ratios = [], []
    for _ in range(120):
        drawn = np.concatenate([np.flatnonzero(users == user) for user in again.integers(0, 30, 30)])
        own, base = ((places[name][drawn] < 5).mean() for name in ("aligned", "raw"))
        differences.append(own - base)
        ratios.append(own / base)
    assert found.difference_interval == pytest.approx(np.percentile(differences, [2.5, 97.5]))
    assert found.ratio_interval == pytest.approx(np.percentile(ratios, [2.5, 97.5]))
    assert found.difference_interval[0] < found.difference < found.difference_interval[1]


def test_equal_methods_differ_by_nothing_in_every_draw() -> None:
    same = {"raw": PLACES["raw"], "aligned": PLACES["raw"].copy()}
    judged = hit_rates(same, USERS, slices={"all": SLICES["all"]}, cutoffs={"6": 6}, draws=50)
    row = next(judged.differences("aligned", "raw"))
    assert (row.difference_interval, row.ratio_interval) == ([0.0, 0.0], [1.0, 1.0])
