"""Rows of the whole catalogue, and Recall and NDCG by hand and against scikit-learn."""

from collections.abc import Callable

import numpy as np
import pytest
from sklearn.metrics import ndcg_score

from qarm.data.interactions import Log
from qarm.recommender.examples import Examples
from qarm.recommender.ranking.full_catalogue import catalogue_rows, top_figures

ITEMS = list("abcde")


def test_every_unseen_item_is_a_row(make_log: Callable[..., Log]) -> None:
    past = make_log([("u", "a", 1), ("u", "b", 2, 0), ("v", "c", 1), ("w", "a", 1)])
    future = make_log([("u", "c", 5), ("u", "a", 6), ("u", "e", 7, 0), ("v", "c", 9), ("x", "d", 9)], first=4)
    rows = catalogue_rows([past], future, item_ids=ITEMS, trained_items=["a", "b", "c"], users=9)
    found = {
        rows.user_ids[rows.users[first]]: [
            (rows.item_ids[rows.items[i]], rows.labels[i], rows.cold[i]) for i in range(first, last)
        ]
        for first, last in zip(rows.groups()[:-1], rows.groups()[1:], strict=True)
    }
    # v comes back to what was seen, w has no future; b was seen without being liked
    assert found == {
        "u": [("c", 1, False), ("d", 0, True), ("e", 0, True)],
        "x": [("a", 0, False), ("b", 0, False), ("c", 0, False), ("d", 1, True), ("e", 0, True)],
    }
    first = int(np.flatnonzero(rows.users == rows.user_ids.index("u"))[0])
    assert [rows.item_ids[i] for i in rows.history[rows.start[first] : rows.end[first]]] == ["a"]


def test_some_users_are_drawn(make_log: Callable[..., Log]) -> None:
    past = make_log([(f"u{n}", "a", 1) for n in range(20)])
    future = make_log([(f"u{n}", "b", 2) for n in range(20)], first=20)
    asked = {"item_ids": ITEMS, "trained_items": ITEMS}
    some = catalogue_rows([past], future, **asked, users=5, seed=1)
    assert len(np.unique(some.users)) == 5
    assert len(some) == 5 * 4
    again = catalogue_rows([past], future, **asked, users=5, seed=1)
    assert np.array_equal(some.users, again.users)


def test_figures_by_hand(make_examples: Callable[..., Examples]) -> None:
    labels = [0, 1, 0, 1, 0, 0, 0, 0, 0, 0, 0, 1]
    rows = make_examples([(list(range(12)), labels, [0])], items=12, cold=[3, 11])
    scores = np.arange(12)[::-1].astype(float)  # positives stand second, fourth and twelfth
    recall, ndcg, cold_recall, cold_ndcg = top_figures(rows, scores)[0]
    assert recall == pytest.approx(2 / 3)
    best = 1 + 1 / np.log2(3) + 1 / np.log2(4)
    assert ndcg == pytest.approx((1 / np.log2(3) + 1 / np.log2(5)) / best)
    assert cold_recall == pytest.approx(1 / 2)
    assert cold_ndcg == pytest.approx(1 / np.log2(5) / (1 + 1 / np.log2(3)))


def test_ndcg_is_that_of_scikit_learn(make_examples: Callable[..., Examples]) -> None:
    random = np.random.default_rng(0)
    events = [(list(range(30)), random.integers(0, 2, 30).tolist(), [1]) for _ in range(8)]
    rows = make_examples(events, items=30)
    scores = random.permutation(len(rows)).astype(float)
    found = top_figures(rows, scores)
    for user, (_, labels, _) in enumerate(events):
        own = scores[30 * user : 30 * user + 30]
        assert found[user, 1] == pytest.approx(ndcg_score([labels], [own], k=10))
        best = np.argsort(-own)[:10]
        assert found[user, 0] == pytest.approx(np.take(labels, best).sum() / min(10, sum(labels)))
    assert np.isnan(found[:, 2:]).all()  # no cold item
