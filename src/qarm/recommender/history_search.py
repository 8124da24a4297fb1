"""History search by code, and attention over the matches (QARM, section 3.3; SIM, arXiv 2006.05639).

Positions of all histories are sorted by code once; a candidate's matches are then a stretch that binary
search finds. The cost follows the matches that are kept, not the length of the history.
"""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from qarm.core.parallel.numba_jit import compiled

__all__ = ["KINDS", "CodeSearch", "Cross", "Crossed", "Matches"]

KINDS = ("code 1", "codes 1 and 2", "VQ list")

Ints = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Matches:
    """What the histories of n rows hold of their candidates' codes.

    items: int64 [n, k], the matched events' items; kinds: int64 [n, k], 0 where there is none, else the place
    in `KINDS` from 1; counts: int64 [n, 3], matching events of each kind in the whole history, those that
    share codes 1 and 2 among those that share code 1 too.
    """

    items: Ints
    kinds: Ints
    counts: Ints


class CodeSearch:
    """An index of histories by their items' codes.

    Args:
        history: int [m], item rows of many users' events, each user's together and oldest first.
        rq: int64 [items, levels], of every item; the first two levels count.
        vq: int64 [items, nearest], pool ids, nearest first; None: no VQ list.
        pool: int64 [pool], the item row of every pool id, below 0 for items that are gone.
        most: matches that are kept by code 1, the latest ones, and by VQ list, the nearest ones.
    """

    def __init__(
        self,
        history: npt.NDArray[np.integer],
        rq: Ints,
        *,
        vq: Ints | None = None,
        pool: Ints | None = None,
        most: int = 10,
    ) -> None:
        self.history, self.most = history.astype(np.int64), most
        self.first = rq[:, 0]
        self.both = rq[:, 0] if rq.shape[1] == 1 else rq[:, 0] * (int(rq[:, 1].max(initial=0)) + 1) + rq[:, 1]
        self.lists = None if vq is None or pool is None else pool[vq]
        self._by_first = self._sorted(self.first)
        self._by_both = self._sorted(self.both)
        self._by_item = self._sorted(np.arange(len(rq))) if self.lists is not None else None

    def _sorted(self, codes: Ints) -> Ints:
        """Keys of (code, position), ascending."""
        return np.sort(codes[self.history] * (len(self.history) + 1) + np.arange(len(self.history)))

    def find(self, items: Ints, begin: Ints, end: Ints) -> Matches:
        """Matches of candidates [n] in history[begin:end], begin and end int64 [n]."""
        near = 0 if self.lists is None else min(self.most, self.lists.shape[1])
        matched = np.zeros((len(items), self.most + near), dtype=np.int64)
        kinds, counts = np.zeros_like(matched), np.zeros((len(items), len(KINDS)), dtype=np.int64)
        asked = items, begin, end, self.history
        _by_code(
            *asked, self._by_first, self._by_both, self.first, self.both, self.most, matched, kinds, counts
        )
        if self.lists is not None and self._by_item is not None:
            _by_list(*asked, self._by_item, self.lists, self.most, matched, kinds, counts)
        return Matches(matched, kinds, counts)


@compiled()
def _from(keys: Ints, key: int, low: int, high: int) -> int:
    """The first place in keys[low:high] that is not below a key."""
    while low < high:
        middle = (low + high) // 2
        if keys[middle] < key:
            low = middle + 1
        else:
            high = middle
    return low


@compiled()
def _by_code(
    items: Ints,
    begin: Ints,
    end: Ints,
    history: Ints,
    by_first: Ints,
    by_both: Ints,
    first: Ints,
    both: Ints,
    most: int,
    matched: Ints,
    kinds: Ints,
    counts: Ints,
) -> None:
    """Fills the first `most` columns, the latest event first, and the counts of the first two kinds."""
    size = len(history) + 1
    for n in range(len(items)):
        base = first[items[n]] * size
        low = _from(by_first, base + begin[n], 0, len(by_first))
        high = _from(by_first, base + end[n], low, len(by_first))
        counts[n, 0] = high - low
        for k in range(min(most, high - low)):
            item = history[by_first[high - 1 - k] - base]
            matched[n, k] = item
            kinds[n, k] = 2 if both[item] == both[items[n]] else 1
        if high > low:
            base = both[items[n]] * size
            low = _from(by_both, base + begin[n], 0, len(by_both))
            counts[n, 1] = _from(by_both, base + end[n], low, len(by_both)) - low


@compiled()
def _by_list(
    items: Ints,
    begin: Ints,
    end: Ints,
    history: Ints,
    by_item: Ints,
    lists: Ints,
    most: int,
    matched: Ints,
    kinds: Ints,
    counts: Ints,
) -> None:
    """Fills the columns after the first `most`, the nearest item first, and the counts of the third kind."""
    size = len(history) + 1
    for n in range(len(items)):
        column = most
        for place in range(lists.shape[1]):
            item = lists[items[n], place]
            if item < 0:
                continue
            low = _from(by_item, item * size + begin[n], 0, len(by_item))
            if low == len(by_item) or by_item[low] >= item * size + end[n]:
                continue
            counts[n, 2] += _from(by_item, item * size + end[n], low, len(by_item)) - low
            if column < matched.shape[1]:
                matched[n, column] = item
                kinds[n, column] = 3
                column += 1


MASKED = -1e9


class Crossed(NamedTuple):
    """Events of the long history that share codes with a candidate, summed up.

    history: [g, c, d], attended matches; products: [g, c, fields] with the candidate, by field;
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
