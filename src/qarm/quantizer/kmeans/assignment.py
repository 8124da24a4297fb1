"""Assignment: the exact nearest centroid of every row, by the fastest path of the machine.

A matrix product of rounded values gives every centroid a score with a proven error bound. Centroids whose
score lies within the bound of the best are measured again, in float32 and, where that cannot tell them
apart, in float64. So a row's code does not depend on the number of threads, the tile or the machine.
"""

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch

from qarm.core.parallel.tiles import over_tiles
from qarm.quantizer.kmeans.assignment_kernels import (
    HALF,
    LANES,
    SHARE,
    Bounds,
    RowBounds,
    centre_rows,
    distances_to,
    halve_rows,
    round_rows,
    settle,
)

__all__ = [
    "PRODUCTS",
    "Codebook",
    "Products",
    "Scored",
    "nearest_centroids",
    "prepared",
    "scored",
    "squared_distances",
    "tile_codes",
]

Products = Literal["int8", "bfloat16", "float32"]


def _fastest() -> Products:
    """What this processor multiplies fastest; the codes are the same."""
    if not torch.backends.mkldnn.enabled:
        return "float32"
    if torch.cpu._is_amx_tile_supported():
        return "bfloat16"
    return "int8" if torch.cpu._is_vnni_supported() else "float32"


PRODUCTS: Products = _fastest()
_TYPES = {"int8": torch.int8, "bfloat16": torch.bfloat16, "float32": torch.float32}
_LARGEST_BYTE, _SMALLEST_STEP = 127, 1e-30
_SCORE_BYTES, _FEWEST_ROWS, _MOST_ROWS = 1 << 21, 128, 2048  # of one tile

