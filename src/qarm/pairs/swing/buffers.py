"""Buffers of the Swing kernel: memory for one item at a time, allocated once for a bucket of items."""

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from numba import njit

__all__ = ["MASKED", "Buffers", "buffers_for"]

Ints = npt.NDArray[np.int32]
Places = npt.NDArray[np.uint32]  # unsigned, because numba guards signed indices against wrap-around
Longs = npt.NDArray[np.int64]
Masks = npt.NDArray[np.uint64]
Floats = npt.NDArray[np.float64]
MASKED = 64  # items that have a bit in the users' masks


class Buffers(NamedTuple):
    """`local`, `scores`, `common` and `by_head` are zero between items; S are the users of the item."""

    local: Ints  # [items] holders, then place in `listed`
    listed: Ints  # [items] item number of each listed item
    best: Ints  # [items] item number of those to choose from
    best_scores: Floats  # [items]
    best_users: Ints  # [items]
    ends: Longs  # [items] where its holders end, as far as they are listed
    last: Masks  # [items] where they end when all are
    counts: Ints  # [items] how many holders it has
    scores: Floats  # [items]
    holders: Places  # [clicks of S] places in S, list after list
    entry_item: Ints  # [clicks of S] per user of S, her listed items, those without a bit first
    entry_next: Masks  # [clicks of S] where the holders after her begin
    entry_split: Longs  # [S] where her items with a bit begin
    entry_end: Longs  # [S]
    weights: Floats  # [S]
    masks: Masks  # [S]
    common: Places  # [S] items without a bit that are shared with the current user
    shares: Places  # [S] all items that are shared with the current user
    patterns: Places  # [S] head items that are shared with the current user, as bits
    gains: Floats  # [S]
    by_head: Floats  # [2 ** head items] weight of the pairs, by the head items that they share
    seen: Ints  # [2 ** head items] which of these are not zero


@njit(nogil=True, cache=True, error_model="numpy")
def buffers_for(rows: Ints, lists: Any, heads: int) -> Any:
    """Buffers large enough for each of the items `rows`; lists and heads as in `score_items`."""
    walked, item_starts, item_users = lists
    most_users = most_clicks = 0
    for row in rows:
        clicks = 0
        for user in item_users[item_starts[row] : item_starts[row + 1]]:
            clicks += walked.starts[user + 1] - walked.starts[user]
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
