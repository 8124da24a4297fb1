"""Anchors of the retrieval tables: popularity of late, and the EASE that validation prefers."""

import numpy as np
import pytest

from qarm.recommender.retrieval import anchors as module
from qarm.recommender.retrieval.anchors import anchors, best_ease
from qarm.recommender.retrieval.counting import Ease
from qarm.recommender.retrieval.evaluation import mean_ndcg
from qarm.recommender.retrieval.fitting import Validation
from qarm.recommender.retrieval.histories import Histories

ITEMS = 12
RECENT = np.arange(ITEMS)


@pytest.fixture(scope="module")
def train() -> Histories:
    random = np.random.default_rng(0)
    return Histories.of([random.permutation(ITEMS)[:5] // 2 * 2 for _ in range(40)])


@pytest.fixture(scope="module")
def validation(train: Histories) -> Validation:
    targets = Histories.of([[int(row[0] + 2) % ITEMS] for row in map(train.__getitem__, range(len(train)))])
    return Validation(train, targets, train.counts(ITEMS) == 0)


def test_popularity_of_late_ranks_by_recent_events(train: Histories, validation: Validation) -> None:
    scores = anchors(train, RECENT, validation, seed=0)["popularity of late"](train.only(np.arange(2)))
    assert np.array_equal(scores.argsort(axis=1), np.tile(RECENT, (2, 1)))


def test_the_ease_is_the_one_that_validation_prefers(train: Histories, validation: Validation) -> None:
    def reached(ease: Ease) -> float:
        return mean_ndcg(ease.scores, validation.histories, validation.targets)

    every = [Ease.of(train, ITEMS, regularization=amount) for amount in module.REGULARIZATIONS]
    assert reached(best_ease(train, validation, seed=0)) == max(map(reached, every))


def test_a_large_catalogue_has_no_ease(
    train: Histories, validation: Validation, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "ease" in anchors(train, RECENT, validation, seed=0)
    monkeypatch.setattr(module, "EASE_ITEMS", ITEMS - 1)
    assert "ease" not in anchors(train, RECENT, validation, seed=0)
