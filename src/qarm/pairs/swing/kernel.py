"""Swing kernel: scores of an item from its users, without an items x items table; pair weights; top k.

For item i with users S, the items of S are listed with those of S who have them (the item's holders,
ascending). The pairs u < v of S are then walked u by u. How many items u and v
share is the number of bits that their masks of popular items share, and for the other items, what the
holders after u of each of u's items add up to; it gives the weight of each pair. A second walk over the
holders adds the weights up for each listed item. The very popular head items (see `popular_items`) are not
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

from qarm.pairs.swing.buffers import MASKED, buffers_for

__all__ = ["keep_best", "ones", "score_items"]

Ints = npt.NDArray[np.int32]
Places = npt.NDArray[np.uint32]
Floats = npt.NDArray[np.float64]


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
            `popular_items.popular_scores`. Without popular items, every row goes to `out`.
    """
    walked, item_starts, item_users = lists
    weights, scale, parts = numbers
    masks, bits, heads = head
    buffers = buffers_for(rows, lists, heads)
    own_weights, own_masks = buffers.weights, buffers.masks
    for place, row in enumerate(rows):
        users = item_users[item_starts[row] : item_starts[row + 1]]
        limit = min(bits[row], len(left.items)) if len(left.items) else MASKED
        popular = limit < len(left.items)
        count = _list_holders(users, walked, (row, bits, limit), buffers)
        for u, user in enumerate(users):
            own_weights[u], own_masks[u] = weights[user], masks[user]
        known = 0 if bits[row] < MASKED else 1  # the row's own bit counts, or else the row
        patterns = _add_pairs(len(users), parts[known:], heads, popular, buffers)
        _share_out(patterns, place, buffers, left)
        if limit <= len(left.items):
            _leave(len(users), count, place, (limit, bits), buffers, left)
        if popular:
            buffers.scores[:count] = 0.0
        else:
            _finish(count, (place, row), scale[row], heads, buffers, left, out)


@njit(nogil=True, cache=True, error_model="numpy")
def _list_holders(users: Ints, walked: Any, which: Any, buffers: Any) -> int:
    """List the walked items of `users` with their holders; returns how many. Few branches to guess wrong."""
    starts, splits, items = walked
    local, listed, ends, last = buffers.local, buffers.listed, buffers.ends, buffers.last
    counts, entry_split, entry_end = buffers.counts, buffers.entry_split, buffers.entry_end
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
    room = (local, ends, last, buffers.holders, buffers.entry_item, buffers.entry_next)
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
def _share_out(patterns: int, place: int, buffers: Any, left: Any) -> None:
    """Give each head item the weight of the pairs that share it, and clear the table."""
    by_head, shared, scores = buffers.by_head, left.shared, left.scores
    for pattern in buffers.seen[:patterns]:
        weight, by_head[pattern] = by_head[pattern], 0.0
        shared[pattern] += weight
        rest = np.uint64(pattern)
        while rest:
            lowest = rest & (~rest + np.uint64(1))
            scores[place, ones(lowest - np.uint64(1))] += weight
            rest ^= lowest


@njit(nogil=True, cache=True, error_model="numpy")
def _leave(users: int, count: int, place: int, which: Any, buffers: Any, left: Any) -> None:
    """Tell the popular items below the limit what the row has with each."""
    limit, bits = which
    below = ~np.uint64(0) if limit == MASKED else (np.uint64(1) << np.uint64(limit)) - np.uint64(1)
    both, scores, items, own = left.users, left.scores, buffers.listed, buffers.scores
    for mask in buffers.masks[:users]:
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
def _finish(count: int, which: Any, scale: float, heads: int, buffers: Any, left: Any, out: Any) -> None:
    """Write the best of the items that two users or more have, head items too, and clear the scores."""
    place, row = which
    listed, counts, own = buffers.listed, buffers.counts, buffers.scores
    items, scores, users = buffers.best, buffers.best_scores, buffers.best_users
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


@njit(nogil=True, cache=True, error_model="numpy")
def _add_pairs(users: int, parts: Floats, heads: int, popular: bool, buffers: Any) -> int:
    """Add w_u * w_v / (alpha + items in common) of every pair u < v to what they share.

    For a popular row, items without a bit are left to their own rows. Returns how many different sets of
    head items are shared.
    """
    items, after, last, holders = buffers.entry_item, buffers.entry_next, buffers.last, buffers.holders
    split, ends = buffers.entry_split, buffers.entry_end
    scores, weights, gains, common = buffers.scores, buffers.weights, buffers.gains, buffers.common
    shares, patterns = buffers.shares, buffers.patterns
    meeting = (buffers.masks, common, shares, patterns)
    weighing = (weights, shares, gains, parts)
    adding = (patterns, buffers.by_head, buffers.seen)
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


@njit(nogil=True, cache=True, error_model="numpy")
def keep_best(count: int, row: int, columns: Any, out: Any) -> None:
    """Write the best of the first `count` entries to a row of `out`, best first.

    Each entry is moved up to its place among those kept so far: few are, once the row is full.

    Args:
        count: entries to choose from.
        row: of `out`.
        columns: items int32, scores float64 and users int32, by entry.
        out: neighbors, scores and users [rows, width], and how many were found [rows].
    """
    items, scores, users = columns
    neighbors, kept, both, found = out
    size, width = np.uint64(0), np.uint64(neighbors.shape[1])
    for entry in range(count):
        item, score = items[entry], scores[entry]
        if size == width:
            last = width - np.uint64(1)
            if _before(kept[row, last], neighbors[row, last], score, item):
                continue
            place = last
        else:
            place = size
            size += np.uint64(1)
        while place > 0:
            above = place - np.uint64(1)
            if _before(kept[row, above], neighbors[row, above], score, item):
                break
            neighbors[row, place], kept[row, place] = neighbors[row, above], kept[row, above]
            both[row, place] = both[row, above]
            place = above
        neighbors[row, place], kept[row, place], both[row, place] = item, score, users[entry]
    found[row] = size


@njit(nogil=True, cache=True, error_model="numpy")
def _before(score: float, item: int, other_score: float, other_item: int) -> bool:
    return bool(score > other_score or (score == other_score and item < other_item))
