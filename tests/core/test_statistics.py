"""Draws of users, percentile intervals, and SplitMix64 against its published outputs."""

import numba
import numpy as np
import pytest

from qarm.core.statistics import finite_interval, percentile_interval, splitmix64, user_draws

GAMMA = 0x9E3779B97F4A7C15
# The first outputs of Vigna's splitmix64.c for the seed 1234567.
OUTPUTS = [6457827717110365317, 3203168211198807973, 9817491932198370423, 4593380528125082431]


def test_draws_have_as_many_users_and_repeat_with_the_seed() -> None:
    first, again, other = ([*user_draws(5, 40, seed=seed)] for seed in (1, 1, 2))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)
    assert np.shape(first) == (40, 5)
    assert set(np.ravel(first)) == set(range(5))
    assert any(len(set(draw)) < 5 for draw in first)  # with replacement


def test_no_user_gives_no_draw() -> None:
    assert [*user_draws(0, 10, seed=0)] == []


def test_the_interval_leaves_out_a_fortieth_on_each_side() -> None:
    values = np.arange(41.0)[::-1]
    assert percentile_interval(values) == (1.0, 39.0)
    assert finite_interval(values) == [1.0, 39.0]


@pytest.mark.parametrize("values", [[], [1.0, np.nan], [np.inf, 0.0]])
def test_values_without_an_interval(values: list[float]) -> None:
    assert finite_interval(np.array(values)) is None


def test_splitmix64_gives_the_published_outputs() -> None:
    states = [(1234567 + step * GAMMA) % 2**64 for step in range(len(OUTPUTS))]
    assert splitmix64(np.array(states, dtype=np.uint64)).tolist() == OUTPUTS
    compiled = numba.njit(splitmix64)
    assert [int(compiled(np.uint64(state))) for state in states] == OUTPUTS