FloatRows = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Codebook:
    """Centroids with what a search needs; "centred" is after subtracting the mean centroid.

    centroids: float32 [width, d]; mean: float32 [d]; rounded: int8, bfloat16 or float32 [d, chunks * 64],
    centred centroids z' over their unit, then zeros; half_norms, steps and spreads: float32
    [chunks, 64], half the squared length of z, its unit, and what its rounding and that of a row can add
    to a score (see `scores`); half_norms end with infinity where there is no centroid; reach: the largest
    length.
    """

    centroids: FloatRows
    mean: FloatRows
    rounded: torch.Tensor
    half_norms: FloatRows
    steps: FloatRows
    spreads: FloatRows
    reach: float

    @property
    def bounds(self) -> Bounds:
        """What the exact decision of near ties reads of the centroids."""
        return Bounds(self.half_norms, self.steps, self.spreads, self.spreads.max())

    @property
    def tile_rows(self) -> int:
        """Rows per tile: its scores stay in a core's cache, and a matrix product pays."""
        each = 2 if self.rounded.dtype == torch.bfloat16 else 4
        return min(max(_SCORE_BYTES // (each * self.half_norms.size), _FEWEST_ROWS), _MOST_ROWS)


def prepared(centroids: FloatRows, *, products: Products = PRODUCTS) -> Codebook:
    """Centroids float32 [width, d], ready for a search.

    Args:
        centroids: finite.
        products: what to score with: 8-bit integers (exact to add, and several times as fast as float32
            where the processor has instructions for them), bfloat16 (faster still on those with AMX), or
            float32.
    """
    width, dim = centroids.shape
    mean = centroids.astype(np.float64).mean(axis=0).astype(np.float32)
    centred = centroids.astype(np.float64) - mean
    steps = np.ones((width, 1))
    share = SHARE
    if products == "int8":
        largest = np.abs(centred).max(axis=1, keepdims=True)
        steps = np.maximum(largest / _LARGEST_BYTE, _SMALLEST_STEP).astype(np.float32).astype(np.float64)
        kept = np.clip(np.rint(centred / steps), -_LARGEST_BYTE, _LARGEST_BYTE).astype(np.int8)
    else:
        kept = torch.from_numpy(centred).to(_TYPES[products]).float().numpy()
        share = 0.0 if products == "float32" else 2.05 * HALF  # of rows, and of the products themselves
    squares = np.square(centred).sum(axis=1)
    lost = np.sqrt(np.square(centred - kept * steps).sum(axis=1))
    padded = -(-width // LANES) * LANES
    # filled, not transposed: numpy is free with the strides of dimensions of size 1, torch is not
    rounded = torch.zeros((dim, padded), dtype=_TYPES[products])
    rounded[:, :width] = torch.from_numpy(kept).T
    return Codebook(
        centroids=np.ascontiguousarray(centroids),
        mean=mean,
        rounded=rounded,
        half_norms=_lanes(0.5 * squares, padded, fill=np.inf),
        steps=_lanes(steps[:, 0], padded),
        spreads=_lanes(1.001 * (share * np.sqrt(squares) + lost), padded),
        reach=float(np.sqrt(squares.max())),
    )


def _lanes(values: npt.NDArray[np.float64], padded: int, *, fill: float = 0.0) -> FloatRows:
    """Values [width] as float32 [chunks, 64], the rest filled."""
    lanes = np.full(padded, fill, dtype=np.float32)
    lanes[: len(values)] = values
    return lanes.reshape(-1, LANES)


def nearest_centroids(rows: FloatRows, codebook: Codebook) -> npt.NDArray[np.int32]:
    """The nearest centroid of each row in squared Euclidean distance; a tie goes to the lowest index.

    Args:
        rows: float32 [n, d], contiguous.
        codebook: of the same d.

    Returns:
        Codes int32 [n].
    """
    codes = np.empty(len(rows), dtype=np.int32)

    def work(_: None, start: int, stop: int) -> None:
        codes[start:stop] = tile_codes(rows[start:stop], codebook)

    over_tiles(len(rows), codebook.tile_rows, lambda: None, work)
    return codes


def tile_codes(rows: FloatRows, codebook: Codebook) -> npt.NDArray[np.int32]:
    """As `nearest_centroids`, on the calling thread and in one piece."""
    codes = np.empty(len(rows), dtype=np.int32)
    found = scored(rows, codebook)
    row_bounds = RowBounds(found.scale, found.margin, found.slack)
    settle(found.products, codebook.bounds, row_bounds, rows, codebook.centroids, codes)
    return codes


@dataclass(frozen=True)
class Scored:
    """Products int32, bits of bfloat16 as uint16, or float32 [n, chunks, 64]; the rest as in `scores`."""

    products: npt.NDArray[Any]
    scale: FloatRows
    margin: FloatRows
    slack: FloatRows


def scored(rows: FloatRows, codebook: Codebook) -> Scored:
    """Products of rows float32 [n, d] with all centroids, and what bounds their errors."""
    scale, margin, slack = np.empty((3, len(rows)), dtype=np.float32)
    bounds = (codebook.mean, codebook.reach)
    if codebook.rounded.dtype == torch.int8:
        small = np.empty(rows.shape, dtype=np.int8)
        round_rows(rows, *bounds, small, scale, margin, slack)
        products = torch._int_mm(torch.from_numpy(small), codebook.rounded)
    elif codebook.rounded.dtype == torch.bfloat16:
        half = np.empty(rows.shape, dtype=np.int16)
        halve_rows(rows, *bounds, half, scale, margin, slack)
        products = (torch.from_numpy(half).view(torch.bfloat16) @ codebook.rounded).view(torch.uint16)
    else:
        centred = np.empty(rows.shape, dtype=np.float32)
        centre_rows(rows, *bounds, centred, scale, margin, slack)
        products = torch.from_numpy(centred) @ codebook.rounded
    return Scored(products.numpy().reshape(len(rows), -1, LANES), scale, margin, slack)


def squared_distances(
    rows: FloatRows, centroids: FloatRows, codes: npt.NDArray[np.int32]
) -> npt.NDArray[np.float64]:
    """Squared distance of row i [n, d] to centroid codes[i], float64 [n]."""
    distances = np.empty(len(rows), dtype=np.float64)
    distances_to(rows, centroids, codes, distances)
    return distances
