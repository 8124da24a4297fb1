"""Popular items (the head) of Swing: so many users have them that a walk over all pairs is too slow.

Two users u and v share h items of the head and r of the rest. Since

    1 / (alpha + h + r) = (1 - r / (alpha + h + r)) / (alpha + h),

the weight of all pairs with the same shared head items x is (q[x] - t[x]) / (alpha + |x|): q[x] is the sum
of w_u * w_v over them, whatever else they share, and t[x] that of r * w_u * w_v / (alpha + h + r), which
is what the rows of the other items have added up by x already. No pair is walked for q: with W[y] the
weight of the users who have all of y, (W[y] ** 2 - sum of their w ** 2) / 2 is the sum of q over all x that
hold y, and q follows by inclusion and exclusion over 2 ** 16 sets.
"""

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from numba import njit

from qarm.data.interaction_matrix import Lists
from qarm.pairs.swing.buffers import MASKED

__all__ = ["PopularItems", "Walked", "popular_items_of", "popular_scores"]

MOST = 16
WORTH = 1 << 23  # pairs of users, over all head items, below which walking them is as quick

Ints = npt.NDArray[np.int32]
Longs = npt.NDArray[np.int64]
Masks = npt.NDArray[np.uint64]
Floats = npt.NDArray[np.float64]


class Walked(NamedTuple):
    """Each user's items without the head's: those of user u are items[starts[u]:starts[u + 1]].

    starts: int64 [users + 1]; splits: int64 [users], where those with a bit begin; items: int32.
    """

    starts: Longs
    splits: Longs
    items: Ints


@dataclass(frozen=True)
class PopularItems:
    """Which items have a bit, and which users have these.

    items: int32 [popular], those with a bit where there is a head, most popular first, else none; heads: how
    many of them are the head; bits: int32 [items], an item's bit, or 64; masks: uint64 [users]; walked: the
    items that are not in the head.
    """

    items: Ints
    heads: int
    bits: Ints
    masks: Masks
    walked: Walked


def popular_items_of(by_user: Lists, sizes: Longs, *, whole: bool = False) -> PopularItems:
    """Bits for the most popular items, and a head if it pays and every item counts with all its users.

    Args:
        by_user: every user's items.
        sizes: users of each item, int64 [items].
        whole: whether no item is scored from a sample of its users.
    """
    popular = np.argsort(-sizes, kind="stable")[:MASKED].astype(np.int32)
    bits = np.full(len(sizes), MASKED, dtype=np.int32)
    bits[popular] = np.arange(len(popular), dtype=np.int32)
    first = popular[:MOST]
    pays = whole and float((sizes[first].astype(np.float64) ** 2).sum()) / 2 >= WORTH
    heads = len(first) if pays else 0
    masks, starts, splits, items = _sorted(by_user.starts, by_user.values, bits, heads)
    return PopularItems(
        popular[: len(popular) if pays else 0], heads, bits, masks, Walked(starts, splits, items)
    )


@njit(nogil=True, cache=True)
def _sorted(starts: Longs, items: Ints, bits: Ints, heads: int) -> tuple[Masks, Longs, Longs, Ints]:
    """Each user's mask, and what else `Walked` holds."""
    users = len(starts) - 1
    masks, begins, splits = (
        np.zeros(users, np.uint64),
        np.zeros(users + 1, np.int64),
        np.empty(users, np.int64),
    )
    walked, filled = np.empty(len(items), np.int32), 0
    for user in range(users):
        held = items[starts[user] : starts[user + 1]]
        for item in held:
            if bits[item] < MASKED:
                masks[user] |= np.uint64(1) << np.uint64(bits[item])
            else:
                walked[filled] = item
                filled += 1
        splits[user] = filled
        for item in held:
            if heads <= bits[item] < MASKED:
                walked[filled] = item
                filled += 1
        begins[user + 1] = filled
    return masks, begins, splits, walked[:filled]


def popular_scores(
    head: PopularItems, weights: Floats, rest: Floats, *, alpha: float
) -> tuple[Floats, Longs]:
    """Scores and common users of the head items with each other, [heads, heads] each.

    Args:
        head: with one item or more.
        weights: w of each user, float64 [users].
        rest: what the rows of all other items added up, float64 [2 ** heads].
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
    """Add (or, with sign -1, the inverse) to each set of bits what the sets holding it have."""
    sums = table.astype(np.float64)
    for bit in range(len(sums).bit_length() - 1):
        halves = sums.reshape(-1, 2, 1 << bit)
        halves[:, 0] += sign * halves[:, 1]
    return sums
