"""Click simulation: utilities by hand, the law of the choices, cold items, and the calendar."""

from dataclasses import replace

import numpy as np
import pytest
from scipy.stats import chisquare

from qarm.demo import click_simulation
from qarm.demo.click_simulation import DAYS_AFTER, DAYS_BEFORE, SPLIT_TIME, Events, choose, utilities
from qarm.demo.ground_truth import GroundTruth, WorldSpec, draw_ground_truth

DAY = 86_400
SPEC = WorldSpec(items=300, users=120, events_per_user=24)


@pytest.fixture(scope="module", params=["directions", "groups"])
def world(request: pytest.FixtureRequest) -> tuple[WorldSpec, GroundTruth, Events]:
    spec = replace(SPEC, tastes=request.param)
    truth = draw_ground_truth(spec, seed=1)
    return spec, truth, choose(spec, truth, seed=1)


def test_utilities_are_tastes_times_factors(world: tuple[WorldSpec, GroundTruth, Events]) -> None:
    spec, truth, _ = world
    users = np.array([5, 0, 7])
    if truth.by_group:
        parts = sum(truth.tastes[k][users][:, truth.groups[k]] for k in range(4))
    else:
        parts = np.einsum("kud,kid->ui", truth.tastes[:, users], truth.factors)
    assert utilities(truth, users) == pytest.approx(truth.popularity + parts, abs=1e-5)
    assert utilities(truth, slice(0, spec.users)).shape == (spec.users, spec.items)


def test_nobody_chooses_twice_and_nothing_cold_before_the_split(
    world: tuple[WorldSpec, GroundTruth, Events],
) -> None:
    _, truth, events = world
    assert len(set(zip(events.user.tolist(), events.item.tolist(), strict=True))) == len(events)
    assert not truth.cold[events.item[: events.before]].any()
    assert truth.cold[events.item[events.before :]].mean() > 0.03


def test_times_rise_and_the_split_cuts_at_seventy_percent(
    world: tuple[WorldSpec, GroundTruth, Events],
) -> None:
    *_, events = world
    assert (np.diff(events.time) > 0).all()
    assert events.before == round(0.7 * len(events))
    assert events.time[events.before - 1] < SPLIT_TIME <= events.time[events.before]
    assert events.time[0] >= SPLIT_TIME - DAYS_BEFORE * DAY
    assert events.time[-1] < SPLIT_TIME + DAYS_AFTER * DAY
    hours = np.bincount(events.time // 3600 % 24, minlength=24)
    assert hours[19:22].mean() > 4 * hours[1:6].mean()  # quiet nights, a busy evening


def test_activity_is_near_its_mean(world: tuple[WorldSpec, GroundTruth, Events]) -> None:
    spec, _, events = world
    counts = np.bincount(events.user, minlength=spec.users)
    assert counts.mean() == pytest.approx(spec.events_per_user, rel=0.1)
    assert counts.min() >= 0.4 * spec.events_per_user - 1
    assert counts.max() <= 2.5 * spec.events_per_user


def test_choices_follow_the_exponential_of_the_utility() -> None:
    """The first of 20,000 races by the softmax of the utilities, the second by that of what is left."""
    utility = np.log(np.array([1, 2, 3, 4, 10], dtype=np.float32))
    many = np.tile(utility, (20_000, 1))
    one, two = np.ones(20_000, dtype=np.int64), np.full(20_000, 2)
    chosen = click_simulation._race(many, np.zeros(5, bool), one, two, np.random.default_rng(0))
    first, second = chosen.reshape(-1, 2).T
    shares = np.array([1, 2, 3, 4, 10]) / 20
    assert chisquare(np.bincount(first, minlength=5), shares * 20_000).pvalue > 0.001
    after = np.array(
        [sum(shares[a] * shares[b] / (1 - shares[a]) for a in range(5) if a != b) for b in range(5)]
    )
    assert after.sum() == pytest.approx(1)
    assert chisquare(np.bincount(second, minlength=5), after * 20_000).pvalue > 0.001
    assert (first != second).all()


def test_the_fastest_are_the_smallest() -> None:
    clocks = np.random.default_rng(2).random((30, 50)).astype(np.float32)
    expected = np.argsort(clocks, axis=1)[:, :7]
    assert click_simulation._fastest(clocks, 7).tolist() == expected.tolist()
    assert click_simulation._fastest(clocks, 0).shape == (30, 0)


def test_chunks_of_users_have_streams_of_their_own(monkeypatch: pytest.MonkeyPatch) -> None:
    truth = draw_ground_truth(SPEC, seed=1)
    whole = choose(SPEC, truth, seed=1)
    assert choose(SPEC, truth, seed=1).item.tobytes() == whole.item.tobytes()
    assert choose(SPEC, truth, seed=2).item.tobytes() != whole.item.tobytes()
    fewer = replace(SPEC, users=40)
    few = choose(fewer, replace(truth, tastes=truth.tastes[:, :40]), seed=1)
    assert (np.diff(few.time) > 0).all()
    assert set(few.user) == set(range(40))
