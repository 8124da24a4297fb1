"""The target-aware cross: attention over those events of a long history that share the candidate's codes."""

from typing import NamedTuple

import torch
from torch import Tensor, nn

from qarm.recommender.history_search import KINDS

__all__ = ["Cross", "Crossed"]

MASKED = -1e9


class Crossed(NamedTuple):
    """history: [g, c, d], what the matches say; products: [g, c, fields] with the candidate, by field;
    counts: [g, c, 3], log of one more than the events of each kind; logit: [g, c], their linear part.
    """

    history: Tensor
    products: Tensor
    counts: Tensor
    logit: Tensor


class Cross(nn.Module):
    """Reads what `CodeSearch` found (QARM, section 3.3): how much matched, of which kind, and what it was."""

    def __init__(self, fields: int) -> None:
        super().__init__()
        self.kind = nn.Parameter(torch.zeros(1 + len(KINDS)))
        self.closeness = nn.Parameter(torch.zeros(()))
        self.gain = nn.Parameter(torch.ones(fields))
        self.count = nn.Parameter(torch.zeros(len(KINDS)))

    @staticmethod
    def width(fields: int, dim: int) -> int:
        """Of what it adds to the network's input."""
        return dim + fields + len(KINDS)

    def forward(self, own: Tensor, matched: Tensor, kinds: Tensor, counts: Tensor) -> Crossed:
        """Of fields [g, c, f, d], matches' fields [g, c, k, f, d], kinds [g, c, k] and counts [g, c, 3]."""
        there = kinds > 0
        scores = self.closeness * torch.einsum("gcd,gckd->gck", own.sum(2), matched.sum(3))
        scores = (scores + self.kind[kinds]).masked_fill(~there, MASKED)
        weights = scores.softmax(-1) * there
        attended = torch.einsum("gck,gckfd->gcfd", weights, matched)
        products = (own * attended).sum(-1)
        logged = counts.log1p()
        return Crossed(attended.sum(2), products, logged, products @ self.gain + logged @ self.count)
