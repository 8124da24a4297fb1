"""The Swing kernel: an item's scores from its own users, without an items x items table.

For item i with users S, the other items that two or more of S have are listed with those of S who have
them (the item's holders, ascending). The pairs u < v of S are then walked u by u: the holders after u
of each of u's items tell how many items u shares with every later v, hence the weight of each pair; a
second walk over the same lists adds the weights up for each shared item. Work: twice the number of
shared items of each pair of S. Memory: a few numbers per item, and per click of S. The order of
additions depends on i alone, so the bits are the same on any number of threads; it is also the same
for (i, j) and (j, i), so that exact scores are exactly symmetric.
"""

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from numba import njit

__all__ = ["score_items"]

Ints = npt.NDArray[np.int32]
Places = npt.NDArray[np.uint32]  # unsigned, because numba guards signed indices against wrap-around
Longs = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]


class _Scratch(NamedTuple):
    """Room for one item at a time; `local` is all zero between items."""

    local: Ints  # [items] 1 + place in `shared`, 0 for items that do not count
    shared: Ints  # [items] item number of each listed item
    ends: Longs  # [items] where its holders end
    scores: Floats  # [items]
    heap: Ints  # [items]
    holders: Places  # [clicks of S] places in S, list after list
    entry_item: Ints  # [clicks of S] per user of S, her listed items
    entry_next: Longs  # [clicks of S] where the holders after her begin
    entry_end: Longs  # [S]
    weights: Floats  # [S]
    common: Ints  # [S] items shared with the current user, i included
    gains: Floats  # [S]


@njit(nogil=True, cache=True, error_model="numpy")
def score_items(rows: Ints, lists: Any, weights: Floats, scale: Floats, alpha: float, out: Any) -> None:
    """Fill a row of `out` (neighbors, scores, users, found) for each item of `rows`.

    lists: starts and values by user, then by item, as in `Lists`; weights, scale and alpha as in `Scoring`.
    """
    user_starts, user_items, item_starts, item_users = lists
    scratch = _scratch(rows, lists)
    for place, row in enumerate(rows):
        users = item_users[item_starts[row] : item_starts[row + 1]]
        count = _list_holders(row, users, user_starts, user_items, scratch)
        for u, user in enumerate(users):
            scratch.weights[u] = weights[user]
        _add_pairs(len(users), alpha, scratch)
        _take_best(count, place, scale[row], scratch, out)


@njit(nogil=True, cache=True, error_model="numpy")
def _scratch(rows: Ints, lists: Any) -> Any:
    user_starts, _, item_starts, item_users = lists
    most_users = most_clicks = 0
    for row in rows:
        clicks = 0
        for user in item_users[item_starts[row] : item_starts[row + 1]]:
            clicks += user_starts[user + 1] - user_starts[user]
        most_clicks = max(most_clicks, clicks)
        most_users = max(most_users, item_starts[row + 1] - item_starts[row])
    items = len(item_starts) - 1
    return _Scratch(
        np.zeros(items, np.int32),
        np.empty(items, np.int32),
        np.empty(items, np.int64),
        np.zeros(items, np.float64),
        np.empty(items, np.int32),
        np.empty(most_clicks, np.uint32),
        np.empty(most_clicks, np.int32),
        np.empty(most_clicks, np.int64),
        np.empty(most_users, np.int64),
        np.empty(most_users, np.float64),
        np.ones(most_users, np.int32),
        np.empty(most_users, np.float64),
    )


@njit(nogil=True, cache=True, error_model="numpy")
def _list_holders(row: int, users: Ints, user_starts: Longs, user_items: Ints, scratch: Any) -> int:
    """List the items that two or more of `users` have, with their holders; returns how many."""
    local, shared, ends = scratch.local, scratch.shared, scratch.ends
    seen = 0
    for user in users:
        for item in user_items[user_starts[user] : user_starts[user + 1]]:
            if local[item] == 0:
                shared[seen] = item
                seen += 1
            local[item] += 1
    local[row] = 0
    count = filled = 0
    for item in shared[:seen]:
        holders, local[item] = local[item], 0
        if holders > 1:
            shared[count], ends[count] = item, filled
            filled += holders
            count += 1
            local[item] = count
    entry = 0
    for place, user in enumerate(users):
        for item in user_items[user_starts[user] : user_starts[user + 1]]:
            if local[item]:
                listed = local[item] - 1
                scratch.holders[ends[listed]] = place
                ends[listed] += 1
                scratch.entry_item[entry], scratch.entry_next[entry] = listed, ends[listed]
                entry += 1
        scratch.entry_end[place] = entry
    return count


