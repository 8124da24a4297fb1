"""A random order of n things that is computed, not stored: any stretch of it, at any time, in no memory."""

import numpy as np
import numpy.typing as npt

__all__ = ["Shuffle"]

ROUNDS = 4  # of a Feistel network: from four on, no pattern is known short of an attack
MIX = (np.uint64(0x9E3779B97F4A7C15), np.uint64(0xBF58476D1CE4E5B9))


class Shuffle:
    """A permutation of 0..n-1, drawn by seed: a Feistel network (Luby & Rackoff 1988) with cycle walking."""

    def __init__(self, n: int, *, seed: int | list[int]) -> None:
        self.n = n
        self._half = max(1, (max(n - 1, 1).bit_length() + 1) // 2)
        self._keys = np.random.default_rng(seed).integers(0, 2**63, ROUNDS, dtype=np.uint64)

    def __len__(self) -> int:
        return self.n

    def take(self, start: int, stop: int) -> npt.NDArray[np.int64]:
        """Places start..stop-1 of the order, int64 [stop - start]."""
        values = self._once(np.arange(start, min(stop, self.n), dtype=np.uint64))
        while (outside := values >= self.n).any():
            values[outside] = self._once(values[outside])
        return values.astype(np.int64)

    def _once(self, values: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
        bits = np.uint64(self._half)
        mask = (np.uint64(1) << bits) - np.uint64(1)
        left, right = values >> bits, values & mask
        for key in self._keys:
            mixed = (right ^ key) * MIX[0]
            mixed = (mixed ^ (mixed >> np.uint64(32))) * MIX[1]
            left, right = right, left ^ ((mixed ^ (mixed >> np.uint64(29))) & mask)
        return (left << bits) | right
