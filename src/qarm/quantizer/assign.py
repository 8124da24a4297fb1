"""The exact nearest centroid of every row, whatever the speed path.

A matrix product of rounded values gives every centroid a score with a proven error bound. Centroids whose
score lies within the bound of the best are measured again, in float32 and, where that cannot tell them
apart, in float64. So a row's code does not depend on the number of threads, the tile or the machine.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from qarm.quantizer.parallel import over_tiles
from qarm.quantizer.scores import LANES, SHARE, centre_rows, distances_to, round_rows, settle

__all__ = ["Codebook", "Scored", "nearest_centroids", "prepared", "scored", "squared_distances", "tile_codes"]

INTEGER = bool(torch.cpu._is_vnni_supported()) and bool(torch.backends.mkldnn.enabled)

_LARGEST_BYTE, _SMALLEST_STEP = 127, 1e-30
_SCORES, _FEWEST_ROWS, _MOST_ROWS = 1 << 19, 128, 2048  # of one tile

FloatRows = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Codebook:
    """Centroids with what a search needs; "centred" is after subtracting the mean centroid.

    centroids: float32 [width, d]; mean: float32 [d]; rounded: int8 or float32 [d, chunks * 64], centred
    centroids z' over their unit, then zeros; half_norms, steps and spreads: float32 [chunks, 64], half the
    squared length of z, its unit, and what its rounding and that of a row can add to a score (see
    `scores`); half_norms end with infinity where there is no centroid; reach: the largest length.
    """

    centroids: FloatRows
    mean: FloatRows
    rounded: torch.Tensor
    half_norms: FloatRows
    steps: FloatRows
    spreads: FloatRows
    reach: float

    @property
    def tile_rows(self) -> int:
        """Rows per tile: its scores stay in a core's cache, and a matrix product pays."""
        return min(max(_SCORES // self.half_norms.size, _FEWEST_ROWS), _MOST_ROWS)


def prepared(centroids: FloatRows, *, integer: bool = INTEGER) -> Codebook:
    """Centroids float32 [width, d], ready for a search.

    Args:
        centroids: finite.
        integer: score with 8-bit integers (exact to add, and several times as fast where the processor has
            instructions for them), else with float32.
    """
    width, dim = centroids.shape
    mean = centroids.astype(np.float64).mean(axis=0).astype(np.float32)
    centred = centroids.astype(np.float64) - mean
    steps = np.ones((width, 1))
    if integer:
        largest = np.abs(centred).max(axis=1, keepdims=True)
        steps = np.maximum(largest / _LARGEST_BYTE, _SMALLEST_STEP).astype(np.float32).astype(np.float64)
        kept = np.clip(np.rint(centred / steps), -_LARGEST_BYTE, _LARGEST_BYTE).astype(np.int8)
    else:
        kept = centred.astype(np.float32)
    squares = np.square(centred).sum(axis=1)
    lost = np.sqrt(np.square(centred - kept * steps).sum(axis=1))
    padded = -(-width // LANES) * LANES
    # filled, not transposed: numpy is free with the strides of dimensions of size 1, torch is not
    rounded = torch.zeros((dim, padded), dtype=torch.int8 if integer else torch.float32)
    rounded[:, :width] = torch.from_numpy(kept).T
    return Codebook(
        centroids=np.ascontiguousarray(centroids),
        mean=mean,
        rounded=rounded,
        half_norms=_lanes(0.5 * squares, padded, fill=np.inf),
        steps=_lanes(steps[:, 0], padded),
        spreads=_lanes(1.001 * (SHARE * np.sqrt(squares) + lost), padded),
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
    bounds = (codebook.half_norms, codebook.steps, codebook.spreads, found.scale, found.margin, found.slack)
    settle(found.products, *bounds, rows, codebook.centroids, codes)
    return codes


@dataclass(frozen=True)
class Scored:
    """Products int32 or float32 [n, chunks, 64]; scale, margin and slack float32 [n], as in `scores`."""

    products: npt.NDArray[np.int32]
    scale: FloatRows
    margin: FloatRows
    slack: FloatRows


def scored(rows: FloatRows, codebook: Codebook) -> Scored:
    """Products of rows float32 [n, d] with all centroids, and what bounds their errors."""
    scale, margin, slack = np.empty((3, len(rows)), dtype=np.float32)
    if codebook.rounded.dtype == torch.int8:
        small = np.empty(rows.shape, dtype=np.int8)
        round_rows(rows, codebook.mean, codebook.reach, small, scale, margin, slack)
        products = torch._int_mm(torch.from_numpy(small), codebook.rounded)
    else:
        centred = np.empty(rows.shape, dtype=np.float32)
        centre_rows(rows, codebook.mean, codebook.reach, centred, scale, margin, slack)
        products = torch.from_numpy(centred) @ codebook.rounded
    return Scored(products.numpy().reshape(len(rows), -1, LANES), scale, margin, slack)


def squared_distances(
    rows: FloatRows, centroids: FloatRows, codes: npt.NDArray[np.int32]
) -> npt.NDArray[np.float64]:
    """Squared distance of row i [n, d] to centroid codes[i], float64 [n]."""
    distances = np.empty(len(rows), dtype=np.float64)
    distances_to(rows, centroids, codes, distances)
    return distances
