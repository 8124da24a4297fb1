"""Lloyd's k-means: exact, deterministic, over rows that need not fit in memory."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np
import numpy.typing as npt
import torch

from qarm.core.parallel.tiles import over_tiles
from qarm.core.parallel.torchrun import current
from qarm.quantizer.kmeans.assignment import Codebook, prepared, squared_distances, tile_codes
from qarm.quantizer.kmeans.exact_sums import FixedPointSums
from qarm.quantizer.kmeans.gpu import GpuAssignment
from qarm.quantizer.vectors import ResidualRows

__all__ = ["Clustering", "assign_rows", "lloyd", "row_distances"]

_DISTANCE_ROWS = 2048
_HALVED_ROWS = 65536  # of a code that is halved; more would not fit in memory at once


@dataclass(frozen=True)
class Clustering:
    """The result of k-means.

    centroids: float32 [width, d]; codes: int32 [n], the nearest of these centroids; energy: sum of squared
    distances; iterations: how many were run; reseeded: how often an empty code was given a new place.
    """

    centroids: npt.NDArray[np.float32]
    codes: npt.NDArray[np.int32]
    energy: float
    iterations: int
    reseeded: int


def lloyd(
    rows: ResidualRows,
    centroids: npt.NDArray[np.float32],
    *,
    iterations: int,
    after_each: Callable[[], object] | None = None,
    device: torch.device | None = None,
) -> Clustering:
    """Alternate exact assignment and means, from given centroids float32 [width, d].

    Every row counts in every iteration. A code without rows takes over half of the code with the most
    energy. Stops early when no row changes its code.

    Args:
        rows: n residual rows of the same dimension.
        centroids: where to start.
        iterations: at most this many updates.
        after_each: called after every iteration, for progress.
        device: a GPU that assigns the rows, to the same bytes; None for the CPU.
    """
    width, dim = centroids.shape
    codes = np.full(len(rows), -1, dtype=np.int32)
    sums = FixedPointSums.empty(width, dim, rows=len(rows), largest=rows.largest)
    assign = partial(assign_rows, rows) if device is None else GpuAssignment(rows, device)
    done = reseeded = 0
    while True:
        moved = assign(prepared(centroids), codes, sums)
        if moved == 0 or done == iterations:
            break
        reseeded += _reseed(rows, centroids, codes, sums)
        centroids = sums.means(centroids)
        done += 1
        if after_each is not None:
            after_each()
    current().fill(codes)
    energy = float(row_distances(rows, centroids, codes).sum())
    return Clustering(centroids, codes, energy, done, reseeded)


def assign_rows(
    rows: ResidualRows, codebook: Codebook, codes: npt.NDArray[np.int32], sums: FixedPointSums
) -> int:
    """Bring codes [n] and sums up to date with the centroids; returns how many rows moved.

    Among several processes, each does so with the codes of its own stretch.
    """
    shard = current()
    first, last = shard.stretch(len(rows))

    def work(changes: FixedPointSums, begin: int, end: int) -> None:
        start, stop = first + begin, first + end
        tile = rows.tile(start, stop)
        new = tile_codes(tile, codebook)
        changes.move(tile, codes[start:stop], new)
        codes[start:stop] = new

    states = over_tiles(last - first, codebook.tile_rows, sums.like, work)
    total, moved = sums.like(), np.array([sum(int(changes.moved) for changes in states)])
    for changes in states:
        total.add(changes)
    shard.add_up_arrays(total.totals, total.counts, moved)
    sums.add(total)
    return int(moved[0])


def row_distances(
    rows: ResidualRows, centroids: npt.NDArray[np.float32], codes: npt.NDArray[np.int32]
) -> npt.NDArray[np.float64]:
    """Squared distance of each residual row [n, d] to centroid codes[i], float64 [n]."""
    distances = np.empty(len(rows), dtype=np.float64)
    first, last = current().stretch(len(rows))

    def work(_: None, begin: int, end: int) -> None:
        start, stop = first + begin, first + end
        tile = rows.tile(start, stop)
        distances[start:stop] = squared_distances(tile, centroids, codes[start:stop])

    over_tiles(last - first, _DISTANCE_ROWS, lambda: None, work)
    current().fill(distances)
    return distances


def _reseed(
    rows: ResidualRows,
    centroids: npt.NDArray[np.float32],
    codes: npt.NDArray[np.int32],
    sums: FixedPointSums,
) -> int:
    """Give each code without rows half of the code with the most energy; returns how many got one.

    The half is the rows on the farthest one's side of the mean. That row alone as new centroid would attract
    nobody else in many dimensions: it is as far from the others as they are from each other.
    """
    empty = np.flatnonzero(sums.counts == 0).tolist()
    if not empty:
        return 0
    current().fill(codes)
    distances = row_distances(rows, centroids, codes)
    drifts = np.square(sums.means(centroids).astype(np.float64) - centroids).sum(axis=1)
    energies = np.bincount(codes, weights=distances, minlength=len(centroids)) - sums.counts * drifts
    members = np.split(np.argsort(codes, kind="stable"), np.cumsum(sums.counts)[:-1])
    filled = 0
    while filled < len(empty) and energies.max() > 0.0:
        code, target = int(energies.argmax()), empty[filled]
        here = members[code][:_HALVED_ROWS]
        values = _from_mean(rows, here)
        direction = values[int(np.square(values).sum(axis=1).argmax())]
        side = (values * direction).sum(axis=1) > 0.0
        if side.all() or not side.any():  # equal rows, and what energy there seemed to be is rounding
            energies[code] = 0.0
            continue
        moving = here[side]
        sums.move(rows.take(moving), codes[moving], np.full(len(moving), target, dtype=np.int32))
        codes[moving] = target
        members[code] = np.setdiff1d(members[code], moving, assume_unique=True)
        members[target] = moving
        for half in (code, target):
            energies[half] = np.square(_from_mean(rows, members[half][:_HALVED_ROWS])).sum()
        filled += 1
    return filled


def _from_mean(rows: ResidualRows, members: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
    values = rows.take(members).astype(np.float64)
    values -= values.mean(axis=0)
    return values
