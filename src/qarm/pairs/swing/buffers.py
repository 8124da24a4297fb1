"""Buffers of the Swing kernel: memory for one item at a time, allocated once for a bucket of items."""

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from qarm.core.parallel.numba_jit import compiled

__all__ = ["MASKED", "Buffers", "buffers_for"]

Ints = npt.NDArray[np.int32]
Unsigned = npt.NDArray[np.uint32]  # unsigned, because numba guards signed indices against wrap-around
Longs = npt.NDArray[np.int64]
Masks = npt.NDArray[np.uint64]
Floats = npt.NDArray[np.float64]
MASKED = 64  # items that have a bit in the users' masks


class Buffers(NamedTuple):
    """Buffers for one item with users S.

    `local`, `scores`, `common` and `by_head` are zero between items.
    """

    local: Ints  # [items] number of holders, then row in `listed`
    listed: Ints  # [items] item number of each listed item
    best: Ints  # [items] item number of each candidate for the top k
    best_scores: Floats  # [items]
    best_users: Ints  # [items]
    ends: Longs  # [items] end of its holders so far
    last: Masks  # [items] end of all its holders
    counts: Ints  # [items] number of its holders
    scores: Floats  # [items]
    holders: Unsigned  # [clicks of S] positions in S, list after list
    entry_item: Ints  # [clicks of S] listed items of each user of S, those without a bit first
    entry_next: Masks  # [clicks of S] start of the holders after the user
    entry_split: Longs  # [S] start of the user's items with a bit
    entry_end: Longs  # [S]
    weights: Floats  # [S]
    masks: Masks  # [S]
    common: Unsigned  # [S] items without a bit that are shared with the current user
    shares: Unsigned  # [S] all items that are shared with the current user
    patterns: Unsigned  # [S] head items that are shared with the current user, as bits
    gains: Floats  # [S]
    by_head: Floats  # [2 ** head items] weight of the pairs, by the set of head items that they share
    seen: Ints  # [2 ** head items] which of these are not zero


@compiled(division="numpy")
def buffers_for(rows: Ints, lists: Any, heads: int) -> Any:
    """Buffers large enough for each of the items `rows`; lists and heads as in `score_items`."""
    tail, item_starts, item_users = lists
    most_users = most_clicks = 0
    for row in rows:
        clicks = 0
        for user in item_users[item_starts[row] : item_starts[row + 1]]:
            clicks += tail.starts[user + 1] - tail.starts[user]
        most_clicks = max(most_clicks, clicks)
        most_users = max(most_users, item_starts[row + 1] - item_starts[row])
    items = len(item_starts) - 1
    return Buffers(
        np.zeros(items + MASKED, np.int32),
        np.empty(items + MASKED, np.int32),
        np.empty(items + MASKED, np.int32),
        np.empty(items + MASKED, np.float64),
        np.empty(items + MASKED, np.int32),
        np.empty(items, np.int64),
        np.empty(items, np.uint64),
        np.empty(items, np.int32),
        np.zeros(items, np.float64),
        np.empty(most_clicks, np.uint32),
        np.empty(most_clicks + 1, np.int32),
        np.empty(most_clicks + 1, np.uint64),
        np.empty(most_users, np.int64),
        np.empty(most_users, np.int64),
        np.empty(most_users, np.float64),
        np.empty(most_users, np.uint64),
        np.zeros(most_users, np.uint32),
        np.empty(most_users, np.uint32),
        np.empty(most_users, np.uint32),
        np.empty(most_users, np.float64),
        np.zeros(1 << heads, np.float64),
        np.empty(1 << heads, np.int32),
    )
