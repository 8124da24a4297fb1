"""Compiled kernels of the assignment: rounding of rows, scores, exact decision of near ties.

Arrays come with an index, never as slices: a slice per row would cost more than the work on it.
"""

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from numba import types
from numba.extending import overload

from qarm.core.parallel.numba_jit import compiled

__all__ = [
    "HALF",
    "LANES",
    "SHARE",
    "Bounds",
    "Buffers",
    "RowBounds",
    "buffers_for",
    "centre_rows",
    "distances_to",
    "halve_rows",
    "round_rows",
    "settle",
    "settle_rows",
    "squared_distance",
]

LANES = 64  # scores side by side, each lane with its own minimum
UNIT = 2.0**-24  # unit roundoff of float32
HALF = 2.0**-9  # unit roundoff of bfloat16
SUBNORMAL = 2.4e-38  # below it matrix units may read zero
TINY = 1e-30  # absolute slack, for values whose squares leave the normal float32 range
SMALLEST_UNIT = 1e-15  # of 8-bit rows, so that its inverse stays finite
SHARE = 0.007  # of a length that rounding to 8 bits loses, about; bounds hold for any

FloatRows = npt.NDArray[np.float32]


@compiled(reorder=True)
def _centre(rows: FloatRows, i: int, mean: FloatRows, out: FloatRows, o: int) -> float:
    """Row i minus the mean, into row o of `out`; returns its length."""
    square = np.float32(0.0)
    for j in range(mean.shape[0]):
        value = rows[i, j] - mean[j]
        out[o, j] = value
        square += value * value
    return float(np.sqrt(np.float64(square)))


@compiled()
def _largest(bits: npt.NDArray[np.int32]) -> np.int32:
    """Bits of the largest absolute value of row 0: as integers, because these are compared 16 at a time."""
    most = np.int32(0)
    for j in range(bits.shape[1]):
        most = max(most, np.int32(bits[0, j] & np.int32(0x7FFFFFFF)))
    return most


@compiled(reorder=True)
def _round(centred: FloatRows, small: npt.NDArray[np.int8], i: int, step: np.float32) -> float:
    """The centred row as 8-bit multiples of `step`; returns the length of what rounding lost."""
    lost, inverse = np.float32(0.0), np.float32(1.0) / step
    for j in range(small.shape[1]):
        nearest = np.rint(centred[0, j] * inverse)
        small[i, j] = np.int8(nearest)
        gap = centred[0, j] - nearest * step
        lost += gap * gap
    return float(np.sqrt(np.float64(lost)))


@compiled()
def round_rows(
    rows: FloatRows,
    mean: FloatRows,
    reach: float,
    small: npt.NDArray[np.int8],
    scale: FloatRows,
    margin: FloatRows,
    slack: FloatRows,
) -> None:
    """Centred rows [n, d] as 8-bit integers, and what bounds the errors of their scores.

    With y a centred row, z a centred centroid and y', z' their rounded forms,
    |y.z - y'.z'| <= |y - y'| |z| + |y'| |z - z'| <= margin (SHARE |z| + |z - z'|), by Cauchy and Schwarz
    and as margin = max(|y - y'| / SHARE, |y'|). Products of integers are exact; sixteen units of roundoff
    cover the float32 steps around them, 0.2 % those of the lengths.

    Args:
        rows: float32 [n, d].
        mean: float32 [d], subtracted from rows.
        reach: largest |z|.
        small: filled, int8 [n, d].
        scale: filled, float32 [n]: 1 / unit of the row, in which its scores are kept.
        margin: filled, float32 [n], as above, in that unit.
        slack: filled, float32 [n]: the error that does not depend on the centroid, twice, in that unit.
    """
    centred, most = np.empty((1, rows.shape[1]), dtype=np.float32), np.empty(1, dtype=np.float32)
    bits, most_bits = centred.view(np.int32), most.view(np.int32)
    for i in range(rows.shape[0]):
        length = _centre(rows, i, mean, centred, 0)
        most_bits[0] = _largest(bits)
        unit = np.float32(max(most[0] / 127.0, reach * 1e-12, SMALLEST_UNIT))
        lost = 1.002 * _round(centred, small, i, unit)
        length = 1.002 * length + lost
        scale[i] = 1.0 / np.float64(unit)
        margin[i] = 1.001 * max(lost / SHARE, length) / np.float64(unit)
        slack[i] = 2.0 * (16.0 * UNIT * (length + reach) * reach + TINY) / np.float64(unit)


@compiled()
def centre_rows(
    rows: FloatRows,
    mean: FloatRows,
    reach: float,
    centred: FloatRows,
    scale: FloatRows,
    margin: FloatRows,
    slack: FloatRows,
) -> None:
    """As `round_rows`, for products in float32: y' = y.

    Such a product of length d errs by at most d u |y| |z| to first order, in any order of adding
    (Higham, Accuracy and Stability of Numerical Algorithms, section 3.1).
    """
    for i in range(rows.shape[0]):
        length = 1.002 * _centre(rows, i, mean, centred, i)
        scale[i] = 1.0
        margin[i] = length
        slack[i] = 2.0 * ((rows.shape[1] + 16.0) * UNIT * (length + reach) * reach + TINY)


