"""Batch-contrastive loss, with false negatives masked."""

from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional

__all__ = ["Positives", "contrastive_loss", "mask_false_negatives"]

AT_ONCE = 1 << 24  # pairs, both ways round, that are sorted at a time

Ints = npt.NDArray[np.int64]


class Positives:
    """Which items are known to behave alike, in both directions.

    Args:
        triggers, targets: int [pairs], item numbers below `items`; may be memory maps.
        items: number of items.
        folder: where to keep them in a file that is mapped; None: in memory.
    """

    def __init__(
        self, triggers: npt.NDArray[Any], targets: npt.NDArray[Any], *, items: int, folder: Path | None = None
    ) -> None:
        self._place = np.full(items, -1, dtype=np.int64)
        file = None if folder is None else (folder / "positives.bin").open("wb")
        degrees = np.zeros(items, dtype=np.int64)
        parts = []
        for low, high in _ranges(triggers, targets, items):
            both = [_within(triggers, targets, low, high), _within(targets, triggers, low, high)]
            first, second = np.concatenate(both, axis=1)
            first, second = np.divmod(np.unique(first * items + second), items)
            degrees += np.bincount(first, minlength=items)
            neighbors = second.astype(np.int32)
            parts.append(neighbors if file is None else neighbors[:0])
            if file is not None:
                file.write(neighbors.data)
        self._neighbors: npt.NDArray[np.int32] = np.concatenate(parts)
        if file is not None:
            file.close()
            self._neighbors = np.memmap(file.name, dtype=np.int32, mode="r")
        self._starts = np.concatenate([[0], np.cumsum(degrees)])

    def neighbors(self, item: int) -> npt.NDArray[np.int32]:
        """Known positives of one item, ascending."""
        return self._neighbors[self._starts[item] : self._starts[item + 1]]

    def among(self, items: Ints) -> npt.NDArray[np.bool_]:
        """Whether two of m distinct items are the same or known positives, bool [m, m]."""
        first, last = self._starts[items], self._starts[items + 1]
        lengths = last - first
        rows = np.repeat(np.arange(len(items)), lengths)
        offsets = np.arange(lengths.sum()) - np.repeat(np.cumsum(lengths) - lengths, lengths)
        self._place[items] = np.arange(len(items))
        columns = self._place[self._neighbors[first[rows] + offsets]]
        self._place[items] = -1
        alike = np.eye(len(items), dtype=np.bool_)
        inside = columns >= 0
        alike[rows[inside], columns[inside]] = True
        return alike


def _ranges(triggers: npt.NDArray[Any], targets: npt.NDArray[Any], items: int) -> Iterator[tuple[int, int]]:
    """Stretches of items that have few enough pairs to be sorted in memory."""
    ends = np.zeros(items, dtype=np.int64)
    for side in (triggers, targets):
        for start in range(0, len(side), AT_ONCE):
            ends += np.bincount(side[start : start + AT_ONCE], minlength=items)
    cut = np.flatnonzero(np.diff(np.cumsum(ends) // AT_ONCE)) + 1
    bounds = [0, *cut.tolist(), items]
    yield from pairwise(bounds)


def _within(first: npt.NDArray[Any], second: npt.NDArray[Any], low: int, high: int) -> Ints:
    """Pairs whose first item is in low..high-1, int64 [2, pairs]."""
    found = []
    for start in range(0, len(first), AT_ONCE):
        a, b = first[start : start + AT_ONCE], second[start : start + AT_ONCE]
        inside = (a >= low) & (a < high)
        found.append(np.stack([a[inside], b[inside]]).astype(np.int64))
    return np.concatenate(found, axis=1)


def mask_false_negatives(alike: Tensor, queries: Tensor, answers: Tensor) -> Tensor:
    """Answers of other pairs that are no negatives for a query, bool [b, b].

    Masked are the query's item, the query's own answer and the query's known positives, where they
    turn up as the answer of another pair; the diagonal, the pairs themselves, is never masked.

    Args:
        alike: bool [m, m], from `Positives.among`.
        queries, answers: int64 [b], places of the pairs' items among the m items.
    """
    mask = alike[queries][:, answers] | (answers[:, None] == answers[None, :])
    return mask.fill_diagonal_(False)


def contrastive_loss(
    vectors: Tensor,
    triggers: Tensor,
    targets: Tensor,
    *,
    alike: Tensor,
    temperature: Tensor,
    weights: Tensor,
    symmetric: bool = True,
    log_q: Tensor | None = None,
    hard: Tensor | None = None,
) -> Tensor:
    """In-batch InfoNCE (OneRec report, arXiv 2506.13695; QARM, section 3.1), a scalar.

    Cross-entropy of finding a trigger's target among the batch's targets, each pair counted by its weight; if
    `symmetric`, the mean of that and of finding a target's trigger. Without masked negatives and with
    equal vectors it is log(b).

    Args:
        vectors: float [m, d], unit length, each item of the batch once.
        triggers, targets: int64 [b], the pairs' rows in `vectors`.
        alike: bool [m, m], same item or known positive.
        temperature: scalar; weights: float [b], positive.
        log_q: float [2, m], log of the share of pairs that have the item as target, and as trigger; taken
            from the scores of answers, so that being drawn often does not count against an item (Yi et al.
            2019, section 4).
        hard: int64 [h], rows in `vectors` of further wrong targets, none among `targets`.
    """
    # index_select and not vectors[...]: its gradient is summed in a fixed order.
    left, right = vectors.index_select(0, triggers), vectors.index_select(0, targets)
    logits = left @ right.T / temperature
    own = torch.arange(len(triggers), device=vectors.device)
    ways = [(logits, triggers, targets), (logits.T, targets, triggers)]
    total = vectors.new_zeros(())
    for way, (scores, queries, answers) in enumerate(ways[: 2 if symmetric else 1]):
        if log_q is not None:
            scores = scores - log_q[way][answers]
        masked = scores.masked_fill(mask_false_negatives(alike, queries, answers), -torch.inf)
        if way == 0 and hard is not None and len(hard):
            further = left @ vectors.index_select(0, hard).T / temperature
            masked = torch.cat([masked, further.masked_fill(alike[queries][:, hard], -torch.inf)], dim=1)
        losses = functional.cross_entropy(masked, own, reduction="none")
        total = total + (losses * weights).sum() / weights.sum()
    return total / (2 if symmetric else 1)
