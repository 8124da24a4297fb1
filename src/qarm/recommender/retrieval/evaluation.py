"""Ranking figures over the whole catalogue: recall and NDCG, masked and unmasked, coverage and Gini."""

import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from qarm.core.parallel.engine import run_in_threads
from qarm.core.parallel.numba_jit import compiled
from qarm.recommender.retrieval.histories import Histories

__all__ = [
    "CUTS",
    "Ranks",
    "first_items",
    "first_reachable",
    "gini",
    "masked_ranks",
    "mean_ndcg",
    "ndcg_of",
    "rank_rows",
    "rank_scores",
    "rank_targets",
    "recall_of",
]

CUTS = (5, 10, 50, 200)
Floats = npt.NDArray[np.float64]
Score = Callable[[Histories], npt.NDArray[np.float32]]


@compiled()
def _count_above(
    scores: npt.NDArray[np.floating[Any]],
    first: npt.NDArray[np.int64],
    targets: npt.NDArray[np.int64],
    offsets: npt.NDArray[np.int64],
    ranks: npt.NDArray[np.int64],
) -> None:
    """Number of the user's rows with a higher score than each target's, or an equal one and a smaller row."""
    for user in range(len(first) - 1):
        for place in range(offsets[user], offsets[user + 1]):
            target, above = targets[place], 0
            score = scores[target]
            for row in range(first[user], first[user + 1]):
                above += scores[row] > score or (scores[row] == score and row < target)
            ranks[place] = above


def rank_rows(
    scores: npt.NDArray[np.floating[Any]],
    first: npt.NDArray[np.int64],
    targets: npt.NDArray[np.int64],
    offsets: npt.NDArray[np.int64],
) -> npt.NDArray[np.int64]:
    """Rank of each target among its user's rows of scores, from 0; of equal scores the smaller row first.

    Args:
        scores: float [m], user u's in first[u]:first[u + 1].
        targets: rows of `scores`, user u's in offsets[u]:offsets[u + 1].
    """
    ranks = np.empty(len(targets), np.int64)
    _count_above(scores, first, targets, offsets, ranks)
    return ranks


def rank_scores(scores: npt.NDArray[np.float32], targets: Histories) -> npt.NDArray[np.int64]:
    """Rank of each user's targets in a row of scores, from 0; of equal scores the smaller row comes first.

    Args:
        scores: float32 [users, items]; targets: of the same users.
    """
    users, items = scores.shape
    rows = targets.owners() * items + targets.items
    return rank_rows(scores.ravel(), np.arange(users + 1) * items, rows, targets.offsets)


@dataclass(frozen=True)
class Ranks:
    """Ranks of users' targets among all items, from 0, and the first items of each user's list.

    masked, unmasked: int64 [m], with and without the user's own history left out; offsets: int64 [users + 1],
    of each user's targets; top: int32 [users, k], first items of the masked lists, -1 where there are fewer.
    """

    targets: npt.NDArray[np.int32]
    offsets: npt.NDArray[np.int64]
    masked: npt.NDArray[np.int64]
    unmasked: npt.NDArray[np.int64]
    top: npt.NDArray[np.int32]


def rank_targets(score: Score, histories: Histories, targets: Histories, *, top: int = 10) -> Ranks:
    """Ranks of each user's targets by the scores of a retriever; the masked list leaves the history out.

    A target that the user has had keeps its score in the masked list, as it is what is asked for. Blocks of
    users are scored side by side in threads.

    Args:
        score: of a block of histories, float32 [users, items].
        histories, targets: of the same users; top: length of the lists.
    """
    masked, unmasked = (np.empty(len(targets.items), np.int64) for _ in range(2))
    lists = np.full((len(histories), top), -1, np.int32)

    def rank(_: None, part: tuple[npt.NDArray[np.int64], Histories]) -> None:
        users, block = part
        scores, wanted, places = _scored(score, part, targets)
        unmasked[places] = rank_scores(scores, wanted)
        kept = _mask(scores, block, wanted)
        lists[users] = first_reachable(scores, top)
        scores[wanted.owners(), wanted.items] = kept
        masked[places] = rank_scores(scores, wanted)

    list(run_in_threads(rank, list(histories.blocks()), shared=None, workers=os.cpu_count() or 1))
    return Ranks(targets.items, targets.offsets, masked, unmasked, lists)