@njit(nogil=True, cache=True, error_model="numpy")
def _add_pairs(users: int, alpha: float, scratch: Any) -> None:
    """Add w_u * w_v / (alpha + items in common) of every pair u < v to each listed item both have."""
    items, after, ends, holders = scratch.entry_item, scratch.entry_next, scratch.ends, scratch.holders
    common, gains, weights = scratch.common, scratch.gains, scratch.weights
    begin = 0
    for u in range(users - 1):
        end = scratch.entry_end[u]
        if begin < end:
            for entry in range(begin, end):
                _count(common, holders[after[entry] : ends[items[entry]]])
            _weigh(gains[u + 1 : users], common[u + 1 : users], weights[u + 1 : users], alpha)
            for entry in range(begin, end):
                total = _total(gains, holders[after[entry] : ends[items[entry]]])
                scratch.scores[items[entry]] += weights[u] * total
        begin = end


@njit(nogil=True, cache=True, error_model="numpy")
def _count(common: Ints, places: Places) -> None:
    for place in places:
        common[place] += 1


@njit(nogil=True, cache=True, error_model="numpy")
def _weigh(gains: Floats, common: Ints, weights: Floats, alpha: float) -> None:
    for v in range(len(gains)):
        gains[v] = weights[v] / (alpha + common[v])
        common[v] = 1


@njit(nogil=True, cache=True, error_model="numpy")
def _total(gains: Floats, places: Places) -> float:
    """Sum of gains[places] in four lanes, which hides the latency of additions; the order is fixed."""
    a = b = c = d = 0.0
    whole = len(places) // 4 * 4
    for p in range(0, whole, 4):
        a += gains[places[p]]
        b += gains[places[p + 1]]
        c += gains[places[p + 2]]
        d += gains[places[p + 3]]
    for p in range(whole, len(places)):
        a += gains[places[p]]
    return (a + b) + (c + d)


@njit(nogil=True, cache=True, error_model="numpy")
def _take_best(count: int, row: int, scale: float, scratch: Any, out: Any) -> None:
    """Write the best listed items, best first, and clear the scratch for the next item."""
    scores, items, heap = scratch.scores, scratch.shared, scratch.heap
    for listed in range(count):
        scores[listed] *= scale
    size = min(count, out.neighbors.shape[1])
    for place in range(size):
        heap[place] = place
    for root in range(size // 2 - 1, -1, -1):
        _sink(heap, root, size, scores, items)
    for candidate in range(size, count):
        if _worse(heap[0], candidate, scores, items):
            heap[0] = candidate
            _sink(heap, 0, size, scores, items)
    for last in range(size - 1, 0, -1):
        heap[0], heap[last] = heap[last], heap[0]
        _sink(heap, 0, last, scores, items)
    for place in range(size):
        best = heap[place]
        begin = scratch.ends[best - 1] if best else 0
        out.neighbors[row, place] = items[best]
        out.scores[row, place] = scores[best]
        out.users[row, place] = scratch.ends[best] - begin
    out.found[row] = size
    for listed in range(count):
        scratch.local[items[listed]] = 0
        scores[listed] = 0.0


@njit(nogil=True, cache=True, error_model="numpy")
def _worse(x: int, y: int, scores: Floats, items: Ints) -> bool:
    return bool(scores[x] < scores[y] or (scores[x] == scores[y] and items[x] > items[y]))


@njit(nogil=True, cache=True, error_model="numpy")
def _sink(heap: Ints, root: int, size: int, scores: Floats, items: Ints) -> None:
    """Restore the heap, whose root is the worst, below `root`."""
    while 2 * root + 1 < size:
        child = 2 * root + 1
        if child + 1 < size and _worse(heap[child + 1], heap[child], scores, items):
            child += 1
        if not _worse(heap[child], heap[root], scores, items):
            return
        heap[root], heap[child] = heap[child], heap[root]
        root = child
