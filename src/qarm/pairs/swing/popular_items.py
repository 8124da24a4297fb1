"""Popular items (the head) of Swing, scored without a loop over all pairs of their many users.

Two users u and v share h items of the head and r of the rest. Since

    1 / (alpha + h + r) = (1 - r / (alpha + h + r)) / (alpha + h),

the weight of all pairs with the same shared head items x is (q[x] - t[x]) / (alpha + |x|): q[x] is the sum
of w_u * w_v over them, whatever else they share, and t[x] that of r * w_u * w_v / (alpha + h + r), which
the rows of the other items have added up by x already. q needs no loop over pairs: with W[y] the
weight of the users who have all of y, (W[y] ** 2 - sum of their w ** 2) / 2 is the sum of q over all x that
hold y, and q follows by inclusion and exclusion over 2 ** 16 sets.
"""

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from qarm.core.parallel.numba_jit import compiled
from qarm.data.interaction_matrix import Lists
from qarm.pairs.swing.buffers import MASKED

__all__ = ["PopularItems", "Tail", "popular_items_of", "popular_scores"]

MOST_HEAD_ITEMS = 16
LEAST_USER_PAIRS = 1 << 23  # pairs of users, over all head items, below which a loop over them is as quick

Ints = npt.NDArray[np.int32]
Longs = npt.NDArray[np.int64]
Masks = npt.NDArray[np.uint64]
Floats = npt.NDArray[np.float64]


class Tail(NamedTuple):
    """Each user's items outside the head: those of user u are items[starts[u]:starts[u + 1]].

    starts: int64 [users + 1]; splits: int64 [users], start of those with a bit; items: int32.
    """

    starts: Longs
    splits: Longs
    items: Ints


@dataclass(frozen=True)
class PopularItems:
    """Items with a bit, and each user's set of them as a mask.

    items: int32 [popular], those with a bit, most popular first, empty without a head; heads: number of
    items in the head; bits: int32 [items], an item's bit, or 64; masks: uint64 [users]; tail: the
    items outside the head.
    """

    items: Ints
    heads: int
    bits: Ints
    masks: Masks
    tail: Tail


def popular_items_of(by_user: Lists, sizes: Longs, *, whole: bool = False) -> PopularItems:
    """Bits for the most popular items, and a head if it pays and every item counts with all its users.

    Args:
        by_user: every user's items.
        sizes: users of each item, int64 [items].
        whole: every item is scored from all its users, not from a sample.
    """
    popular = np.argsort(-sizes, kind="stable")[:MASKED].astype(np.int32)
    bits = np.full(len(sizes), MASKED, dtype=np.int32)
    bits[popular] = np.arange(len(popular), dtype=np.int32)
    first = popular[:MOST_HEAD_ITEMS]
    pays = whole and float((sizes[first].astype(np.float64) ** 2).sum()) / 2 >= LEAST_USER_PAIRS
    heads = len(first) if pays else 0
    masks, starts, splits, items = _sorted(by_user.starts, by_user.values, bits, heads)
    return PopularItems(
        popular[: len(popular) if pays else 0], heads, bits, masks, Tail(starts, splits, items)
    )


@compiled()
def _sorted(starts: Longs, items: Ints, bits: Ints, heads: int) -> tuple[Masks, Longs, Longs, Ints]:
    """Each user's mask, and the fields of `Tail`."""
    users = len(starts) - 1
    masks, begins, splits = (
        np.zeros(users, np.uint64),
        np.zeros(users + 1, np.int64),
        np.empty(users, np.int64),
    )
    tail, filled = np.empty(len(items), np.int32), 0
    for user in range(users):
        of_user = items[starts[user] : starts[user + 1]]
        for item in of_user:
            if bits[item] < MASKED:
                masks[user] |= np.uint64(1) << np.uint64(bits[item])
            else:
                tail[filled] = item
                filled += 1
        splits[user] = filled
        for item in of_user:
            if heads <= bits[item] < MASKED:
                tail[filled] = item
                filled += 1
        begins[user + 1] = filled
    return masks, begins, splits, tail[:filled]


def popular_scores(
    head: PopularItems, weights: Floats, rest: Floats, *, alpha: float
) -> tuple[Floats, Longs]:
    """Scores and common users of the head items with each other, [heads, heads] each.

    Args:
        head: with one item or more.
        weights: w of each user, float64 [users].
        rest: sums of the rows of all other items, float64 [2 ** heads].
        alpha: added to the number of shared items.
    """
    patterns = (head.masks & np.uint64(len(rest) - 1)).astype(np.int64)
    total, squares, users = (
        _supersets(np.bincount(patterns, values, len(rest)), 1.0) for values in (weights, weights**2, None)
    )
    shared = _supersets((total**2 - squares) / 2, -1.0) - rest
    sets = np.arange(len(rest))
    sizes = sum((sets >> bit & 1 for bit in range(head.heads)), np.zeros(len(rest), dtype=np.int64))
    pairs = _supersets(np.where(sizes > 1, shared / np.maximum(alpha + sizes, 1.0), 0.0), 1.0)
    both = 1 << np.arange(head.heads)
    both = both[:, None] | both[None, :]
    return pairs[both], np.rint(users[both]).astype(np.int64)


def _supersets(table: npt.NDArray[Any], sign: float) -> Floats:
    """Sums over the supersets of each set of bits; with sign -1 the inverse."""
    sums = table.astype(np.float64)
    for bit in range(len(sums).bit_length() - 1):
        halves = sums.reshape(-1, 2, 1 << bit)
        halves[:, 0] += sign * halves[:, 1]
    return sums
