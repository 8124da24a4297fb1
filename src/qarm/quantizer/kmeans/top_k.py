"""Top k: the k smallest numbers of each row of a matrix that arrives in blocks."""

import numpy as np
import numpy.typing as npt

from qarm.core.parallel.numba_jit import compiled

__all__ = ["keep_smallest"]

_LANES, _STRETCH = 64, 1024

FloatRows = npt.NDArray[np.float32]


@compiled(reorder=True)
def _lane_minima(block: FloatRows, i: int, first: int, minima: FloatRows) -> None:
    """Smallest numbers of row i among columns first + k, first + k + 64, ..., for each lane k."""
    for k in range(_LANES):
        minima[k] = block[i, first + k]
    for c in range(first + _LANES, first + _STRETCH, _LANES):
        for k in range(_LANES):
            minima[k] = min(minima[k], block[i, c + k])


@compiled()
def _offer(value: np.float32, column: int, i: int, values: FloatRows, columns: npt.NDArray[np.int64]) -> None:
    """Take the place of the largest number kept, then find the largest again."""
    values[i, 0], columns[i, 0] = value, column
    worst = 0
    for slot in range(1, values.shape[1]):
        if values[i, slot] > values[i, worst]:
            worst = slot
    values[i, 0], values[i, worst] = values[i, worst], values[i, 0]
    columns[i, 0], columns[i, worst] = columns[i, worst], columns[i, 0]


@compiled()
def keep_smallest(
    block: FloatRows,
    start: int,
    skip: npt.NDArray[np.int64],
    values: FloatRows,
    columns: npt.NDArray[np.int64],
) -> None:
    """Merge a block into the smallest numbers so far; of equal ones, any may stay.

    Args:
        block: float32 [n, m] without NaN, columns start to start + m of the whole.
        start: column of the whole that the block begins with.
        skip: int64 [n], a column that does not count; -1 for none.
        values: changed, float32 [n, k], the k smallest numbers of each row so far in no order, but with the
            largest of them in slot 0; infinite at first.
        columns: changed, int64 [n, k], where they are; -1 at first.
    """
    minima = np.empty(_LANES, dtype=np.float32)
    whole = block.shape[1] - block.shape[1] % _STRETCH
    for i in range(block.shape[0]):
        for first in range(0, whole, _STRETCH):
            _lane_minima(block, i, first, minima)
            for k in range(_LANES):
                if minima[k] < values[i, 0]:
                    for j in range(first + k, first + _STRETCH, _LANES):
                        if block[i, j] < values[i, 0] and start + j != skip[i]:
                            _offer(block[i, j], start + j, i, values, columns)
        for j in range(whole, block.shape[1]):
            if block[i, j] < values[i, 0] and start + j != skip[i]:
                _offer(block[i, j], start + j, i, values, columns)
