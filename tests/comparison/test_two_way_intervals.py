"""Means, intervals and Holm's correction by hand."""

import numpy as np
import pytest
from scipy.stats import t

from qarm.comparison.two_way_intervals import TwoWayIntervals, holm
from qarm.recommender.metrics import UserAuc


def each(users: list[int], values: list[float], rows: list[int]) -> UserAuc:
    return UserAuc(np.array(users), np.array(values), np.array(rows))


def test_means_and_differences_by_hand() -> None:
    figures = {
        "a": [each([0, 1], [1.0, 0.5], [10, 30]), each([1, 2], [0.5, 0.9], [10, 10])],
        "b": [each([0, 1], [0.5, 0.5], [10, 30]), each([1, 2], [0.5, 0.5], [10, 10])],
    }
    plain, weighted = TwoWayIntervals(figures, weighted=False), TwoWayIntervals(figures, weighted=True)
    assert plain.mean("a") == pytest.approx((0.75 + 0.7) / 2)
    assert weighted.mean("a") == pytest.approx((25 / 40 + 0.7) / 2)
    assert plain.spread("a") == pytest.approx(0.05 / np.sqrt(2), rel=1e-6)
    found = plain.difference("a", "b")
    assert found.mean == pytest.approx((0.25 + 0.2) / 2)
    assert found.low <= found.mean <= found.high
    assert plain.difference("a", "a").mean == 0
    assert plain.difference("a", "a").p == 1
    half = plain.recovered("a", "b", "a")
    assert (half.mean, half.low, half.high) == (1, 1, 1)
    none = plain.recovered("b", "b", "a")
    assert (none.mean, none.low, none.high) == (0, 0, 0)


def test_intervals_hold_what_they_should() -> None:
    """Of a mean of normal figures: 1.96 standard errors each way."""
    random = np.random.default_rng(0)
    gains = random.normal(0.02, 0.1, 800)
    base = random.uniform(0.3, 0.7, 800)
    ones = np.ones(800, dtype=int)
    judge = TwoWayIntervals(
        {"a": [UserAuc(np.arange(800), base + gains, ones)], "b": [UserAuc(np.arange(800), base, ones)]},
        weighted=True,
    )
    found = judge.difference("a", "b")
    error = gains.std(ddof=1) / np.sqrt(800)
    assert found.mean == pytest.approx(gains.mean())
    assert found.error == pytest.approx(error, rel=0.1)
    assert found.high - found.low == pytest.approx(2 * 1.96 * error, rel=0.1)
    assert found.p == pytest.approx(2 * t.sf(found.mean / found.error, 799))
    assert found.smallest_effect == pytest.approx(2.8 * error, rel=0.1)


def test_the_variance_over_users_and_seeds_by_hand() -> None:
    """Gains of three users in two seeds: clusters of users, plus seeds, minus what both hold."""
    gains = np.array([[0.1, 0.2, 0.6], [0.3, 0.2, 1.0]])
    zero = each([0, 1, 2], [0.0, 0.0, 0.0], [1, 1, 1])
    figures = {"a": [each([0, 1, 2], row.tolist(), [1, 1, 1]) for row in gains], "b": [zero, zero]}
    found = TwoWayIntervals(figures, weighted=False).difference("a", "b")
    # seeds: means .3 and .5; users around them, averaged over seeds: -.2, -.2, .4
    of_users = 3 / 2 * (0.2**2 + 0.2**2 + 0.4**2) / 9
    of_seeds = 0.02 / 2
    # in each seed around those: 0, .1, -.1 and 0, -.1, .1
    crossed = 3 / 2 * 4 * 0.1**2 / 9 / 2
    variance = of_users + of_seeds - crossed
    assert found.mean == pytest.approx(0.4)
    assert found.error == pytest.approx(np.sqrt(variance))
    assert found.df == pytest.approx(variance**2 / (of_users**2 / 2 + of_seeds**2 / 1 + crossed**2 / 2))
    assert found.high - found.mean == pytest.approx(t.ppf(0.975, found.df) * found.error)
    assert found.p == pytest.approx(2 * t.sf(0.4 / found.error, found.df))
    assert found.smallest_effect == pytest.approx(
        (t.ppf(0.975, found.df) + t.ppf(0.8, found.df)) * found.error
    )
    wide = found.widened(0.01)
    assert wide.error == pytest.approx(np.sqrt(variance + 0.01))
    assert wide.high - wide.mean == pytest.approx(t.ppf(0.975, found.df) * wide.error)


@pytest.mark.parametrize("crossing", [0.0, 0.02, 0.05], ids=["none", "some", "most"])
@pytest.mark.parametrize("deviation", [0.0, 0.001, 0.002, 0.004])
def test_the_interval_covers_a_new_seed_and_new_users(deviation: float, crossing: float) -> None:
    """Of 2,000 simulated comparisons with 5 seeds 95 % hold the truth, within 1.5 points."""
    trials, users, seeds = 2000, 400, 5
    random = np.random.default_rng(4)
    own = random.normal(0.01, 0.03, (trials, 1, users))
    gains = own + random.normal(0, deviation, (trials, seeds, 1))
    gains += random.normal(0, crossing, (trials, seeds, users))
    ids, ones = np.arange(users), np.ones(users, dtype=int)
    figures = {f"{n}": [UserAuc(ids, row, ones) for row in gains[n]] for n in range(trials)}
    figures["base"] = [UserAuc(ids, np.zeros(users), ones)] * seeds
    judge = TwoWayIntervals(figures, weighted=True)
    found = [judge.difference(f"{n}", "base") for n in range(trials)]
    assert np.mean([each.low <= 0.01 <= each.high for each in found]) == pytest.approx(0.95, abs=0.015)
    assert np.mean([abs(each.mean - 0.01) < each.smallest_effect for each in found]) > 0.98


def test_holm_by_hand() -> None:
    # .01 <= .05 / 4, .013 <= .05 / 3, .03 > .05 / 2: the third and all after it stand for nothing
    found = holm({"c": 0.03, "a": 0.01, "d": 0.04, "b": 0.013})
    assert found == {"a": True, "b": True, "c": False, "d": False}
