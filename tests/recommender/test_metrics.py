"""Metrics against scikit-learn, against loops over pairs, and on numbers computed by hand."""

from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import log_loss, roc_auc_score

from qarm.errors import InputError
from qarm.recommender.metrics import auc, calibration, gauc, grouped_auc, logloss, measure, prior_of, uauc

# user 0: 1 over 0, AUC 1. User 1: the positive ties one negative and is below the other, AUC 1/4.
# User 2 has positives only. User 3: 3 of 4 pairs in order, AUC 3/4.
USERS = np.array([0, 1, 2, 0, 1, 1, 2, 3, 3, 3, 3])
LABELS = np.array([1, 1, 1, 0, 0, 0, 1, 0, 1, 0, 1])
SCORES = np.array([0.9, 0.5, 0.1, 0.2, 0.5, 0.7, 0.8, 0.1, 0.2, 0.3, 0.4])


def pairs_auc(labels: Sequence[int], scores: Sequence[float]) -> float | None:
    """Share of (positive, negative) pairs in order, a tie counted half."""
    above = [s for s, y in zip(scores, labels, strict=True) if y]
    below = [s for s, y in zip(scores, labels, strict=True) if not y]
    wins = [(a > b) + 0.5 * (a == b) for a in above for b in below]
    return sum(wins) / len(wins) if wins else None


def test_figures_by_hand() -> None:
    each = grouped_auc(USERS, LABELS, SCORES)
    assert each.users.tolist() == [0, 1, 3]
    assert each.auc.tolist() == [1.0, 0.25, 0.75]
    assert each.impressions.tolist() == [2, 3, 4]
    assert uauc(USERS, LABELS, SCORES) == pytest.approx(2 / 3)
    assert gauc(USERS, LABELS, SCORES) == pytest.approx((2 * 1 + 3 * 0.25 + 4 * 0.75) / 9)


def test_measure_gathers_the_single_figures() -> None:
    found = measure(USERS, LABELS, SCORES)
    assert found.auc == pytest.approx(roc_auc_score(LABELS, SCORES))
    assert (found.uauc, found.gauc) == (uauc(USERS, LABELS, SCORES), gauc(USERS, LABELS, SCORES))
    assert found.logloss == logloss(LABELS, SCORES)
    assert (found.rows, found.users) == (11, 3)
    assert measure(USERS, LABELS, SCORES, logits=False).logloss is None


@given(st.lists(st.tuples(st.integers(0, 4), st.integers(0, 1), st.integers(-2, 2)), max_size=40))
def test_against_loops_over_pairs(rows: list[tuple[int, int, int]]) -> None:
    users, labels, scores = np.array(rows, dtype=np.int64).reshape(-1, 3).T
    assert auc(labels, scores) == pytest.approx(pairs_auc(labels, scores))
    each = {u: pairs_auc(labels[users == u], scores[users == u]) for u in sorted(set(users.tolist()))}
    kept = {u: (value, int((users == u).sum())) for u, value in each.items() if value is not None}
    found = grouped_auc(users, labels, scores)
    assert found.users.tolist() == list(kept)
    assert found.auc.tolist() == pytest.approx([value for value, _ in kept.values()])
    total = sum(rows for _, rows in kept.values())
    mean = sum(value for value, _ in kept.values()) / len(kept) if kept else None
    weighted = sum(value * rows for value, rows in kept.values()) / total if kept else None
    assert uauc(users, labels, scores) == pytest.approx(mean)
    assert gauc(users, labels, scores) == pytest.approx(weighted)


@pytest.mark.parametrize("distinct", [2, 50, 10**9])
def test_auc_with_and_without_ties_against_scikit_learn(distinct: int) -> None:
    random = np.random.default_rng(distinct)
    labels = random.random(50_000) < 0.03
    scores = (random.integers(0, distinct, 50_000) + labels).astype(np.float32)
    assert auc(labels, scores) == pytest.approx(roc_auc_score(labels, scores), abs=1e-12)


