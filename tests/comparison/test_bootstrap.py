"""Means, intervals and Holm's correction by hand."""

import numpy as np
import pytest
from scipy.stats import norm

from qarm.comparison.bootstrap import UserBootstrap, holm
from qarm.recommender.metrics import UserAuc


def each(users: list[int], values: list[float], rows: list[int]) -> UserAuc:
    return UserAuc(np.array(users), np.array(values), np.array(rows))


def test_means_and_differences_by_hand() -> None:
    figures = {
        "a": [each([0, 1], [1.0, 0.5], [10, 30]), each([1, 2], [0.5, 0.9], [10, 10])],
        "b": [each([0, 1], [0.5, 0.5], [10, 30]), each([1, 2], [0.5, 0.5], [10, 10])],
    }
    plain, weighted = UserBootstrap(figures, weighted=False), UserBootstrap(figures, weighted=True)
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


def test_intervals_hold_what_they_should() -> None:
    """Of a mean of normal figures: 1.96 standard errors each way."""
    random = np.random.default_rng(0)
    gains = random.normal(0.02, 0.1, 800)
    base = random.uniform(0.3, 0.7, 800)
    ones = np.ones(800, dtype=int)
    judge = UserBootstrap(
        {"a": [UserAuc(np.arange(800), base + gains, ones)], "b": [UserAuc(np.arange(800), base, ones)]},
        weighted=True,
    )
    found = judge.difference("a", "b")
    error = gains.std(ddof=1) / np.sqrt(800)
    assert found.mean == pytest.approx(gains.mean())
    assert found.error == pytest.approx(error, rel=0.1)
    assert found.high - found.low == pytest.approx(2 * 1.96 * error, rel=0.1)
    assert found.p == pytest.approx(2 * norm.sf(found.mean / found.error))
    assert found.smallest_effect == pytest.approx(2.8 * error, rel=0.1)


def test_holm_by_hand() -> None:
    # .01 <= .05 / 4, .013 <= .05 / 3, .03 > .05 / 2: the third and all after it stand for nothing
    found = holm({"c": 0.03, "a": 0.01, "d": 0.04, "b": 0.013})
    assert found == {"a": True, "b": True, "c": False, "d": False}
