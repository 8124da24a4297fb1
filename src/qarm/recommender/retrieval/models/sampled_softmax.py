"""Sampled softmax over the batch's items and drawn ones, with a log-Q correction of adjustable strength."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from qarm.recommender.retrieval.models.sequence_model import SequenceModel

__all__ = ["SampledSoftmax"]


@dataclass(frozen=True)
class _Candidates:
    """Items of one step's softmax: rows int64 [c], sorted, and what is subtracted from their logits [c]."""

    rows: Tensor
    correction: Tensor

    def columns(self, items: Tensor) -> Tensor:
        """Column of each item, which has to be a candidate."""
        return torch.searchsorted(self.rows, items)


class SampledSoftmax:
    """Softmax loss of the next item (log-Q correction: Yi et al., RecSys 2019).

    Every event of the batch's histories is a target; candidates are all items of the batch and `negatives`
    uniform draws, or all items where `negatives` is 0. The logarithm of the probability that an item is a
    candidate, times `log_q`, is subtracted from its logits.

    Args:
        counts: training events of each item, int64 [items]. users: in training.
    """

    def __init__(
        self,
        model: SequenceModel,
        counts: np.ndarray,
        users: int,
        *,
        negatives: int,
        log_q: float,
        random: np.random.Generator,
    ) -> None:
        self.model, self.random = model, random
        self.counts, self.users = torch.from_numpy(counts).double(), max(users, 1)
        self.negatives, self.log_q = negatives, log_q

    def __call__(self, table: Tensor, cold: Tensor) -> Tensor:
        """Mean loss of histories int64 [b, t], -1 before the first event; cold: bool [items], without ids."""
        model, inputs, targets = self.model, table[:, :-1], table[:, 1:]
        seen, candidates = inputs >= 0, self._candidates(table)
        vectors = model.items(candidates.rows, cold)
        # a column beyond the last belongs to no event and is multiplied by zero
        columns = candidates.columns(inputs.clamp(min=0)).clamp(max=len(vectors) - 1)
        history = model.dropout(vectors)[columns] * seen[..., None]
        queries = model.compared(model.reader(history, seen)[seen]) * model.scale
        logits = queries @ model.compared(vectors).T - candidates.correction
        return functional.cross_entropy(logits, candidates.columns(targets[seen]))

    def _candidates(self, table: Tensor) -> _Candidates:
        items = self.model.shape.items
        if not self.negatives or self.negatives >= items:
            return _Candidates(torch.arange(items), torch.zeros(items))
        draws = torch.from_numpy(self.random.integers(0, items, self.negatives))
        rows = torch.unique(torch.cat([table[table >= 0], draws]))
        expected = self.counts[rows] * (len(table) / self.users) + self.negatives / items
        return _Candidates(rows, (self.log_q * expected.clamp(max=1.0).log()).float())
