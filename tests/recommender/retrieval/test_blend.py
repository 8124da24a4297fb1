"""Blend: moments against dense scores, weights that validation wants, cold intercept within its cost."""

import numpy as np
import pytest

from qarm.recommender.retrieval.blend import Blend
from qarm.recommender.retrieval.blend_search import fit_blend
from qarm.recommender.retrieval.counting import ContentKnn, Popularity, item_knn
from qarm.recommender.retrieval.evaluation import first_items
from qarm.recommender.retrieval.histories import Histories

ITEMS = 30


@pytest.fixture(scope="module")
def histories() -> Histories:
    random = np.random.default_rng(0)
    return Histories.of([random.integers(0, ITEMS - 5, random.integers(2, 9)) for _ in range(70)])


@pytest.fixture(scope="module")
def blend(histories: Histories) -> Blend:
    vectors = np.random.default_rng(1).normal(size=(ITEMS, 6))
    parts = {
        "content-knn": ContentKnn.of(vectors),
        "item-knn": item_knn(histories, ITEMS),
        "popularity": Popularity.of(histories, ITEMS),
    }
    weights = {"content-knn": 1.0, "item-knn": 0.7, "popularity": 0.2}
    return Blend(parts, weights, histories.counts(ITEMS) == 0, intercept=0.4)


def by_hand(blend: Blend, histories: Histories) -> np.ndarray:
    total = np.zeros((len(histories), ITEMS))
    for name, weight in blend.weights.items():
        scores = blend.parts[name].scores(histories).astype(float)
        total += weight * (scores - scores.mean(1, keepdims=True)) / scores.std(1, keepdims=True)
    return total + 0.4 * blend.cold


def test_scores_are_the_weighted_sum_of_standardised_parts(blend: Blend, histories: Histories) -> None:
    some, every = histories.only(np.arange(9)), np.tile(np.arange(ITEMS), (9, 1))
    scores = blend.read(some)
    parts = scores.contributions(every)
    expected = by_hand(blend, some)
    np.testing.assert_allclose(scores.total(every, parts), expected, atol=1e-4)
    np.testing.assert_allclose(sum(parts.values()) + 0.4 * blend.cold, expected, atol=1e-4)
    apart = expected - blend.scores(some)
    np.testing.assert_allclose(apart, apart[:, :1].repeat(ITEMS, axis=1), atol=1e-4)  # a constant per user


class Counted:
    """A dense retriever that counts how often it is asked for queries."""

    def __init__(self, part: ContentKnn) -> None:
        self.part, self.candidates, self.calls = part, part.candidates, 0

    def queries(self, histories: Histories) -> np.ndarray:
        self.calls += 1
        return self.part.queries(histories)

    def support(self, history: np.ndarray, item: int) -> np.ndarray:
        return self.part.support(history, item)


def test_a_block_s_queries_are_computed_once(histories: Histories) -> None:
    part = Counted(ContentKnn.of(np.random.default_rng(1).normal(size=(ITEMS, 6))))
    scores = Blend({"part": part}, {"part": 1.0}, np.zeros(ITEMS, bool)).read(histories)
    items = np.tile([0, 1], (len(histories), 1))
    scores.catalogue()
    scores.total(items, scores.contributions(items))
    assert part.calls == 1


def test_the_search_gives_weight_to_what_is_right(histories: Histories) -> None:
    random = np.random.default_rng(3)
    vectors = np.eye(ITEMS)
    vectors[np.arange(ITEMS), (np.arange(ITEMS) + 1) % ITEMS] = 0.9  # each item is like the next
    targets = Histories.of([[(int(row[-1]) + 1) % ITEMS] for row in map(histories.__getitem__, range(70))])
    noise = ContentKnn.of(random.normal(size=(ITEMS, 5)))
    cold = np.zeros(ITEMS, bool)
    fitted = fit_blend(
        {"noise": noise, "right": ContentKnn.of(vectors, decay=0.1)}, histories, targets, cold=cold
    )
    assert fitted.weights["noise"] == 1.0
    assert fitted.weights["right"] >= 1.5


def test_the_cold_intercept_grows_with_what_it_may_cost(histories: Histories) -> None:
    vectors = np.random.default_rng(5).normal(size=(ITEMS, 8))
    parts = {"item-knn": item_knn(histories, ITEMS), "content-knn": ContentKnn.of(vectors)}
    cold = histories.counts(ITEMS) == 0
    scores = parts["item-knn"].scores(histories)
    scores[histories.owners(), histories.items] = -np.inf
    eighth = first_items(scores, 8)[:, -1]  # five cold items before it push it out of the first ten
    targets = Histories.of([[int(item), *[ITEMS - 1] * (user % 10 == 0)] for user, item in enumerate(eighth)])
    intercepts = [
        fit_blend(parts, histories, targets, cold=cold, cost=cost).intercept for cost in (0.0, 0.2, 0.6)
    ]
    assert intercepts == sorted(intercepts)
    assert intercepts[-1] > intercepts[0]
    nobody = fit_blend(parts, histories, targets, cold=np.zeros(ITEMS, bool))
    assert nobody.intercept == 0


def test_absent_items_compete_with_nobody_and_their_targets_do_not_count(histories: Histories) -> None:
    parts = {"content-knn": ContentKnn.of(np.random.default_rng(5).normal(size=(ITEMS, 8)))}
    cold = histories.counts(ITEMS) == 0
    absent = np.zeros(ITEMS, bool)
    absent[ITEMS - 4 :] = True  # all cold items but one
    scores = parts["content-knn"].scores(histories)
    scores[histories.owners(), histories.items] = -np.inf
    ninth = first_items(scores, 9)[:, -1]  # one cold item before it leaves it in the first ten, five do not
    targets = Histories.of([[int(item), *[ITEMS - 5] * (user % 10 == 0)] for user, item in enumerate(ninth)])
    with_all = fit_blend(parts, histories, targets, cold=cold, cost=0.0)
    without = fit_blend(parts, histories, targets, cold=cold, absent=absent, cost=0.0)
    assert without.intercept > with_all.intercept
    nobody = fit_blend(parts, histories, Histories.of([[ITEMS - 1]] * 70), cold=cold, absent=absent)
    assert nobody.intercept == 0
