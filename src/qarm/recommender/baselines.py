"""Rankers that learn nothing: popularity, and the likeness of a candidate's content to the history."""

import numpy as np
import numpy.typing as npt

from qarm.artifacts import Embeddings
from qarm.errors import InputError, shown
from qarm.recommender.batches import Batch, batches
from qarm.recommender.examples import Examples
from qarm.recommender.metrics import auc

__all__ = ["KINDS", "best_likeness", "likeness", "popularity"]

KINDS = ("mean", "top3")
Scores = npt.NDArray[np.float32]


def popularity(train: Examples, examples: Examples) -> npt.NDArray[np.int64]:
    """Training positives of each candidate, int64 [n]; both with one vocabulary."""
    counts = np.bincount(train.items[train.labels == 1], minlength=len(train.item_ids))
    return counts[examples.items]


def likeness(vectors: Embeddings, examples: Examples, *, kind: str = "mean") -> Scores:
    """Content-kNN: cosines between the candidate's vector and those of the history, float32 [n].

    kind: "mean" of all of them, or of the three largest ("top3"); an empty history scores 0.

    Raises:
        InputError: an unknown kind, items without a vector, or vectors that are not finite.
    """
    if kind not in KINDS:
        raise InputError(f"got kind {kind!r}, need one of {', '.join(KINDS)}")
    unit = _unit(vectors, examples.item_ids)
    scores = np.zeros(len(examples), dtype=np.float32)
    for batch in batches(examples, 2048):
        found = (_mean if kind == "mean" else _top3)(unit, batch)
        real = batch.real.numpy()
        scores[batch.rows[real]] = found[real]
    return scores


def best_likeness(vectors: Embeddings, valid: Examples) -> str:
    """The kind with the higher AUC on validation; "mean" where there is nothing to choose by."""
    reached = {kind: auc(valid.labels, likeness(vectors, valid, kind=kind)) or 0.0 for kind in KINDS}
    return max(KINDS, key=lambda kind: reached[kind])


def _mean(unit: Scores, batch: Batch) -> Scores:
    seen = batch.seen.numpy()
    total = np.einsum("gtd,gt->gd", unit[batch.history.numpy()], seen.astype(np.float32))
    mean = total / np.maximum(seen.sum(axis=1), 1)[:, None]
    scores: Scores = np.matmul(unit[batch.items.numpy()], mean[:, :, None])[..., 0]
    return scores


def _top3(unit: Scores, batch: Batch) -> Scores:
    seen = batch.seen.numpy()
    cosines = np.matmul(unit[batch.items.numpy()], unit[batch.history.numpy()].transpose(0, 2, 1))
    ranked = np.sort(np.where(seen[:, None], cosines, -np.inf), axis=2)[:, :, -3:]
    found = np.isfinite(ranked)
    scores: Scores = np.where(found, ranked, 0).sum(axis=2) / np.maximum(found.sum(axis=2), 1)
    return scores.astype(np.float32)


def _unit(vectors: Embeddings, item_ids: list[str]) -> Scores:
    rows = vectors.rows(item_ids)
    broken = np.flatnonzero(~np.isfinite(rows).all(axis=1))
    if len(broken):
        raise InputError(
            f"vectors of items {shown(item_ids[i] for i in broken)} hold NaN or infinity; embed again"
        )
    norms = np.linalg.norm(rows, axis=1, keepdims=True)
    unit: Scores = (rows / np.maximum(norms, 1e-12)).astype(np.float32)
    return unit
