"""Swing kernel: scores of an item from its users, without an items x items table; pair weights; top k.

For item i with users S, the kernel lists every item of S with those of S who have it (the item's holders,
ascending). It then visits the pairs u < v of S, one u at a time. The number of items that u and v share is
the number of common bits in their masks of popular items, plus the number of u's other items that have v
among their holders; it gives the weight of the pair. A second loop over the holders adds the weights up for
each listed item. The most popular items, the head (see `popular_items`), are not in these lists: weights
are added up by the set of head items that a pair shares, and distributed to the items at the end. With a
head, the score of two popular items, or of a popular and another item, is computed once, in the row of the
less popular one.

Memory: a few numbers per item, and per click of S. The order of additions depends on i alone, so that the
bytes are the same on any number of threads; it is also the same for (i, j) and (j, i), so that exact scores
are exactly symmetric. Own code, compiled by numba: recfarm, a Python package with Swing, returns float32
and has no caps by sampling.
"""

from typing import Any

import numpy as np
import numpy.typing as npt

from qarm.core.parallel.numba_jit import compiled
from qarm.pairs.swing.buffers import MASKED, buffers_for

__all__ = ["keep_best", "ones", "score_items"]

Ints = npt.NDArray[np.int32]
Unsigned = npt.NDArray[np.uint32]
Floats = npt.NDArray[np.float64]


@compiled(division="numpy")
def score_items(rows: Ints, lists: Any, numbers: Any, head: Any, out: Any, by_bit: Any) -> None:
    """Fill a row of `out` (neighbors, scores, users, filled) for each item of `rows`.

    Args:
        rows: item numbers; none is a head item.
        lists: starts, splits and items of a `Tail`, then each item's users as starts and values.
        numbers: weights float64 [users], scale float64 [items], parts float64 [most items + 1], of which
            parts[c] is 1 / (alpha + c).
        head: masks uint64 [users], bits int32 [items], and the number of head items.
        out: as `_Block` of `partition`, empty; rows of popular items stay empty.
        by_bit: `items` int32 [popular], by bit; `scores` float64 and `users` int32 [rows, popular], of each
            row with each popular item of a lower bit; `shared` float64 [2 ** head items], part of the rows in
            the sums for `popular_items.popular_scores`. Without popular items, every row goes to `out`.
    """
    tail, item_starts, item_users = lists
    weights, scale, parts = numbers
    masks, bits, heads = head
    buffers = buffers_for(rows, lists, heads)
    user_weights, user_masks = buffers.weights, buffers.masks
    for index, row in enumerate(rows):
        users = item_users[item_starts[row] : item_starts[row + 1]]
        limit = min(bits[row], len(by_bit.items)) if len(by_bit.items) else MASKED
        popular = limit < len(by_bit.items)
        count = _list_holders(users, tail, (row, bits, limit), buffers)
        for u, user in enumerate(users):
            user_weights[u], user_masks[u] = weights[user], masks[user]
        unmasked = 0 if bits[row] < MASKED else 1  # the item of the row is shared too, and has no bit
        patterns = _add_pairs(len(users), parts[unmasked:], heads, popular, buffers)
        _distribute(patterns, index, buffers, by_bit)
        if limit <= len(by_bit.items):
            _popular_columns(len(users), count, index, (limit, bits), buffers, by_bit)
        if popular:
            buffers.scores[:count] = 0.0
        else:
            _write_row(count, (index, row), scale[row], heads, buffers, by_bit, out)


