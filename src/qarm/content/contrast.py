"""The batch-contrastive loss, and which of a batch's items may count as negatives."""

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional

__all__ = ["Positives", "contrastive_loss", "negatives_to_mask"]

Ints = npt.NDArray[np.int64]


class Positives:
    """Which items are known to behave alike, in both directions.

    Args:
        triggers, targets: int64 [pairs], item numbers below `items`.
        items: number of items.
    """

    def __init__(self, triggers: Ints, targets: Ints, *, items: int) -> None:
        both = np.concatenate([triggers * items + targets, targets * items + triggers])
        sources, self._neighbors = np.divmod(np.unique(both), items)
        self._starts = np.searchsorted(sources, np.arange(items + 1))
        self._place = np.full(items, -1, dtype=np.int64)

    def neighbors(self, item: int) -> Ints:
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


def negatives_to_mask(alike: Tensor, queries: Tensor, answers: Tensor) -> Tensor:
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
    vectors: Tensor, triggers: Tensor, targets: Tensor, *, alike: Tensor, temperature: Tensor, weights: Tensor
) -> Tensor:
    """Symmetric in-batch InfoNCE (OneRec report, arXiv 2506.13695; QARM, section 3.1), a scalar.

    The mean of trigger-to-target and target-to-trigger cross-entropy, each pair counted by its weight.
    Without masked negatives and with equal vectors it is log(b).

    Args:
        vectors: float [m, d], unit length, each item of the batch once.
        triggers, targets: int64 [b], the pairs' rows in `vectors`.
        alike: bool [m, m], same item or known positive.
        temperature: scalar; weights: float [b], positive.
    """
    # index_select and not vectors[...]: its gradient is summed in a fixed order.
    left, right = vectors.index_select(0, triggers), vectors.index_select(0, targets)
    logits = left @ right.T / temperature
    own = torch.arange(len(triggers), device=vectors.device)
    total = vectors.new_zeros(())
    for scores, queries, answers in ((logits, triggers, targets), (logits.T, targets, triggers)):
        masked = scores.masked_fill(negatives_to_mask(alike, queries, answers), -torch.inf)
        losses = functional.cross_entropy(masked, own, reduction="none")
        total = total + (losses * weights).sum() / weights.sum()
    return total / 2
