"""The best of many scores, without sorting them all: by (-score, item number), whatever their order was."""

from typing import Any

import numpy as np
import numpy.typing as npt
from numba import njit

__all__ = ["keep_best"]

Ints = npt.NDArray[np.int32]
Floats = npt.NDArray[np.float64]


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