@compiled(division="numpy")
def _list_holders(users: Ints, tail: Any, which: Any, buffers: Any) -> int:
    """List the items of `users` outside the head with their holders; returns their number.

    Without branches where possible, since a wrong prediction costs more than the work.
    """
    starts, splits, items = tail
    local, listed, ends, last = buffers.local, buffers.listed, buffers.ends, buffers.last
    counts, entry_split, entry_end = buffers.counts, buffers.entry_split, buffers.entry_end
    count = filled = 0
    for user in users:
        for item in items[starts[user] : starts[user + 1]]:
            listed[count] = item
            count += local[item] == 0
            local[item] += 1
    for index in range(count):
        item = listed[index]
        ends[index], counts[index] = filled, local[item]
        filled += local[item]
        last[index], local[item] = filled, index
    entry = 0
    room = (local, ends, last, buffers.holders, buffers.entry_item, buffers.entry_next)
    for position, user in enumerate(users):
        entry = _enter(items, starts[user], splits[user], (position, entry), which, room)
        entry_split[position] = entry
        entry = _enter(items, splits[user], starts[user + 1], (position, entry), which, room)
        entry_end[position] = entry
    for item in listed[:count]:
        local[item] = 0
    return count


@compiled(division="numpy")
def _enter(items: Ints, begin: int, stop: int, at: Any, which: Any, room: Any) -> int:
    """Add a user, by position in S, to the holders of items[begin:stop]; returns the next free entry.

    The last holder of an item has no later holder, and needs no entry.
    """
    (position, entry), (row, bits, limit) = at, which
    local, ends, last, holders, entry_item, entry_next = room
    for index in range(np.uint64(begin), np.uint64(stop)):
        item = np.uint32(items[index])
        listed, bit = np.uint32(local[item]), bits[item]
        end = ends[listed]
        holders[end] = position
        ends[listed] = end + 1
        entry_item[entry], entry_next[entry] = listed, end + 1
        wanted = (item != np.uint32(row)) & ((bit < limit) | (bit == MASKED))
        entry += wanted & (end + 1 < np.int64(last[listed]))
    return int(entry)


@compiled(division="numpy")
def _distribute(patterns: int, index: int, buffers: Any, by_bit: Any) -> None:
    """Add the weight of each set of head items to the scores of its items, and clear the table."""
    by_head, shared, scores = buffers.by_head, by_bit.shared, by_bit.scores
    for pattern in buffers.seen[:patterns]:
        weight, by_head[pattern] = by_head[pattern], 0.0
        shared[pattern] += weight
        rest = np.uint64(pattern)
        while rest:
            lowest = rest & (~rest + np.uint64(1))
            scores[index, ones(lowest - np.uint64(1))] += weight
            rest ^= lowest


@compiled(division="numpy")
def _popular_columns(users: int, count: int, index: int, which: Any, buffers: Any, by_bit: Any) -> None:
    """Write the row's scores and common users with each popular item below the limit."""
    limit, bits = which
    below = ~np.uint64(0) if limit == MASKED else (np.uint64(1) << np.uint64(limit)) - np.uint64(1)
    both, scores, items, sums = by_bit.users, by_bit.scores, buffers.listed, buffers.scores
    for mask in buffers.masks[:users]:
        rest = mask & below
        while rest:
            lowest = rest & (~rest + np.uint64(1))
            both[index, ones(lowest - np.uint64(1))] += np.int32(1)
            rest ^= lowest
    for listed in range(count):
        bit = bits[items[listed]]
        if bit < limit:
            scores[index, bit] = sums[listed]


@compiled(division="numpy")
def _write_row(count: int, which: Any, scale: float, heads: int, buffers: Any, by_bit: Any, out: Any) -> None:
    """Write the best items with two common users or more, head items too, and clear the scores."""
    index, row = which
    listed, counts, sums = buffers.listed, buffers.counts, buffers.scores
    items, scores, users = buffers.best, buffers.best_scores, buffers.best_users
    filled = 0
    for entry in range(count):
        items[filled], scores[filled], users[filled] = listed[entry], sums[entry] * scale, counts[entry]
        filled += (counts[entry] > 1) & (listed[entry] != row)
        sums[entry] = 0.0
    popular, popular_scores, both = by_bit.items, by_bit.scores, by_bit.users
    for bit in range(heads):
        items[filled], scores[filled] = popular[bit], popular_scores[index, bit]
        users[filled] = both[index, bit]
        filled += both[index, bit] > 1
    keep_best(filled, index, (items, scores, users), out)


