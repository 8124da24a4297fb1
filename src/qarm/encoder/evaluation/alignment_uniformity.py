"""Alignment and uniformity of vectors (Wang and Isola, 2020), over pairs held out from training."""

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import polars as pl
import torch

from qarm.core.item_index import ItemIndex
from qarm.data.embeddings import Embeddings
from qarm.data.interaction_matrix import Lists
from qarm.data.interactions import Log
from qarm.encoder.evaluation.retrieval import RetrievalTask

__all__ = ["alignment", "held_out_pairs", "pair_retrieval_task", "uniformity"]

MOST_PAIRS, MOST_ITEMS = 20_000, 10_000
CHUNK = 1024


def held_out_pairs(
    later: Log, pairs: pl.DataFrame, item_ids: Sequence[str], *, seed: int = 0
) -> pl.DataFrame:
    """Pairs that behaviour after the training shows: two items a user chose one right after the other.

    Args:
        later: events that nothing was learned from; only positives on `item_ids` count.
        pairs: trigger_id, target_id of the training; the same two items, either way round, are left out.
        item_ids: those that have vectors.
        seed: of the draw of 20,000 where there are more.

    Returns:
        trigger_id, target_id, distinct and sorted; the trigger was chosen first.
    """
    clicks = later.only_items(item_ids).positives().frame
    following = clicks.select(trigger_id="item_id", target_id=pl.col("item_id").shift(-1).over("user_id"))
    found = following.drop_nulls().filter(pl.col("trigger_id") != pl.col("target_id")).unique()
    sides = ["trigger_id", "target_id"]
    known = pl.concat([pairs.select(sides), pairs.select(trigger_id="target_id", target_id="trigger_id")])
    found = found.join(known.unique(), on=sides, how="anti").sort(sides)
    if found.height > MOST_PAIRS:
        kept = np.random.default_rng(seed).permutation(found.height)[:MOST_PAIRS]
        found = found[np.sort(kept)]
    return found


def pair_retrieval_task(pairs: pl.DataFrame, item_ids: Sequence[str]) -> RetrievalTask:
    """Every pair asks by itself: its trigger is the query and is no candidate, its target the truth."""
    index = ItemIndex(item_ids)
    triggers, targets = (_alone(index.rows(pairs[side].to_list())) for side in pairs.columns[:2])
    return RetrievalTask(
        list(item_ids), [str(row) for row in range(pairs.height)], triggers, triggers, targets
    )


def _alone(items: npt.NDArray[np.int64]) -> Lists:
    """Lists of one item each."""
    return Lists(np.arange(len(items) + 1, dtype=np.int64), items.astype(np.int32))


def alignment(vectors: Embeddings, pairs: pl.DataFrame) -> float | None:
    """Mean squared distance of the two vectors of a pair (Wang & Isola 2020); lower is closer.

    Of the pairs whose items both have a vector that is not zero, each scaled to unit length; None
    without one.
    """
    unit = dict(zip(vectors.item_ids, _unit(vectors), strict=True))
    both = [
        (unit[a], unit[b])
        for a, b in pairs.select("trigger_id", "target_id").rows()
        if a in unit and b in unit
    ]
    if not both:
        return None
    left, right = (np.stack(side) for side in zip(*both, strict=True))
    there = left.any(axis=1) & right.any(axis=1)
    return float(np.square(left - right)[there].sum(axis=1).mean()) if there.any() else None


def uniformity(vectors: Embeddings, *, seed: int = 0) -> float | None:
    """Log of the mean of exp(-2 d^2) over all pairs of items, d their distance (Wang & Isola 2020).

    0 where all vectors are one, about -4 / (1 + 4 / dim) and less where they fill the sphere. Vectors are
    scaled to unit length, zeros left out; more than 10,000 items are a seeded draw of 10,000.
    """
    unit = _unit(vectors)
    unit = unit[unit.any(axis=1)]
    if len(unit) > MOST_ITEMS:
        unit = unit[np.sort(np.random.default_rng(seed).permutation(len(unit))[:MOST_ITEMS])]
    if len(unit) < 2:
        return None
    rows = torch.from_numpy(unit)
    total = 0.0
    for first in range(0, len(rows), CHUNK):
        cosines = rows[first : first + CHUNK] @ rows.T
        total += float(torch.exp(4.0 * (cosines - 1.0)).sum())
    count = len(rows)
    return math.log((total - count) / (count * (count - 1)))


def _unit(vectors: Embeddings) -> npt.NDArray[np.float64]:
    rows = vectors.vectors.astype(np.float64)
    lengths = np.linalg.norm(rows, axis=1, keepdims=True)
    unit: npt.NDArray[np.float64] = rows / np.where(lengths > 0, lengths, 1.0)
    return unit
