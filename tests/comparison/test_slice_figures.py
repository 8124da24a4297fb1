"""Figures of a slice, and the anchors that are ahead of a variant on it."""

import numpy as np
import pytest

from qarm.comparison.slice_figures import Rows, SliceFigures
from qarm.recommender.metrics import gauc


def rows_of(skill: float, seed: int, users: int = 60) -> Rows:
    """Twenty rows of each user, scored by their label with some skill."""
    random = np.random.default_rng(0)
    owner, labels = np.repeat(np.arange(users), 20), np.tile([1, 0, 0, 1], users * 5)
    noise = np.random.default_rng([seed, int(100 * skill)]).normal(size=len(owner))
    items = random.integers(0, 30, len(owner)).astype(np.int32)
    return Rows(owner, items, labels, (skill * labels + noise).astype(np.float32))


def test_an_anchor_is_ahead_of_the_base_and_of_the_best_variant() -> None:
    skills = {"id": 0.3, "id+rq+vq": 1.0, "EASE": 0.7, "like-rate": 2.0, "popularity": 0.0}
    rows = {name: [rows_of(skill, seed) for seed in range(3)] for name, skill in skills.items()}
    figures = SliceFigures("labels", "warm", rows, items=True)
    ahead = figures.anchors_ahead(["id", "id+rq+vq"], ["EASE", "like-rate", "popularity"], "id")
    assert [(gain.method, gain.against) for gain in ahead] == [
        ("EASE", "id"),
        ("like-rate", "id"),
        ("like-rate", "id+rq+vq"),
    ]
    means = {mean.method: mean for mean in figures.means()}
    expected = np.mean([gauc(each.users, each.labels, each.scores) for each in rows["id"]])
    assert means["id"].gauc == pytest.approx(expected)
    assert means["EASE"].logloss is None  # its scores are no logits
    gain = figures.difference("id+rq+vq", "id")
    assert gain.mean == pytest.approx(means["id+rq+vq"].gauc - means["id"].gauc)
    assert gain.item_low <= gain.low < gain.high <= gain.item_high
    narrow = SliceFigures("labels", "L1", rows, items=False).difference("id+rq+vq", "id")
    assert (narrow.low, narrow.item_low) == (gain.low, None)


def test_a_slice_without_both_labels_has_no_figures() -> None:
    rows = rows_of(1.0, 0)
    one = rows._replace(labels=np.ones(len(rows.labels), dtype=int))
    figures = SliceFigures("labels", "cold", {"id": [one]}, items=True)
    assert (figures.means(), figures.gains(["id"]), figures.anchors_ahead(["id"], [], "id")) == ([], [], [])
