"""Ranks, recall, NDCG and Gini by hand and against scikit-learn."""

import numpy as np
from sklearn.metrics import ndcg_score

from qarm.recommender.retrieval.evaluation import (
    first_items,
    gini,
    masked_ranks,
    ndcg_of,
    rank_targets,
    recall_of,
)
from qarm.recommender.retrieval.histories import Histories

SCORES = np.array([[5.0, 4.0, 3.0, 2.0, 1.0], [1.0, 1.0, 1.0, 1.0, 1.0]], np.float32)


def scored(block: Histories) -> np.ndarray:
    table = np.zeros((len(block), 5), np.float32)
    table[:2] = SCORES
    return table


def test_masked_ranks_leave_the_history_out_and_unmasked_do_not() -> None:
    ranks = rank_targets(scored, Histories.of([[0, 1], [0]]), Histories.of([[3], [2, 4]]), top=2)
    assert ranks.unmasked.tolist() == [3, 2, 4]
    assert ranks.masked.tolist() == [1, 1, 3]
    assert ranks.top.tolist() == [[2, 3], [1, 2]]
    alone = masked_ranks(scored, Histories.of([[0, 1], [0]]), Histories.of([[3], [2, 4]]))
    assert alone.tolist() == ranks.masked.tolist()


def test_blocks_in_threads_keep_their_places() -> None:
    histories = Histories.of([[user % 7] for user in range(100)])
    targets = Histories.of([[(user % 7 + 1) % 7] * (user % 3 > 0) for user in range(100)])

    def scores(block: Histories) -> np.ndarray:
        last = block.items[block.offsets[1:] - 1]  # an item scores by its distance to the last
        return -((np.arange(7) - last[:, None]) % 7).astype(np.float32)

    ranks = rank_targets(scores, histories, targets, top=2)
    assert (ranks.masked == 0).all()
    assert (ranks.unmasked == 1).all()
    assert np.array_equal(ranks.top[:, 0], (np.arange(100) % 7 + 1) % 7)
    assert masked_ranks(scores, histories, targets).tolist() == ranks.masked.tolist()


def test_recall_and_ndcg_by_hand() -> None:
    ranks, offsets = np.array([0, 3, 1, 9]), np.array([0, 2, 2, 4])
    np.testing.assert_allclose(recall_of(ranks, offsets, 2), [0.5, np.nan, 0.5])
    np.testing.assert_allclose(recall_of(ranks, offsets, 1), [1.0, np.nan, 0.0])
    ideal = 1 + 1 / np.log2(3)
    np.testing.assert_allclose(ndcg_of(ranks, offsets, 2), [1 / ideal, np.nan, (1 / np.log2(3)) / ideal])


def test_ndcg_equals_scikit_learn() -> None:
    random = np.random.default_rng(0)
    scores = random.permutation(40)[None].astype(np.float32)
    wanted = random.choice(40, 6, replace=False)
    order = np.argsort(-scores[0]).argsort()
    found = ndcg_of(order[wanted], np.array([0, 6]), 10)
    truth = np.zeros((1, 40))
    truth[0, wanted] = 1
    np.testing.assert_allclose(found, ndcg_score(truth, scores, k=10))


def test_first_items_are_those_of_a_stable_sort() -> None:
    random = np.random.default_rng(2)
    scores = random.integers(0, 4, (30, 25)).astype(np.float32)
    expected = np.argsort(-scores, axis=1, kind="stable")
    assert np.array_equal(first_items(scores, 7), expected[:, :7])
    assert np.array_equal(first_items(scores, 99), expected)


def test_gini_of_equal_and_single_items() -> None:
    assert gini(np.array([2, 2, 2, 2])) == 0
    assert gini(np.array([0, 0, 0, 8])) == 0.75
    assert gini(np.zeros(3, np.int64)) == 0
