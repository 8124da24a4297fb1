"""Initial centroids of k-means: k-means++ seeds, moved toward their mean where that helps.

Drawing a seed in proportion to its squared distance from the seeds chosen so far (Arthur and
Vassilvitskii, 2007) is sequential. Here a batch is drawn from the distances as they were when the batch
began, and each candidate is kept with probability (distance now) / (distance then): rejection sampling,
so what is kept follows the sequential distribution exactly, at one matrix product per batch.

Rows as centroids are a poor start in many dimensions: a row is farther from another row than from the
mean, so the few seeds near the mean attract nearly everything and the others keep only themselves. What
residual levels quantise is of that kind, and their codebooks collapse (docs/codes.md has the measurements).
Seeds pulled toward the mean are told apart by direction instead. Separated groups need no such help; so a
few iterations from each start decide.
"""

import numpy as np
import numpy.typing as npt

from qarm.core.parallel.numba_jit import compiled
from qarm.core.parallel.torchrun import alone
from qarm.quantizer.kmeans.assignment import nearest_centroids, prepared, squared_distances
from qarm.quantizer.kmeans.assignment_kernels import squared_distance
from qarm.quantizer.kmeans.lloyd import lloyd
from qarm.quantizer.vectors import ResidualRows

__all__ = ["kmeans_plusplus", "starting_centroids"]

_ROWS_PER_SEED, _FEWEST_ROWS = 32, 16384
_FIRST_BATCH, _LARGEST_BATCH = 16, 1024
_SHARES, _TRIAL_ITERATIONS = (1.0, 0.5, 0.25), 3


def starting_centroids(
    rows: ResidualRows, width: int, *, rng: np.random.Generator
) -> npt.NDArray[np.float32]:
    """Centroids float32 [width, d] to start from.

    k-means++ seeds are tried as drawn, half way and three quarters of the way to their mean; each start
    gets three iterations, and the one with the least energy wins. Where there are more than 32 rows per
    centroid (and 16,384), all this happens on a uniform sample of that many.
    """
    sample = ResidualRows(_sample(rows, max(_ROWS_PER_SEED * width, _FEWEST_ROWS), rng))
    seeds = kmeans_plusplus(sample, width, rng=rng)
    mean = seeds.astype(np.float64).mean(axis=0)
    starts = [(mean + share * (seeds - mean)).astype(np.float32) for share in _SHARES]
    with alone():
        tried = [lloyd(sample, start, iterations=_TRIAL_ITERATIONS) for start in starts]
    return min(tried, key=lambda found: found.energy).centroids


def kmeans_plusplus(rows: ResidualRows, width: int, *, rng: np.random.Generator) -> npt.NDArray[np.float32]:
    """Seeds, float32 [width, d], drawn from the rows by k-means++.

    Where rows have fewer than `width` distinct values, the remaining seeds repeat the first: their codes stay
    unused, because ties go to the lowest index.
    """
    sample = rows.tile(0, len(rows))
    chosen = [int(rng.integers(len(sample)))]
    weights = _distances(sample, sample[chosen])
    while len(chosen) < width:
        cumulative = np.cumsum(weights)
        if cumulative[-1] <= 0.0:
            chosen.extend([chosen[0]] * (width - len(chosen)))
            break
        batch = min(max(len(chosen), _FIRST_BATCH), _LARGEST_BATCH)
        draws = np.searchsorted(cumulative, rng.random(batch) * cumulative[-1], side="right")
        draws = np.minimum(draws, len(sample) - 1)
        kept = draws[_accept(sample[draws], weights[draws], rng.random(batch))][: width - len(chosen)]
        chosen.extend(kept.tolist())
        weights = np.minimum(weights, _distances(sample, sample[kept]))
    return sample[chosen]


def _distances(sample: npt.NDArray[np.float32], seeds: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
    return squared_distances(sample, seeds, nearest_centroids(sample, prepared(seeds)))


def _sample(rows: ResidualRows, size: int, rng: np.random.Generator) -> npt.NDArray[np.float32]:
    if size >= len(rows):
        return rows.tile(0, len(rows))
    return rows.take(np.sort(rng.choice(len(rows), size, replace=False, shuffle=False)))


@compiled()
def _accept(
    candidates: npt.NDArray[np.float32], then: npt.NDArray[np.float64], luck: npt.NDArray[np.float64]
) -> npt.NDArray[np.bool_]:
    """Which candidates to keep; the first one always is, its distance being that of the batch."""
    kept = np.zeros(len(candidates), dtype=np.bool_)
    for j in range(len(candidates)):
        now = then[j]
        for i in range(j):
            if kept[i]:
                now = min(now, squared_distance(candidates, i, candidates, j))
        kept[j] = luck[j] * then[j] < now
    return kept
