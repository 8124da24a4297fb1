"""The pairs of an item's users: how much each shares, and what that adds to the items that it shares.

Small functions take few arrays, by number and not by slice: numba counts references to each.
"""

from typing import Any

import numpy as np
import numpy.typing as npt
from numba import njit

__all__ = ["add_pairs", "ones"]

Places = npt.NDArray[np.uint32]
Floats = npt.NDArray[np.float64]


@njit(nogil=True, cache=True, error_model="numpy")
def add_pairs(users: int, parts: Floats, heads: int, popular: bool, scratch: Any) -> int:
    """Add w_u * w_v / (alpha + items in common) of every pair u < v to what they share.

    For a popular row, items without a bit are left to their own rows. Returns how many different sets of
    head items are shared.
    """
    items, after, last, holders = scratch.entry_item, scratch.entry_next, scratch.last, scratch.holders
    split, ends = scratch.entry_split, scratch.entry_end
    scores, weights, gains, common = scratch.scores, scratch.weights, scratch.gains, scratch.common
    shares, patterns = scratch.shares, scratch.patterns
    meeting = (scratch.masks, common, shares, patterns)
    weighing = (weights, shares, gains, parts)
    adding = (patterns, scratch.by_head, scratch.seen)
    head = np.uint64((1 << heads) - 1)
    begin = seen = 0
    for u in range(users - 1):
        end = ends[u]
        if begin < end or heads:
            for entry in range(begin, split[u]):
                _count(common, holders, after[entry], last[items[entry]])
            _meet(u, users, head, meeting)
            if heads:
                seen = _weigh_by_head(u, users, seen, weighing, adding)
            else:
                _weigh(u, users, weighing)
            for entry in range(split[u] if popular else begin, end):
                item = items[entry]
                scores[item] += weights[u] * _total(gains, holders, after[entry], last[item])
        begin = end
    return seen


@njit(nogil=True, cache=True, error_model="numpy")
def _count(common: Places, holders: Places, begin: np.uint64, end: np.uint64) -> None:
    for h in range(begin, end):
        common[holders[h]] += np.uint32(1)


@njit(nogil=True, cache=True, error_model="numpy")
def _meet(u: int, users: int, head: np.uint64, meeting: Any) -> None:
    """How many items u shares with each later user, and which of the head."""
    masks, common, shares, patterns = meeting
    mask = masks[u]
    for v in range(np.uint64(u + 1), np.uint64(users)):
        both = mask & masks[v]
        patterns[v] = both & head
        shares[v] = ones(both) + common[v]
        common[v] = np.uint32(0)


@njit(nogil=True, cache=True, error_model="numpy")
def _weigh(u: int, users: int, weighing: Any) -> None:
    weights, shares, gains, parts = weighing
    for v in range(np.uint64(u + 1), np.uint64(users)):
        gains[v] = weights[v] * parts[shares[v]]


@njit(nogil=True, cache=True, error_model="numpy")
def _weigh_by_head(u: int, users: int, count: int, weighing: Any, adding: Any) -> int:
    """The same, and add the gains of u up by the head items that are shared; lists those seen first."""
    weights, shares, gains, parts = weighing
    patterns, by_head, seen = adding
    weight = weights[u]
    for v in range(np.uint64(u + 1), np.uint64(users)):
        gain = weights[v] * parts[shares[v]]
        gains[v] = gain
        pattern = patterns[v]
        before = by_head[pattern]
        by_head[pattern] = before + weight * gain
        if before == 0.0:
            seen[count] = pattern
            count += 1
    return count


@njit(nogil=True, cache=True, error_model="numpy", inline="always")
def ones(x: np.uint64) -> np.uint64:
    """How many bits are set; compilers know these lines and use the machine's own instruction."""
    x = x - ((x >> np.uint64(1)) & np.uint64(0x5555555555555555))
    x = (x & np.uint64(0x3333333333333333)) + ((x >> np.uint64(2)) & np.uint64(0x3333333333333333))
    x = (x + (x >> np.uint64(4))) & np.uint64(0x0F0F0F0F0F0F0F0F)
    return (x * np.uint64(0x0101010101010101)) >> np.uint64(56)


@njit(nogil=True, cache=True, error_model="numpy")
def _total(gains: Floats, holders: Places, begin: np.uint64, end: np.uint64) -> float:
    """Sum of the holders' gains in four lanes, which hides the latency of additions; the order is fixed."""
    a = b = c = d = 0.0
    whole = begin + (end - begin) // np.uint64(4) * np.uint64(4)
    for h in range(begin, whole, np.uint64(4)):
        a += gains[holders[h]]
        b += gains[holders[h + np.uint64(1)]]
        c += gains[holders[h + np.uint64(2)]]
        d += gains[holders[h + np.uint64(3)]]
    for h in range(whole, end):
        a += gains[holders[h]]
    return (a + b) + (c + d)
