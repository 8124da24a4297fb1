"""The Swing kernel: an item's scores from its own users, without an items x items table.

For item i with users S, the items of S are listed with those of S who have them (the item's holders,
ascending). The pairs u < v of S are then walked u by u. How many items u and v
share is the number of bits that their masks of popular items share, and for the other items, what the
holders after u of each of u's items add up to; it gives the weight of each pair. A second walk over the
holders adds the weights up for each listed item. The very popular head items (see `swing_head`) are not
walked: weights are added up by the head items that a pair shares, and shared out at the end. Where there
is a head, what two popular items or a popular and another item have is computed once, in the row of the
less popular one.

Memory: a few numbers per item, and per click of S. The order of additions depends on i alone, so the bits
are the same on any number of threads; it is also the same for (i, j) and (j, i), so that exact scores are
exactly symmetric.
"""

from typing import Any

import numpy as np
import numpy.typing as npt
from numba import njit

from qarm.pairs.swing.buffers import MASKED, scratch_for
from qarm.pairs.swing.top_k import keep_best
from qarm.pairs.swing.user_pairs import add_pairs, ones

__all__ = ["score_items"]

Ints = npt.NDArray[np.int32]


@njit(nogil=True, cache=True, error_model="numpy")
def score_items(rows: Ints, lists: Any, numbers: Any, head: Any, out: Any, left: Any) -> None:
    """Fill a row of `out` (neighbors, scores, users, found) for each item of `rows`.

    Args:
        rows: item numbers; none is a head item.
        lists: `Walked` starts, splits and items, then each item's users as starts and values.
        numbers: weights float64 [users], scale float64 [items], parts float64 [most items + 1], of which
            parts[c] is 1 / (alpha + c).
        head: masks uint64 [users], bits int32 [items] and how many bits belong to head items.
        out: as in `Block`, empty; rows of popular items stay so.
        left: `items` int32 [popular], by bit; `scores` float64 and `users` int32 [rows, popular], of each row
            with each popular item of a lower bit; `shared` float64 [2 ** head items], what the rows add to
            `swing_head.head_scores`. Without popular items, every row goes to `out`.
    """
    walked, item_starts, item_users = lists
    weights, scale, parts = numbers
    masks, bits, heads = head
    scratch = scratch_for(rows, lists, heads)
    own_weights, own_masks = scratch.weights, scratch.masks
    for place, row in enumerate(rows):
        users = item_users[item_starts[row] : item_starts[row + 1]]
        limit = min(bits[row], len(left.items)) if len(left.items) else MASKED
        popular = limit < len(left.items)
        count = _list_holders(users, walked, (row, bits, limit), scratch)
        for u, user in enumerate(users):
            own_weights[u], own_masks[u] = weights[user], masks[user]
        known = 0 if bits[row] < MASKED else 1  # the row's own bit counts, or else the row
        patterns = add_pairs(len(users), parts[known:], heads, popular, scratch)
        _share_out(patterns, place, scratch, left)
        if limit <= len(left.items):
            _leave(len(users), count, place, (limit, bits), scratch, left)
        if popular:
            scratch.scores[:count] = 0.0
        else:
            _finish(count, (place, row), scale[row], heads, scratch, left, out)


@njit(nogil=True, cache=True, error_model="numpy")
def _list_holders(users: Ints, walked: Any, which: Any, scratch: Any) -> int:
    """List the walked items of `users` with their holders; returns how many. Few branches to guess wrong."""
    starts, splits, items = walked
    local, listed, ends, last = scratch.local, scratch.listed, scratch.ends, scratch.last
    counts, entry_split, entry_end = scratch.counts, scratch.entry_split, scratch.entry_end
    count = filled = 0
    for user in users:
        for item in items[starts[user] : starts[user + 1]]:
            listed[count] = item
            count += local[item] == 0
            local[item] += 1
    for place in range(count):
        item = listed[place]
        ends[place], counts[place] = filled, local[item]
        filled += local[item]
        last[place], local[item] = filled, place
    entry = 0
    room = (local, ends, last, scratch.holders, scratch.entry_item, scratch.entry_next)
    for place, user in enumerate(users):
        entry = _enter(items, starts[user], splits[user], (place, entry), which, room)
        entry_split[place] = entry
        entry = _enter(items, splits[user], starts[user + 1], (place, entry), which, room)
        entry_end[place] = entry
    for item in listed[:count]:
        local[item] = 0
    return count