@compiled()
def halve_rows(
    rows: FloatRows,
    mean: FloatRows,
    reach: float,
    half: npt.NDArray[np.int16],
    scale: FloatRows,
    margin: FloatRows,
    slack: FloatRows,
) -> None:
    """As `round_rows`, for products in bfloat16 that are added in float32 and rounded to bfloat16.

    |y - y'| <= HALF |y|, and the product itself loses HALF of at most |y'| |z'|: the centroids' spreads hold
    both shares. `half` is filled with the bits of y'.
    """
    centred = np.empty((1, rows.shape[1]), dtype=np.float32)
    bits = centred.view(np.uint32)
    dim = rows.shape[1]
    for i in range(rows.shape[0]):
        length = 1.002 * _centre(rows, i, mean, centred, 0)
        for j in range(dim):
            even = (bits[0, j] >> np.uint32(16)) & np.uint32(1)
            half[i, j] = np.int16((bits[0, j] + np.uint32(0x7FFF) + even) >> np.uint32(16))
        scale[i] = 1.0
        margin[i] = 1.003 * length
        rounding = (2.0 * dim + 16.0) * UNIT * (length + reach) * reach
        slack[i] = 2.0 * (rounding + dim * SUBNORMAL * (length + reach) + TINY)


def _number(product: Any) -> Any:
    """A product as float32; 16 bits are those of a bfloat16."""


@overload(_number, inline="always")
def _typed_number(product):  # type: ignore[no-untyped-def]  # numba compares signatures
    if product == types.uint16:
        return lambda product: np.uint32(np.uint32(product) << np.uint32(16)).view(np.float32)
    return lambda product: np.float32(product)


def _score(product: Any, half_norm: Any, step: Any, scale: Any) -> Any:
    """|z|^2 / 2 - y.z by the rounded product; only integers come in units."""


@overload(_score, inline="always")
def _typed_score(product, half_norm, step, scale):  # type: ignore[no-untyped-def]
    if product == types.int32:
        return lambda product, half_norm, step, scale: half_norm * scale - step * np.float32(product)
    return lambda product, half_norm, step, scale: half_norm - _number(product)


@compiled(reorder=True)
def _low(
    products: npt.NDArray[np.int32],
    i: int,
    c: int,
    k: int,
    half_norms: FloatRows,
    steps: FloatRows,
    spreads: FloatRows,
    scale: np.float32,
    margin: np.float32,
) -> np.float32:
    """Lower bound of the score of one centroid, but for the slack."""
    score = _score(products[i, c, k], half_norms[c, k], steps[c, k], scale)
    return np.float32(score - margin * spreads[c, k])


@compiled(reorder=True)
def _lane_minima(
    products: npt.NDArray[np.int32],
    i: int,
    half_norms: FloatRows,
    steps: FloatRows,
    scale: np.float32,
    minima: FloatRows,
) -> np.float32:
    """The smallest score of each lane; returns the smallest of all."""
    for k in range(LANES):
        minima[k] = np.inf
    chunks = half_norms.shape[0]
    for c in range(0, chunks - 3, 4):
        for k in range(LANES):
            one = min(
                _score(products[i, c, k], half_norms[c, k], steps[c, k], scale),
                _score(products[i, c + 1, k], half_norms[c + 1, k], steps[c + 1, k], scale),
            )
            other = min(
                _score(products[i, c + 2, k], half_norms[c + 2, k], steps[c + 2, k], scale),
                _score(products[i, c + 3, k], half_norms[c + 3, k], steps[c + 3, k], scale),
            )
            minima[k] = min(minima[k], min(one, other))
    for c in range(chunks - chunks % 4, chunks):
        for k in range(LANES):
            minima[k] = min(minima[k], _score(products[i, c, k], half_norms[c, k], steps[c, k], scale))
    least = np.float32(np.inf)
    for k in range(LANES):
        least = min(least, minima[k])
    return least


class Bounds(NamedTuple):
    """Centroids as scores read them, [chunks, 64] each.

    half_norms: |z|^2 / 2, infinite where there is no centroid; steps: units of the centroids; spreads:
    SHARE |z| + |z - z'|; widest: the largest spread.
    """

    half_norms: FloatRows
    steps: FloatRows
    spreads: FloatRows
    widest: np.float32


class RowBounds(NamedTuple):
    """Units, margins and slacks of rows, float32 [n] each, as `round_rows` fills them."""

    scale: FloatRows
    margin: FloatRows
    slack: FloatRows


class Buffers(NamedTuple):
    """Memory for one row: minima float32 [64], candidates int32 and about float64 [chunks * 64]."""

    minima: FloatRows
    candidates: npt.NDArray[np.int32]
    about: npt.NDArray[np.float64]