def test_logloss_against_scikit_learn() -> None:
    random = np.random.default_rng(0)
    labels, logits = random.integers(0, 2, 1000), random.normal(scale=4, size=1000)
    assert logloss(labels, logits) == pytest.approx(log_loss(labels, 1 / (1 + np.exp(-logits))), rel=1e-12)


def test_logloss_of_extreme_logits() -> None:
    assert logloss(np.array([1, 0]), np.zeros(2, np.float32)) == pytest.approx(np.log(2))
    assert logloss(np.array([1, 0]), np.array([1000.0, -1000.0])) == 0.0
    assert logloss(np.array([0, 1]), np.array([1000.0, -1000.0])) == 1000.0
    assert logloss(np.array([1, 0]), np.array([np.inf, -np.inf])) == 0.0
    assert logloss(np.array([1]), np.array([50.0])) == pytest.approx(np.exp(-50), rel=1e-9)


def test_only_the_order_of_scores_counts() -> None:
    before = grouped_auc(USERS, LABELS, SCORES)
    assert grouped_auc(USERS, LABELS, np.exp(7 * SCORES)).auc.tolist() == before.auc.tolist()
    assert grouped_auc(USERS, LABELS, -SCORES).auc.tolist() == (1 - before.auc).tolist()
    ends = np.where(SCORES > 0.6, np.inf, np.where(SCORES < 0.15, -np.inf, SCORES))
    assert auc(LABELS, ends) == pytest.approx(roc_auc_score(LABELS, np.clip(ends, -9, 9)))


def test_the_order_of_rows_does_not_count() -> None:
    for seed in range(5):
        order = np.random.default_rng(seed).permutation(len(USERS))
        shuffled = grouped_auc(USERS[order], LABELS[order], SCORES[order])
        assert shuffled.auc.tolist() == [1.0, 0.25, 0.75]
        assert auc(LABELS[order], SCORES[order]) == auc(LABELS, SCORES)


def test_users_may_be_strings() -> None:
    each = grouped_auc(np.array(["b", "a", "b", "a"]), np.array([1, 0, 0, 1]), np.array([2, 2, 1, 1]))
    assert (each.users.tolist(), each.auc.tolist()) == (["a", "b"], [0.0, 1.0])


@pytest.mark.parametrize("labels", [[], [1, 1], [0, 0]])
def test_one_label_has_no_auc(labels: list[int]) -> None:
    rows = np.array(labels, dtype=np.int8)
    found = measure(np.zeros(len(rows)), rows, np.arange(len(rows), dtype=np.float64))
    assert (found.auc, found.uauc, found.gauc, found.users) == (None, None, None, 0)
    assert found.rows == len(rows)
    assert (found.logloss is None) == (not labels)


def test_prior_by_hand() -> None:
    assert prior_of(np.array([1, 0, 0, 0, 0])) == pytest.approx(np.log(1.5 / 4.5))
    assert prior_of(np.array([1, 1])) == pytest.approx(np.log(2.5 / 0.5))
    assert prior_of(np.zeros(0, np.int8)) == 0.0


@pytest.mark.parametrize(
    ("users", "labels", "scores", "message"),
    [
        ([0], [1, 0], [0.1, 0.2], "got 1 users, 2 labels and 2 scores, need equal lengths"),
        ([0, 0], [1, 2], [0.1, 0.2], "got label 2, need 0 or 1"),
        ([0, 0], [1, np.nan], [0.1, 0.2], "got label nan, need 0 or 1"),
        ([0, 0], [1, 0], [np.nan, 0.2], "1 of 2 scores are NaN"),
    ],
)
def test_bad_rows_are_refused(
    users: list[int], labels: list[float], scores: list[float], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        grouped_auc(np.array(users), np.array(labels), np.array(scores))


def test_calibration_by_hand() -> None:
    logits = np.array([0.0, np.log(3.0), -np.log(3.0), 0.0])  # .5, .75, .25, .5: two of four expected
    assert calibration(np.array([1, 0, 0, 0]), logits) == pytest.approx(2.0)
    assert calibration(np.array([1, 1, 0, 0]), logits) == pytest.approx(1.0)
    assert calibration(np.zeros(4), logits) is None
