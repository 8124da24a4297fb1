"""Exact sums of rows per code in 64-bit fixed point, independent of the order.

Integers add up to the same total in any order, so threads, tiles and processes may be cut as one likes,
and a row that moves from one code to another is subtracted and added without a trace.
"""

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from qarm.core.parallel.numba_jit import compiled

__all__ = ["FixedPointSums"]

_BITS = 62  # one for the sign, one to spare


@dataclass
class FixedPointSums:
    """Sums and counts of the rows of each code.

    totals: int64 [width, d], in units of 1 / scale; counts: int64 [width]; moved: rows taken in so far.
    """

    totals: npt.NDArray[np.int64]
    counts: npt.NDArray[np.int64]
    scale: float
    moved: int = 0

    @classmethod
    def empty(cls, width: int, dim: int, *, rows: int, largest: float) -> "FixedPointSums":
        """Zero sums whose unit is the finest that `rows` values up to `largest` cannot overflow."""
        _, exponent = math.frexp(largest)
        bits = _BITS - rows.bit_length() - exponent
        totals = np.zeros((width, dim), dtype=np.int64)
        return cls(totals, np.zeros(width, dtype=np.int64), math.ldexp(1.0, min(bits, 1000)))

    def like(self) -> "FixedPointSums":
        """Zero sums in the same unit."""
        return FixedPointSums(np.zeros_like(self.totals), np.zeros_like(self.counts), self.scale)

    def add(self, other: "FixedPointSums") -> None:
        """Add sums in the same unit."""
        self.totals += other.totals
        self.counts += other.counts

    def move(
        self, rows: npt.NDArray[np.float32], old: npt.NDArray[np.int32], new: npt.NDArray[np.int32]
    ) -> None:
        """Take rows float32 [n, d] from codes `old` (-1: from none) to `new`; `moved` counts them."""
        self.moved += _move(rows, old, new, self.scale, self.totals, self.counts)

    def means(self, fallback: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """Mean row of each code, float32 [width, d]; of a code without rows, its row of `fallback`."""
        centroids = fallback.copy()
        used = self.counts > 0
        totals = self.totals[used].astype(np.float64) / self.scale
        centroids[used] = totals / self.counts[used][:, None]
        return centroids


@compiled()
def _move(
    rows: npt.NDArray[np.float32],
    old: npt.NDArray[np.int32],
    new: npt.NDArray[np.int32],
    scale: float,
    totals: npt.NDArray[np.int64],
    counts: npt.NDArray[np.int64],
) -> int:
    moved = 0
    for i in range(rows.shape[0]):
        source, target = old[i], new[i]
        if source == target:
            continue
        moved += 1
        counts[target] += 1
        for j in range(rows.shape[1]):
            totals[target, j] += np.int64(np.rint(rows[i, j] * scale))
        if source >= 0:
            counts[source] -= 1
            for j in range(rows.shape[1]):
                totals[source, j] -= np.int64(np.rint(rows[i, j] * scale))
    return moved
