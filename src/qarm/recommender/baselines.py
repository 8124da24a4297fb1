"""Baselines without training: popularity, item-kNN, and similarity of content to the history."""

import numpy as np
import numpy.typing as npt
from scipy.sparse import csr_matrix, diags

from qarm.data.embeddings import Embeddings
from qarm.errors import InputError, shown
from qarm.recommender.batches import Batch, batches
from qarm.recommender.examples import Examples
from qarm.recommender.metrics import auc

__all__ = ["KINDS", "best_likeness", "item_knn", "likeness", "popularity"]

KINDS = ("mean", "top3")
AT_ONCE = 512

Scores = npt.NDArray[np.float32]


def popularity(train: Examples, examples: Examples) -> npt.NDArray[np.int64]:
    """Training positives of each candidate, int64 [n]; both with one vocabulary."""
    counts = np.bincount(train.items[train.labels == 1], minlength=len(train.item_ids))
    return counts[examples.items]


def item_knn(train: Examples, examples: Examples) -> Scores:
    """Item-kNN: mean cosine, by training users in common, of the candidate and the history, float32 [n].

    Both with one vocabulary; an empty history scores 0.
    """
    chosen, items = train.labels == 1, len(train.item_ids)
    clicks = csr_matrix(
        (np.ones(chosen.sum()), (train.users[chosen], train.items[chosen])),
        shape=(len(train.user_ids), items),
    )
    clicks.data[:] = 1.0  # a user who comes again counts once
    sizes = np.maximum(np.asarray(clicks.sum(axis=0)).ravel(), 1.0)
    alike = clicks @ diags(1 / np.sqrt(sizes))
    edges = examples.groups()
    first, scores = edges[:-1], np.zeros(len(examples), dtype=np.float32)
    lengths = (examples.end - examples.start)[first]
    for begin in range(0, len(first), AT_ONCE):
        some = slice(begin, begin + AT_ONCE)
        owner = np.repeat(np.arange(len(lengths[some])), lengths[some])
        offset = np.arange(len(owner)) - np.repeat(np.cumsum(lengths[some]) - lengths[some], lengths[some])
        past = examples.history[np.repeat(examples.start[first[some]], lengths[some]) + offset]
        asked = csr_matrix((1 / lengths[some][owner], (owner, past)), shape=(len(lengths[some]), items))
        found = ((asked @ alike.T) @ alike).toarray()
        rows = np.arange(edges[begin], edges[min(begin + AT_ONCE, len(first))])
        group = np.repeat(np.arange(len(lengths[some])), np.diff(edges[begin : begin + AT_ONCE + 1]))
        scores[rows] = found[group, examples.items[rows]]
    return scores


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