@compiled()
def buffers_for(size: int) -> Buffers:
    """Memory for rows of `size` padded centroids."""
    minima = np.empty(LANES, dtype=np.float32)
    return Buffers(minima, np.empty(size, dtype=np.int32), np.empty(size, dtype=np.float64))


@compiled()
def settle(products: Any, bounds: Any, row_bounds: Any, rows: Any, centroids: Any, codes: Any) -> None:
    """The nearest centroid among those that the bounds of their scores leave in question.

    Args:
        products: int32, bits of bfloat16 or float32 [n, chunks, 64], y'.z' of every row and centroid, in
            their units.
        bounds, row_bounds: `Bounds` of the centroids and `RowBounds` of the rows.
        rows: float32 [n, d].
        centroids: float32 [width, d].
        codes: filled, int32 [n].
    """
    buffers = buffers_for(bounds.half_norms.size)
    settle_rows(products, (0, rows.shape[0]), bounds, row_bounds, (rows, centroids), buffers, codes)


@compiled()
def settle_rows(
    products: Any, span: Any, bounds: Any, row_bounds: Any, vectors: Any, buffers: Any, codes: Any
) -> None:
    """As `settle` for rows span[0] to before span[1]; vectors: rows and centroids; buffers: `Buffers`."""
    half_norms, steps, spreads, widest = bounds
    scale, margin, slack = row_bounds
    rows, centroids = vectors
    minima, candidates, about = buffers
    chunks, width = half_norms.shape[0], centroids.shape[0]
    for i in range(span[0], span[1]):
        unit, room = scale[i], margin[i]
        least = _lane_minima(products, i, half_norms, steps, unit, minima)
        limit = least + room * widest + slack[i]  # the nearest one's score is no more than this
        count, most = 0, limit + room * widest
        for k in range(LANES):
            if minima[k] <= most:
                for c in range(chunks):
                    low = _low(products, i, c, k, half_norms, steps, spreads, unit, room)
                    if low <= limit and c * LANES + k < width:
                        candidates[count] = c * LANES + k
                        count += 1
        codes[i] = candidates[0] if count == 1 else _closest(rows, i, centroids, candidates, count, about)


@compiled(reorder=True)
def _about(rows: FloatRows, i: int, centroids: FloatRows, k: int) -> float:
    """Squared distance in float32, in any order: errs by at most (d + 4) u of its value."""
    total = np.float32(0.0)
    for j in range(rows.shape[1]):
        gap = rows[i, j] - centroids[k, j]
        total += gap * gap
    return float(total)


@compiled()
def _closest(
    rows: FloatRows,
    i: int,
    centroids: FloatRows,
    candidates: npt.NDArray[np.int32],
    count: int,
    about: npt.NDArray[np.float64],
) -> int:
    """The nearest of the first `count` candidates: by float32, where that leaves doubt by float64."""
    least = np.inf
    for c in range(count):
        about[c] = _about(rows, i, centroids, candidates[c])
        least = min(least, about[c])
    limit = least * (1.0 + 2.5 * (rows.shape[1] + 4.0) * UNIT) + TINY
    close = 0
    for c in range(count):
        if about[c] <= limit:
            candidates[close] = candidates[c]
            close += 1
    nearest = candidates[0]
    if close > 1:
        best = squared_distance(rows, i, centroids, nearest)
        for c in range(1, close):
            distance = squared_distance(rows, i, centroids, candidates[c])
            if distance < best or (distance == best and candidates[c] < nearest):
                best, nearest = distance, candidates[c]
    return int(nearest)


@compiled()
def squared_distance(a: FloatRows, i: int, b: FloatRows, k: int) -> float:
    """Squared distance of rows a[i] and b[k] in float64, in one fixed order: the measure that decides."""
    s0 = s1 = s2 = s3 = 0.0
    d = a.shape[1]
    whole = d - d % 4
    for j in range(0, whole, 4):
        e0 = np.float64(a[i, j]) - np.float64(b[k, j])
        e1 = np.float64(a[i, j + 1]) - np.float64(b[k, j + 1])
        e2 = np.float64(a[i, j + 2]) - np.float64(b[k, j + 2])
        e3 = np.float64(a[i, j + 3]) - np.float64(b[k, j + 3])
        s0 += e0 * e0
        s1 += e1 * e1
        s2 += e2 * e2
        s3 += e3 * e3
    for j in range(whole, d):
        e0 = np.float64(a[i, j]) - np.float64(b[k, j])
        s0 += e0 * e0
    return (s0 + s1) + (s2 + s3)


@compiled()
def distances_to(
    rows: FloatRows, centroids: FloatRows, codes: npt.NDArray[np.int32], out: npt.NDArray[np.float64]
) -> None:
    """Squared distance of row i [n, d] to centroid codes[i], into out [n]."""
    for i in range(rows.shape[0]):
        out[i] = squared_distance(rows, i, centroids, codes[i])