def masked_ranks(score: Score, histories: Histories, targets: Histories) -> npt.NDArray[np.int64]:
    """Ranks of each user's targets in the masked lists, as of `rank_targets`, int64 [m]."""
    ranks = np.empty(len(targets.items), np.int64)

    def rank(_: None, part: tuple[npt.NDArray[np.int64], Histories]) -> None:
        scores, wanted, places = _scored(score, part, targets)
        scores[wanted.owners(), wanted.items] = _mask(scores, part[1], wanted)
        ranks[places] = rank_scores(scores, wanted)

    list(run_in_threads(rank, list(histories.blocks()), shared=None, workers=os.cpu_count() or 1))
    return ranks


def _scored(
    score: Score, part: tuple[npt.NDArray[np.int64], Histories], targets: Histories
) -> tuple[npt.NDArray[np.float32], Histories, slice]:
    """Scores of a block of users, their targets, and where these stand among all targets."""
    users, block = part
    places = slice(int(targets.offsets[users[0]]), int(targets.offsets[users[-1] + 1]))
    return score(block)[: len(users)], targets.only(users), places


def _mask(
    scores: npt.NDArray[np.float32], histories: Histories, targets: Histories
) -> npt.NDArray[np.float32]:
    """Scores of the targets [m], before those of the histories are set to -inf."""
    kept = scores[targets.owners(), targets.items]
    scores[histories.owners(), histories.items] = -np.inf
    return kept


def first_reachable(scores: npt.NDArray[np.float32], count: int) -> npt.NDArray[np.int32]:
    """The `count` best items of each row, -1 beyond those with a finite score."""
    rows = first_items(scores, count)
    found = np.full((len(scores), count), -1, np.int32)
    reachable = np.take_along_axis(scores, rows, axis=1) > -np.inf
    found[:, : rows.shape[1]] = np.where(reachable, rows, -1)
    return found


def first_items(scores: npt.NDArray[np.float32], count: int) -> npt.NDArray[np.int64]:
    """Columns of the highest scores of each row, best first; of equal ones the smaller column, [n, count]."""
    count = min(count, scores.shape[1])
    kth = np.partition(scores, scores.shape[1] - count, axis=1)[:, scores.shape[1] - count]
    rows = np.empty((len(scores), count), np.int64)
    for user in range(len(scores)):
        near = np.flatnonzero(scores[user] >= kth[user])
        rows[user] = near[np.argsort(-scores[user, near], kind="stable")[:count]]
    return rows


def recall_of(ranks: npt.NDArray[np.int64], offsets: npt.NDArray[np.int64], cut: int) -> Floats:
    """Recall at `cut` of each user, of at most `cut` targets; NaN without a target, float64 [users]."""
    return _per_user((ranks < cut).astype(float), offsets) / _ideal(offsets, np.ones(cut))


def ndcg_of(ranks: npt.NDArray[np.int64], offsets: npt.NDArray[np.int64], cut: int) -> Floats:
    """NDCG at `cut` of each user (Järvelin and Kekäläinen, TOIS 2002); NaN without one, [users]."""
    gains = np.where(ranks < cut, 1 / np.log2(ranks + 2.0), 0.0)
    return _per_user(gains, offsets) / _ideal(offsets, 1 / np.log2(np.arange(cut) + 2.0))


def _per_user(values: Floats, offsets: npt.NDArray[np.int64]) -> Floats:
    sums = np.concatenate([[0.0], np.cumsum(values)])
    found: Floats = sums[offsets[1:]] - sums[offsets[:-1]]
    return found


def _ideal(offsets: npt.NDArray[np.int64], gains: Floats) -> Floats:
    """The most that a user can reach; NaN without a target."""
    reached = np.concatenate([[np.nan], np.cumsum(gains)])
    found: Floats = reached[np.minimum(np.diff(offsets), len(gains))]
    return found


def mean_ndcg(score: Score, histories: Histories, targets: Histories, *, cut: int = 10) -> float:
    """Mean NDCG of the masked lists over the users with a target; 0 without one."""
    if not targets.lengths.any():
        return 0.0
    return float(np.nanmean(ndcg_of(masked_ranks(score, histories, targets), targets.offsets, cut)))


def gini(counts: npt.NDArray[np.int64]) -> float:
    """Gini coefficient of recommendations per item: 0 all alike, 1 all on one item."""
    ranked, total = np.sort(counts), int(counts.sum())
    if not total:
        return 0.0
    weights = 2 * np.arange(1, len(ranked) + 1) - len(ranked) - 1
    return float((weights * ranked).sum() / (len(ranked) * total))
