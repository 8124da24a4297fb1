"""How long before a row its history's events were, in buckets that double in width."""

from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["BUCKETS", "gap_buckets"]

BUCKETS = 65


def gap_buckets(gaps: npt.NDArray[np.integer[Any]]) -> npt.NDArray[np.int64]:
    """0 for a gap of 0 or less, else 1 + the whole part of its binary logarithm; whatever its unit."""
    exponents: npt.NDArray[np.int32] = np.frexp(np.maximum(gaps, 0).astype(np.float64))[1]
    return exponents.astype(np.int64)
