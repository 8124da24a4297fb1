"""Search of a blend's weights and cold intercept on validation, over the candidates of all retrievers."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from qarm.recommender.retrieval.blend import Blend, DenseRetriever, SparseRetriever
from qarm.recommender.retrieval.evaluation import first_items, ndcg_of, rank_rows, recall_of
from qarm.recommender.retrieval.histories import Histories

__all__ = ["fit_blend"]

Floats = npt.NDArray[np.float64]
WEIGHTS = (0.0, 0.02, 0.05, 0.1, 0.15, 0.2, 0.3, 0.4, 0.6, 0.8, 1.0, 1.5, 2.0, 3.0, 5.0)  # that are tried
HIGHEST = 10.0  # intercept of cold items that is tried, in deviations of the blend
HALVINGS = 12  # of the search for it
ROUNDS = 4  # of the search, each over all parts
CANDIDATES = 100  # of each retriever, for each user
USERS = 4000  # of validation, whose lists the search reads
TOP = 10


@dataclass(frozen=True)
class _Candidates:
    """Candidates of validation users: what each part gives them, and which are targets.

    values: float64 [m, parts], user u's candidates in first[u]:first[u + 1]; cold: bool [m]; targets: rows of
    `values`, user u's in offsets[u]:offsets[u + 1].
    """

    values: Floats
    cold: npt.NDArray[np.bool_]
    first: npt.NDArray[np.int64]
    targets: npt.NDArray[np.int64]
    offsets: npt.NDArray[np.int64]

    def ranks(self, weights: Floats, intercept: float = 0.0) -> npt.NDArray[np.int64]:
        """Rank of each target among its user's candidates, from 0; of equal scores the smaller row first."""
        scores = self.values @ weights + intercept * self.cold
        return rank_rows(scores, self.first, self.targets, self.offsets)

    def ndcg(self, weights: Floats) -> float:
        """Mean NDCG at 10."""
        return float(np.nanmean(ndcg_of(self.ranks(weights), self.offsets, TOP)))

    def recall(self, ranks: npt.NDArray[np.int64], *, cold: bool = False) -> float:
        """Mean recall at 10, of all targets or of the cold ones."""
        kept = self.cold[self.targets] if cold else np.ones(len(ranks), bool)
        offsets = np.concatenate([[0], np.cumsum(kept)])[self.offsets]
        return float(np.nanmean(recall_of(ranks[kept], offsets, TOP)))


def fit_blend(
    parts: Mapping[str, DenseRetriever | SparseRetriever],
    histories: Histories,
    targets: Histories,
    *,
    cold: npt.NDArray[np.bool_],
    absent: npt.NDArray[np.bool_] | None = None,
    cost: float = 0.01,
    seed: int = 0,
) -> Blend:
    """Blend whose weights reach the highest NDCG at 10 on validation, by coordinate ascent over a grid.

    The cold intercept is the largest that costs at most a share `cost` of the overall recall at 10; 0 where
    validation has no cold target. Targets in the history are left out.

    Args:
        parts: retrievers by name, the strongest model first; its weight is 1.
        histories, targets: of the same users, validation; cold: bool [items].
        absent: bool [items], items that are no candidates and whose targets do not count.
        seed: of the sample of 4,000 users.
    """
    single = Blend(parts, dict.fromkeys(parts, 1.0), cold)
    asked = np.flatnonzero(targets.lengths)
    asked = np.sort(np.random.default_rng([seed, 31]).permutation(asked)[:USERS])
    weights, intercept = np.eye(len(parts))[0], 0.0
    if len(asked):
        candidates = _candidates(single, histories.only(asked), targets.only(asked), absent)
        if len(candidates.targets):
            weights = _ascent(candidates, weights)
            intercept = _cold_intercept(candidates, weights, cost)
    return Blend(parts, dict(zip(parts, weights.tolist(), strict=True)), cold, intercept)


def _candidates(
    blend: Blend, histories: Histories, targets: Histories, absent: npt.NDArray[np.bool_] | None
) -> _Candidates:
    """The first items of each part's masked list, and the targets that are not in the history or absent."""
    values, owners, rows, flags = [], [], [], []
    singles = [Blend(blend.parts, {name: 1.0}, blend.cold) for name in blend.parts]
    for users, block in histories.blocks():
        tables = np.stack([part.scores(block)[: len(users)] for part in singles])
        wanted = targets.only(users)
        seen, asked = (np.zeros(tables.shape[1:], bool) for _ in range(2))
        seen[block.owners(), block.items] = True
        if absent is not None:
            seen[:, absent] = True
        asked[wanted.owners(), wanted.items] = True
        chosen = asked.copy()
        for table in tables:
            for part in (seen, seen | ~blend.cold) if blend.cold.any() else (seen,):
                best = first_items(np.where(part, -np.inf, table), CANDIDATES)
                np.put_along_axis(chosen, best, values=True, axis=1)
        owner, items = np.nonzero(chosen & ~seen)
        values.append(tables[:, owner, items].T)
        owners.append(users[owner])
        rows.append(items)
        flags.append(asked[owner, items])
    owner, target = np.concatenate(owners), np.concatenate(flags)
    return _Candidates(
        np.concatenate(values).astype(np.float64),
        blend.cold[np.concatenate(rows)],
        np.searchsorted(owner, np.arange(len(histories) + 1)),
        np.flatnonzero(target),
        np.searchsorted(owner[target], np.arange(len(histories) + 1)),
    )


def _ascent(candidates: _Candidates, weights: Floats) -> Floats:
    best = candidates.ndcg(weights)
    for _ in range(ROUNDS):
        before = best
        for part in range(1, len(weights)):
            for weight in WEIGHTS:
                trial = weights.copy()
                trial[part] = weight
                if (reached := candidates.ndcg(trial)) > best:
                    best, weights = reached, trial
        if best == before:
            break
    return weights


def _cold_intercept(candidates: _Candidates, weights: Floats, cost: float) -> float:
    """The largest intercept that keeps the recall; a larger one brings more cold items into the lists."""
    if not candidates.cold[candidates.targets].any():
        return 0.0
    least = (1 - cost) * candidates.recall(candidates.ranks(weights))
    low, high = 0.0, HIGHEST * float(np.abs(weights).sum())
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        kept = candidates.recall(candidates.ranks(weights, middle)) >= least
        low, high = (middle, high) if kept else (low, middle)
    return low
