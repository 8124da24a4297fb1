"""Hard negatives: unlabelled items that lie near a trigger now."""

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from qarm.encoder.alignment.loss import Positives

__all__ = ["mine_hard_negatives"]

QUERIES = 256
Ints = npt.NDArray[np.int64]


@torch.no_grad()
def mine_hard_negatives(vectors: Tensor, known: Positives, *, count: int) -> Ints:
    """The nearest items of each item that are neither itself nor known positives, int64 [n, count].

    Exact, in blocks of 256 queries; where an item has fewer of them, its list ends with -1.

    Args:
        vectors: float [n, d], unit length.
        known: positives, by item number.
        count: how many.
    """
    n = len(vectors)
    found = np.full((n, count), -1, dtype=np.int64)
    width = min(count, n)
    for start in range(0, n, QUERIES):
        rows = range(start, min(start + QUERIES, n))
        scores = vectors[start : rows[-1] + 1] @ vectors.T
        for row, item in enumerate(rows):
            scores[row, known.neighbors(item).astype(np.int64)] = -torch.inf
            scores[row, item] = -torch.inf
        best, items = scores.topk(width, dim=1)
        found[start : rows[-1] + 1, :width] = items.masked_fill(best == -torch.inf, -1).cpu().numpy()
    return found
