"""Candidate index: the lists of a whole catalogue's scores, for a share that it states."""

import numpy as np
import pytest

from qarm.recommender.retrieval.blend import Blend
from qarm.recommender.retrieval.candidate_index import RECALL, CandidateIndex
from qarm.recommender.retrieval.counting import ContentKnn, Popularity, item_knn
from qarm.recommender.retrieval.evaluation import first_items
from qarm.recommender.retrieval.histories import Histories

ITEMS = 2000


@pytest.fixture(scope="module")
def histories() -> Histories:
    random = np.random.default_rng(0)
    return Histories.of([random.integers(0, ITEMS - 100, 8) for _ in range(300)])


@pytest.fixture(scope="module")
def blend(histories: Histories) -> Blend:
    random = np.random.default_rng(1)
    vectors = random.normal(size=(20, 16))[random.integers(0, 20, ITEMS)] + 0.5 * random.normal(
        size=(ITEMS, 16)
    )
    parts = {
        "content-knn": ContentKnn.of(vectors),
        "item-knn": item_knn(histories, ITEMS),
        "popularity": Popularity.of(histories, ITEMS),
    }
    cold = histories.counts(ITEMS) == 0
    return Blend(parts, {"content-knn": 1.0, "item-knn": 0.1, "popularity": 0.2}, cold, intercept=0.3)


def exact(blend: Blend, block: Histories, allowed: np.ndarray, masked: Histories, count: int) -> np.ndarray:
    scores = blend.scores(block)
    scores[:, ~allowed] = -np.inf
    scores[masked.owners(), masked.items] = -np.inf
    return first_items(scores, count)


@pytest.mark.parametrize("share", [1.0, 0.5, 0.01])  # of the items that may be recommended
@pytest.mark.parametrize("repeat", [False, True])
def test_its_lists_are_those_of_all_scores(
    blend: Blend, histories: Histories, share: float, repeat: bool
) -> None:
    index = CandidateIndex.of(blend, histories)
    block = histories.only(np.arange(20))
    masked = Histories.of([[]] * 20) if repeat else block
    allowed = np.random.default_rng(2).random(ITEMS) < share if share < 1 else np.ones(ITEMS, bool)
    found = index.best(blend.read(block), 20, 10, allowed, masked)
    expected = exact(blend, block, allowed, masked, 10)
    same = np.mean([len(np.intersect1d(a, b)) / 10 for a, b in zip(found, expected, strict=True)])
    assert same >= RECALL - 0.03
    if share == 0.01:  # few items are scored one by one
        assert np.array_equal(found, expected)


def test_the_recall_is_that_of_its_searches(blend: Blend, histories: Histories) -> None:
    index = CandidateIndex.of(blend, histories)
    assert RECALL <= index.recall <= 1
    queries = blend.read(histories).queries()
    expected = first_items(queries @ blend.candidates.T, 50)
    both = [len(np.intersect1d(a, b)) for a, b in zip(index.search(queries, 50), expected, strict=True)]
    assert np.sum(both) / expected.size == pytest.approx(index.recall, abs=0.02)


def test_new_items_are_candidates_and_short_lists_end_with_none(blend: Blend, histories: Histories) -> None:
    index = CandidateIndex.of(blend, histories)
    part = blend.parts["content-knn"]
    wide = Blend(
        {"content-knn": ContentKnn(np.concatenate([part.candidates, part.candidates[:1]]))},
        {"content-knn": 1.0},
        np.append(blend.cold, np.True_),
    )
    only = CandidateIndex.of(Blend({"content-knn": part}, {"content-knn": 1.0}, blend.cold), histories)
    block = Histories.of([[0]])
    found = only.best(wide.read(block), 1, 3, np.ones(ITEMS + 1, bool), block)
    assert found[0, 0] == ITEMS
    allowed = np.zeros(ITEMS, bool)
    allowed[[0, 5, 9]] = True
    assert sorted(index.best(blend.read(block), 1, 4, allowed, block)[0].tolist()) == [-1, -1, 5, 9]
