"""Bootstrap over users and its percentile intervals, and the SplitMix64 hash behind seeded samples."""

from collections.abc import Iterator
from typing import TypeVar

import numpy as np
import numpy.typing as npt

__all__ = ["finite_interval", "percentile_interval", "splitmix64", "user_draws"]

Word = TypeVar("Word", np.uint64, npt.NDArray[np.uint64])
Floats = npt.NDArray[np.float64]


def user_draws(users: int, draws: int, *, seed: int) -> Iterator[npt.NDArray[np.int64]]:
    """Draws of as many users as there are, with replacement (Efron 1979), int64 [users] each.

    One draw at a time, where scipy.stats.bootstrap holds all of them; none without a user.
    """
    random = np.random.default_rng(seed)
    for _ in range(draws if users else 0):
        yield random.integers(0, users, users)


def percentile_interval(values: Floats) -> tuple[float, float]:
    """Interval of 95 %: the 2.5 and 97.5 percentiles of one value or more."""
    low, high = np.percentile(values, [2.5, 97.5])
    return float(low), float(high)


def finite_interval(values: Floats) -> list[float] | None:
    """Interval of 95 %, [low, high]; None without a value, or where one is not finite."""
    if not len(values) or not np.isfinite(values).all():
        return None
    return [*percentile_interval(values)]


def splitmix64(words: Word) -> Word:
    """SplitMix64's output for a state, or for each of an array (Steele, Lea and Flood 2014).

    Plain arithmetic of 64-bit words, so that numba compiles it too.
    """
    words = words + np.uint64(0x9E3779B97F4A7C15)
    words = (words ^ (words >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    words = (words ^ (words >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return words ^ (words >> np.uint64(31))
