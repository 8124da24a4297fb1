"""Ranking metrics, exact under ties: AUC, its mean over users, and logloss."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from qarm.errors import InputError

__all__ = [
    "Metrics",
    "UserAuc",
    "auc",
    "calibration",
    "gauc",
    "grouped_auc",
    "logloss",
    "measure",
    "prior_of",
    "uauc",
]

Array = npt.NDArray[np.generic]


@dataclass(frozen=True)
class UserAuc:
    """AUC of every user who has both labels.

    users: [k], ascending; auc: float64 [k]; impressions: int64 [k], rows of that user.
    """

    users: npt.NDArray[np.generic]
    auc: npt.NDArray[np.float64]
    impressions: npt.NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.users)


@dataclass(frozen=True)
class Metrics:
    """Figures of one slice; None where the slice has one label only (or is empty).

    auc: over all rows; uauc: mean of per-user AUC; gauc: the same, weighted by the user's rows;
    logloss: nats per row; rows: rows in the slice; users: users with both labels, whom uauc and gauc keep.
    """

    auc: float | None
    uauc: float | None
    gauc: float | None
    logloss: float | None
    rows: int
    users: int


def grouped_auc(users: Array, labels: Array, scores: Array) -> UserAuc:
    """AUC per user by the rank-sum formula, ties counted half; one lexsort, integer arithmetic.

    Args:
        users: [n], any sortable type; labels: [n], 1 or 0; scores: [n], higher means likelier.

    Raises:
        InputError: lengths differ, a label is not 0 or 1, or a score is NaN.
    """
    positive = _checked(labels, scores, users)
    order = np.lexsort((scores, users))
    return _rank_sums(users[order], positive[order], scores[order])


def auc(labels: Array, scores: Array) -> float | None:
    """Probability that a positive outranks a negative, ties counted half; None with one label only.

    Raises:
        InputError: lengths differ, a label is not 0 or 1, or a score is NaN.
    """
    positive = _checked(labels, scores, labels)
    order = np.argsort(scores, kind="stable")
    one = _rank_sums(np.zeros(len(order), np.int8), positive[order], scores[order])
    return float(one.auc[0]) if len(one) else None


def uauc(users: Array, labels: Array, scores: Array) -> float | None:
    """Mean of per-user AUC over users with both labels (QARM, section 4); None without such users."""
    return _mean(grouped_auc(users, labels, scores))


def gauc(users: Array, labels: Array, scores: Array) -> float | None:
    """Per-user AUC weighted by the user's rows (QARM, section 4); None without users of both labels."""
    return _weighted(grouped_auc(users, labels, scores))


def logloss(labels: Array, logits: Array) -> float | None:
    """Mean negative log-likelihood in nats of labels under sigmoid(logits); None for no rows.

    Raises:
        InputError: lengths differ, a label is not 0 or 1, or a logit is NaN.
    """
    positive = _checked(labels, logits, labels)
    if len(positive) == 0:
        return None
    z = logits.astype(np.float64)
    return float(np.mean(np.logaddexp(0.0, np.where(positive, -z, z))))


def calibration(labels: Array, logits: Array) -> float | None:
    """Mean of sigmoid(logits) over the mean label, 1 at best; None without a positive.

    Raises:
        InputError: lengths differ, a label is not 0 or 1, or a logit is NaN.
    """
    positive = _checked(labels, logits, labels)
    if not positive.any():
        return None
    return float(np.mean(0.5 * (1 + np.tanh(logits.astype(np.float64) / 2))) / positive.mean())


def measure(users: Array, labels: Array, scores: Array, *, logits: bool = True) -> Metrics:
    """All metrics of one slice.

    Args:
        users, labels, scores: as in `grouped_auc`.
        logits: False for scores that are not log-odds; their logloss is None.

    Raises:
        InputError: as in `grouped_auc`.
    """
    each = grouped_auc(users, labels, scores)
    return Metrics(
        auc=auc(labels, scores),
        uauc=_mean(each),
        gauc=_weighted(each),
        logloss=logloss(labels, scores) if logits else None,
        rows=len(labels),
        users=len(each),
    )


def prior_of(labels: Array) -> float:
    """Log-odds of a positive among rows; one half is added to both counts, so that it is finite."""
    positives = int(np.count_nonzero(labels))
    return float(np.log((positives + 0.5) / (len(labels) - positives + 0.5)))


def _mean(each: UserAuc) -> float | None:
    return float(each.auc.mean()) if len(each) else None


def _weighted(each: UserAuc) -> float | None:
    return float(np.average(each.auc, weights=each.impressions)) if len(each) else None


def _checked(labels: Array, scores: Array, users: Array) -> npt.NDArray[np.bool_]:
    lengths = {len(labels), len(scores), len(users)}
    if len(lengths) > 1:
        raise InputError(
            f"got {len(users)} users, {len(labels)} labels and {len(scores)} scores, need equal lengths"
        )
    positive = labels.astype(bool)
    if not np.array_equal(positive, labels):
        wrong = labels[positive != labels][0]
        raise InputError(f"got label {wrong}, need 0 or 1; map the labels first")
    missing = int(np.isnan(scores.astype(np.float64, copy=False)).sum())
    if missing:
        raise InputError(f"{missing} of {len(scores)} scores are NaN; look for NaN in the features")
    return positive


def _rank_sums(users: Array, positive: npt.NDArray[np.bool_], scores: Array) -> UserAuc:
    """Per-user AUC of rows sorted by (user, score).

    Twice the mean rank of a block of ties is an integer, so that sums stay exact:
    2 P N AUC = sum over positives of twice their rank - P (P + 1), ranks counted from the user's start.
    """
    rows = len(users)
    if rows == 0:
        return UserAuc(users, np.empty(0), np.empty(0, np.int64))
    user_changes = users[1:] != users[:-1]
    first = np.flatnonzero(np.concatenate([[True], user_changes | (scores[1:] != scores[:-1])]))
    ends = np.append(first[1:], rows)
    hits = np.add.reduceat(positive, first, dtype=np.int64)
    double_ranks = hits * (first + ends + 1)
    start = np.flatnonzero(np.concatenate([[True], user_changes]))
    blocks = np.searchsorted(first, start)
    impressions = np.diff(np.append(start, rows))
    p = np.add.reduceat(hits, blocks)
    n = impressions - p
    twice = np.add.reduceat(double_ranks, blocks) - 2 * start * p - p * (p + 1)
    both = (p > 0) & (n > 0)
    return UserAuc(users[start][both], twice[both] / (2.0 * p[both] * n[both]), impressions[both])
