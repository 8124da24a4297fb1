"""Residual energy: the share of the vectors' squared length that the levels of a code leave."""

from typing import Protocol

import numpy as np
import numpy.typing as npt

__all__ = ["Decoder", "residual_energies"]

_TILE = 16384


class Decoder(Protocol):
    """A quantiser's widths, and the vectors that the first columns of codes stand for."""

    widths_: list[int]

    def inverse_transform(self, codes: npt.ArrayLike) -> npt.NDArray[np.float32]:
        """Vectors float32 [n, d] of codes [n, levels]."""


def residual_energies(
    vectors: npt.NDArray[np.float32], table: npt.NDArray[np.int32], quantizer: Decoder
) -> list[float]:
    """Squared length of what the first 1, 2, ... levels leave, over that of the vectors; 0 of zero vectors.

    Args:
        vectors: float32 [n, d].
        table: codes of the same rows, int32 [n, levels].
        quantizer: that made the codes.
    """
    energies = np.zeros(table.shape[1] + 1)
    for start in range(0, len(table), _TILE):
        tile = vectors[start : start + _TILE].astype(np.float64)
        energies[0] += np.square(tile).sum()
        for level in range(1, table.shape[1] + 1):
            decoded = quantizer.inverse_transform(table[start : start + _TILE, :level])
            energies[level] += np.square(tile - decoded).sum()
    total = float(energies[0])
    return [float(energy) / total if total > 0.0 else 0.0 for energy in energies[1:]]