@njit(nogil=True, cache=True, error_model="numpy")
def _enter(items: Ints, begin: int, stop: int, at: Any, which: Any, room: Any) -> int:
    """Add a user, by her place, to the holders of items[begin:stop]; returns the next free entry.

    The last holder of an item has none after her, and needs no entry.
    """
    (place, entry), (row, bits, limit) = at, which
    local, ends, last, holders, entry_item, entry_next = room
    for index in range(np.uint64(begin), np.uint64(stop)):
        item = np.uint32(items[index])
        listed, bit = np.uint32(local[item]), bits[item]
        end = ends[listed]
        holders[end] = place
        ends[listed] = end + 1
        entry_item[entry], entry_next[entry] = listed, end + 1
        wanted = (item != np.uint32(row)) & ((bit < limit) | (bit == MASKED))
        entry += wanted & (end + 1 < np.int64(last[listed]))
    return int(entry)


@njit(nogil=True, cache=True, error_model="numpy")
def _share_out(patterns: int, place: int, scratch: Any, left: Any) -> None:
    """Give each head item the weight of the pairs that share it, and clear the table."""
    by_head, shared, scores = scratch.by_head, left.shared, left.scores
    for pattern in scratch.seen[:patterns]:
        weight, by_head[pattern] = by_head[pattern], 0.0
        shared[pattern] += weight
        rest = np.uint64(pattern)
        while rest:
            lowest = rest & (~rest + np.uint64(1))
            scores[place, ones(lowest - np.uint64(1))] += weight
            rest ^= lowest


@njit(nogil=True, cache=True, error_model="numpy")
def _leave(users: int, count: int, place: int, which: Any, scratch: Any, left: Any) -> None:
    """Tell the popular items below the limit what the row has with each."""
    limit, bits = which
    below = ~np.uint64(0) if limit == MASKED else (np.uint64(1) << np.uint64(limit)) - np.uint64(1)
    both, scores, items, own = left.users, left.scores, scratch.listed, scratch.scores
    for mask in scratch.masks[:users]:
        rest = mask & below
        while rest:
            lowest = rest & (~rest + np.uint64(1))
            both[place, ones(lowest - np.uint64(1))] += np.int32(1)
            rest ^= lowest
    for listed in range(count):
        bit = bits[items[listed]]
        if bit < limit:
            scores[place, bit] = own[listed]


@njit(nogil=True, cache=True, error_model="numpy")
def _finish(count: int, which: Any, scale: float, heads: int, scratch: Any, left: Any, out: Any) -> None:
    """Write the best of the items that two users or more have, head items too, and clear the scores."""
    place, row = which
    listed, counts, own = scratch.listed, scratch.counts, scratch.scores
    items, scores, users = scratch.best, scratch.best_scores, scratch.best_users
    filled = 0
    for entry in range(count):
        items[filled], scores[filled], users[filled] = listed[entry], own[entry] * scale, counts[entry]
        filled += (counts[entry] > 1) & (listed[entry] != row)
        own[entry] = 0.0
    popular, popular_scores, both = left.items, left.scores, left.users
    for bit in range(heads):
        items[filled], scores[filled] = popular[bit], popular_scores[place, bit]
        users[filled] = both[place, bit]
        filled += both[place, bit] > 1
    keep_best(filled, place, (items, scores, users), out)