@compiled(division="numpy")
def _add_pairs(users: int, parts: Floats, heads: int, popular: bool, buffers: Any) -> int:
    """Add w_u * w_v / (alpha + common items) of every pair u < v to the score of each common item.

    A popular row leaves out items without a bit, whose rows compute these scores. Returns the number of
    distinct sets of head items that pairs share.
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


@compiled(division="numpy")
def _count(common: Unsigned, holders: Unsigned, begin: np.uint64, end: np.uint64) -> None:
    """Add 1 to the common items of each of the holders."""
    for h in range(begin, end):
        common[holders[h]] += np.uint32(1)


@compiled(division="numpy")
def _meet(u: int, users: int, head: np.uint64, meeting: Any) -> None:
    """Number of items that u shares with each later user, and the shared head items as bits."""
    masks, common, shares, patterns = meeting
    mask = masks[u]
    for v in range(np.uint64(u + 1), np.uint64(users)):
        both = mask & masks[v]
        patterns[v] = both & head
        shares[v] = ones(both) + common[v]
        common[v] = np.uint32(0)


@compiled(division="numpy")
def _weigh(u: int, users: int, weighing: Any) -> None:
    """Gain w_v / (alpha + common items) of each later user v."""
    weights, shares, gains, parts = weighing
    for v in range(np.uint64(u + 1), np.uint64(users)):
        gains[v] = weights[v] * parts[shares[v]]


@compiled(division="numpy")
def _weigh_by_head(u: int, users: int, count: int, weighing: Any, adding: Any) -> int:
    """Gains as in `_weigh`, also added up by the shared head items; returns the number of sets in `seen`."""
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


@compiled(division="numpy", inline=True)
def ones(x: np.uint64) -> np.uint64:
    """Number of set bits; compilers replace these lines by one machine instruction."""
    x = x - ((x >> np.uint64(1)) & np.uint64(0x5555555555555555))
    x = (x & np.uint64(0x3333333333333333)) + ((x >> np.uint64(2)) & np.uint64(0x3333333333333333))
    x = (x + (x >> np.uint64(4))) & np.uint64(0x0F0F0F0F0F0F0F0F)
    return (x * np.uint64(0x0101010101010101)) >> np.uint64(56)


@compiled(division="numpy")
def _total(gains: Floats, holders: Unsigned, begin: np.uint64, end: np.uint64) -> float:
    """Sum of the holders' gains, as four partial sums to hide the latency of additions; in a fixed order."""
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


@compiled(division="numpy")
def keep_best(count: int, row: int, columns: Any, out: Any) -> None:
    """Write the top k of the first `count` entries to a row of `out`, by (-score, item number).

    An insertion sort: once the row is full, few entries enter it.

    Args:
        count: entries to choose from.
        row: of `out`.
        columns: items int32, scores float64 and users int32, by entry.
        out: neighbors, scores and users [rows, k], and the number of filled columns [rows].
    """
    items, scores, users = columns
    neighbors, kept, both, filled = out
    size, width = np.uint64(0), np.uint64(neighbors.shape[1])
    for entry in range(count):
        item, score = items[entry], scores[entry]
        if size == width:
            last = width - np.uint64(1)
            if _before(kept[row, last], neighbors[row, last], score, item):
                continue
            column = last
        else:
            column = size
            size += np.uint64(1)
        while column > 0:
            above = column - np.uint64(1)
            if _before(kept[row, above], neighbors[row, above], score, item):
                break
            neighbors[row, column], kept[row, column] = neighbors[row, above], kept[row, above]
            both[row, column] = both[row, above]
            column = above
        neighbors[row, column], kept[row, column], both[row, column] = item, score, users[entry]
    filled[row] = size


@compiled(division="numpy")
def _before(score: float, item: int, other_score: float, other_item: int) -> bool:
    """True where an entry comes before another one."""
    return bool(score > other_score or (score == other_score and item < other_item))
