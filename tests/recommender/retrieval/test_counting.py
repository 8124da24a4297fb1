"""Counting retrievers by hand, a planted chain, and EASE against scikit-learn."""

import numpy as np
from sklearn.linear_model import Ridge

from qarm.recommender.retrieval.counting import ContentKnn, Ease, Popularity, item_knn, sequential_knn
from qarm.recommender.retrieval.histories import Histories


def test_popularity_is_log_of_one_plus_events() -> None:
    scores = Popularity.of(Histories.of([[0, 0], [1]]), 3).scores(Histories.of([[2], []]))
    np.testing.assert_allclose(scores, np.log([[3, 2, 1], [3, 2, 1]]), rtol=1e-6)


def test_item_knn_is_the_cosine_of_sets_of_users() -> None:
    # users of 0: {a, b, c}; of 1: {a, b}; of 2: {c}
    histories = Histories.of([[0, 1], [1, 0, 0], [0, 2]])
    scores = item_knn(histories, 3).scores(Histories.of([[0], [1, 2]]))
    np.testing.assert_allclose(scores[0], [0, 2 / np.sqrt(6), 1 / np.sqrt(3)], rtol=1e-6)
    np.testing.assert_allclose(scores[1], [2 / np.sqrt(6) + 1 / np.sqrt(3), 0, 0], rtol=1e-6)


def test_sequential_knn_by_hand() -> None:
    # 0 -> 1 at gap 1, 0 -> 2 at gap 2, 1 -> 2 at gap 1; counts: 0 twice, 1 once, 2 once
    histories = Histories.of([[0, 1, 2], [0]])
    part = sequential_knn(histories, 3, source_power=1.0, target_power=0.0, decay=0.5)
    np.testing.assert_allclose(part.table.toarray(), [[0, 1 / 2, 1 / 4], [0, 0, 1], [0, 0, 0]], rtol=1e-6)
    np.testing.assert_allclose(part.scores(Histories.of([[0, 1]])), [[0, 0.25, 0.125 + 1]], rtol=1e-6)
    np.testing.assert_allclose(part.support(np.array([0, 1], np.int32), 2), [0.125, 1], rtol=1e-6)


def test_sequential_knn_finds_a_planted_chain_and_its_direction() -> None:
    random = np.random.default_rng(0)
    walks = [[(start + step) % 20 for step in range(6)] for start in random.integers(0, 20, 200)]
    scores = sequential_knn(Histories.of(walks), 20).scores(Histories.of([[item] for item in range(20)]))
    assert scores.argmax(axis=1).tolist() == [(item + 1) % 20 for item in range(20)]


def test_content_knn_scores_by_cosine_with_the_decayed_mean() -> None:
    vectors = np.array([[2.0, 0.0], [0.0, 3.0], [1.0, 1.0], [0.0, 0.0]])
    part = ContentKnn.of(vectors, decay=0.5)
    query = np.array([0.5, 1.0]) / np.sqrt(1.25)
    expected = [query[0], query[1], query.sum() / np.sqrt(2), 0]
    np.testing.assert_allclose(part.scores(Histories.of([[0, 1], []])), [expected, [0] * 4], rtol=1e-6)


def test_ease_is_a_ridge_regression_of_each_item_on_the_others() -> None:
    random = np.random.default_rng(1)
    table = (random.random((60, 8)) < 0.4).astype(float)
    histories = Histories.of([np.flatnonzero(row) for row in table])
    weights = Ease.of(histories, 8, regularization=5.0).weights
    for item in range(8):
        others = [other for other in range(8) if other != item]
        expected = Ridge(alpha=5.0, fit_intercept=False).fit(table[:, others], table[:, item]).coef_
        np.testing.assert_allclose(weights[others, item], expected, rtol=1e-4, atol=1e-6)
        assert weights[item, item] == 0
