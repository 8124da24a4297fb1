"""Influence of rows on GAUC, and the variance that items add, against resampling."""

from typing import NamedTuple

import numpy as np
import pytest

from qarm.comparison.item_clusters import ItemClusters, row_influence
from qarm.recommender.metrics import gauc


class Rows(NamedTuple):
    users: np.ndarray
    items: np.ndarray
    labels: np.ndarray
    scores: np.ndarray


def drawn(random: np.random.Generator, items: int = 60, users: int = 80, each: int = 20) -> Rows:
    """Scores of a method that is good on some items and bad on others."""
    owner = np.repeat(np.arange(users), each)
    item = random.integers(0, items, len(owner)).astype(np.int32)
    label = (random.random(len(owner)) < 0.4).astype(np.int8)
    skill = np.random.default_rng(1).normal(0.0, 1.5, items)
    score = (skill[item] * (label - 0.4) + random.normal(size=len(owner))).astype(np.float32)
    return Rows(owner, item, label, score)


def test_influence_is_what_one_more_copy_of_a_row_changes() -> None:
    rows = drawn(np.random.default_rng(0), users=6)
    scores = np.round(rows.scores, 0)  # with ties
    whole, copies = gauc(rows.users, rows.labels, scores), 0.02
    found = row_influence(rows.users, rows.labels, scores)
    for row in range(0, len(scores), 13):
        # 50 copies of all rows, and one more of this one: a fiftieth of a row more
        at = np.concatenate([np.repeat(np.arange(len(scores)), 50), [row]])
        more = gauc(rows.users[at], rows.labels[at], scores[at])
        assert (more - whole) / copies == pytest.approx(found[row], abs=3e-4)
    assert found.sum() == pytest.approx(0.0, abs=1e-12)


def test_users_with_one_label_have_no_influence() -> None:
    labels = np.array([1, 1, 0, 1])
    found = row_influence(np.array([0, 0, 1, 1]), labels, np.array([0.1, 0.2, 0.3, 0.4]))
    np.testing.assert_array_equal(found, np.zeros(4))
    assert row_influence(np.empty(0, int), np.empty(0, int), np.empty(0)).shape == (0,)


def test_items_add_what_drawing_them_anew_adds() -> None:
    """A method whose skill depends on the item, against chance: the spread over sets of items."""
    rows = drawn(np.random.default_rng(2))
    chance = rows._replace(scores=np.zeros(len(rows.scores), np.float32))
    clusters = ItemClusters({"a": [rows], "b": [chance]})
    random, figures = np.random.default_rng(3), []
    for _ in range(400):
        counts = np.bincount(random.integers(0, 60, 60), minlength=60)
        at = np.repeat(np.arange(len(rows.items)), counts[rows.items])
        figures.append(gauc(rows.users[at], rows.labels[at], rows.scores[at]))
    influence = row_influence(rows.users, rows.labels, rows.scores)
    cells = np.bincount(rows.users * 60 + rows.items, influence)
    drawn_anew = np.var(figures) - cells @ cells
    assert clusters.added("a", "b") == pytest.approx(drawn_anew, rel=0.25)
    assert clusters.added("a", "a") == 0.0
