"""Planted truth: its moments, its streams that do not touch, and settings that make no world."""

from dataclasses import replace

import numpy as np
import pytest

from qarm.demo.ground_truth import DIMS, GROUPS, SOURCES, GroundTruth, WorldSpec, centres, draw_ground_truth
from qarm.errors import InputError

SPEC = WorldSpec(items=4000, users=500)


@pytest.fixture(scope="module")
def truth() -> GroundTruth:
    return draw_ground_truth(SPEC, seed=3)


def test_factors_have_mean_zero_and_deviation_one(truth: GroundTruth) -> None:
    assert truth.factors.shape == (len(SOURCES), 4000, DIMS)
    assert np.abs(truth.factors.mean(axis=1)).max() < 0.06
    assert np.abs(truth.factors.std(axis=1) - 1).max() < 0.05
    # around the centre of its group, with the spread that was asked for
    apart = truth.factors[0] - np.sqrt(DIMS * (1 - SPEC.jitter**2)) * centres()[truth.groups[0]]
    assert apart.std() == pytest.approx(SPEC.jitter, rel=0.03)
    assert np.bincount(truth.groups[0], minlength=GROUPS).min() > 400


def test_every_user_leans_equally_far(truth: GroundTruth) -> None:
    assert np.linalg.norm(truth.tastes, axis=2) == pytest.approx(np.full((len(SOURCES), 500), SPEC.strength))
    utilities = truth.factors[0] @ truth.tastes[0].T
    assert utilities.std(axis=0).mean() == pytest.approx(SPEC.strength, rel=0.05)


def test_likes_of_groups_spread_equally_far() -> None:
    truth = draw_ground_truth(replace(SPEC, tastes="groups"), seed=3)
    assert truth.by_group
    assert truth.tastes.shape == (len(SOURCES), 500, GROUPS)
    assert truth.tastes.mean(axis=2) == pytest.approx(np.zeros((len(SOURCES), 500)), abs=1e-12)
    assert truth.tastes.std(axis=2) == pytest.approx(np.full((len(SOURCES), 500), SPEC.strength))
    liked = (truth.tastes > 0).sum(axis=2)
    assert set(np.unique(liked)) == {1, 2, 3}


def test_cold_items_are_the_share_that_was_asked_for(truth: GroundTruth) -> None:
    assert truth.cold.sum() == 400 == SPEC.items - SPEC.warm
    other = draw_ground_truth(replace(SPEC, cold=0.25), seed=3)
    assert other.cold.sum() == 1000


@pytest.mark.parametrize(
    ("change", "same"),
    [
        ({"strength": 0.1}, ("factors", "groups", "popularity", "cold")),
        ({"popularity": 0.9}, ("factors", "groups", "tastes", "cold")),
        ({"cold": 0.3}, ("factors", "groups", "tastes", "popularity")),
        ({"tastes": "groups"}, ("factors", "groups", "popularity", "cold")),
        ({"users": 60}, ("factors", "groups", "popularity", "cold")),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, dict) else "",
)
def test_a_setting_changes_its_own_draws_alone(
    truth: GroundTruth, change: dict[str, object], same: tuple[str, ...]
) -> None:
    other = draw_ground_truth(replace(SPEC, **change), seed=3)  # type: ignore[arg-type]
    for name in same:
        assert getattr(other, name).tobytes() == getattr(truth, name).tobytes()
    rest = {"factors", "groups", "popularity", "cold", "tastes"} - set(same)
    assert any(getattr(other, name).tobytes() != getattr(truth, name).tobytes() for name in rest)


def test_seeds_differ_and_repeat(truth: GroundTruth) -> None:
    again, other = draw_ground_truth(SPEC, seed=3), draw_ground_truth(SPEC, seed=4)
    for name in ("factors", "tastes", "popularity", "cold", "groups"):
        assert getattr(again, name).tobytes() == getattr(truth, name).tobytes()
        assert getattr(other, name).tobytes() != getattr(truth, name).tobytes()


def test_every_setting_that_makes_no_world_is_named_at_once() -> None:
    wrong = WorldSpec(items=5, users=0, events_per_user=1, cold=1.0, jitter=0.0, strength=-1.0, tastes="x")  # type: ignore[arg-type]
    with pytest.raises(InputError) as told:
        wrong.check()
    for part in (
        "items = 5, need at least 20",
        "users = 0, need at least 1",
        "events_per_user = 1, need at least 4",
        "cold = 1.0, need a share between 0 and 1",
        "jitter = 0.0",
        "strength = -1.0, need 0 or more",
        "tastes = 'x', need one of directions, groups",
    ):
        assert part in str(told.value)
    with pytest.raises(InputError, match=r"events_per_user = 60, need at most a third of the 90 items"):
        draw_ground_truth(WorldSpec(items=100), seed=0)
    with pytest.raises(InputError, match=r"users x events_per_user = 6,000,000, need at most 4,000,000"):
        draw_ground_truth(WorldSpec(users=100_000), seed=0)
    with pytest.raises(InputError, match="seed = -1, need 0 or more"):
        draw_ground_truth(SPEC, seed=-1)
