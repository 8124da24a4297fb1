"""k-means with codes of equal size: exactly n / width rows each, or nearly so and faster.

Equal sizes come from a price per code: a row takes the code with the least squared distance plus price, and
the prices are kept with the codebook. So a row's code still depends on nothing but the row, and new rows
spread like the old ones. Written as one more coordinate, the price's square root for a centroid and zero
for a row, the sum is a squared distance again, and the search for the nearest centroid finds it.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from qarm.quantizer.assign import nearest_centroids, prepared
from qarm.quantizer.compiled import compiled
from qarm.quantizer.kmeans import Clustering, assign_rows, row_distances
from qarm.quantizer.parallel import over_tiles
from qarm.quantizer.rows import LiftedRows, ResidualRows, lifted
from qarm.quantizer.scores import squared_distance
from qarm.quantizer.smallest import keep_smallest
from qarm.quantizer.sums import FixedPointSums
from qarm.quantizer.transport import centre_prices, cheapest, raise_prices, reach_sizes

__all__ = ["Balanced", "balanced", "nearly_balanced"]

_ALL_PAIRS = 1 << 21  # rows times codes up to which every code is a candidate
_CANDIDATES = 16
_TILE = 512
_ROUNDS, _ENOUGH, _SWEEPS = 200, 1 / 500, 40
_SAMPLE = 64  # rows per code that prices are first set on
_FEEDBACK, _SETTLING, _FULLEST = 0.5, 20, 1.1

FloatRows = npt.NDArray[np.float32]
Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Balanced:
    """Codes of equal size.

    clustering: as of `lloyd`, but for the codes; lift: float32 [width], square roots of the prices.
    """

    clustering: Clustering
    lift: FloatRows


def balanced(
    rows: ResidualRows,
    centroids: FloatRows,
    *,
    iterations: int,
    after_each: Callable[[], object] | None = None,
) -> Balanced:
    """Alternate means and assignment to codes of exactly floor or ceil n / width rows.

    For the given centroids the assignment has the least energy of all with these sizes, where rows times
    codes are up to two million; beyond, of all that give a row one of its 16 candidates.

    Args:
        rows: n residual rows of the same dimension, n at least the width.
        centroids: where to start, float32 [width, d].
        iterations: at most this many updates of the centroids.
        after_each: called after every iteration, for progress.
    """
    width = len(centroids)
    prices = np.zeros(width)
    codes = np.full(len(rows), -1, dtype=np.int32)
    sums = FixedPointSums.empty(width, rows.dim, rows=len(rows), largest=rows.largest)
    done = 0
    while True:
        new, prices = _equal_sizes(rows, centroids, prices)
        moved = _take(rows, codes, new, sums)
        if moved == 0 or done == iterations:
            break
        centroids = sums.means(centroids)
        done += 1
        if after_each is not None:
            after_each()
    energy = float(row_distances(rows, centroids, codes).sum())
    return Balanced(Clustering(centroids, codes, energy, done, 0), _lift(prices))


def nearly_balanced(
    rows: ResidualRows,
    centroids: FloatRows,
    *,
    iterations: int,
    rng: np.random.Generator,
    after_each: Callable[[], object] | None = None,
) -> Balanced:
    """As `balanced`, but sizes come near n / width: the fullest code has up to a tenth more, mostly.

    Prices are set on a sample of 64 rows per code and follow the sizes from iteration to iteration, so that
    one iteration costs what it costs without them.

    Args:
        rows: n residual rows.
        centroids: where to start, float32 [width, d].
        iterations: updates of the centroids.
        rng: of the sample.
        after_each: called after every iteration, for progress.
    """
    width = len(centroids)
    wider = LiftedRows(rows.values, rows.codebooks, rows.codes)
    codes = np.full(len(rows), -1, dtype=np.int32)
    sums = FixedPointSums.empty(width, wider.dim, rows=len(rows), largest=rows.largest)
    prices, scale = _sampled_prices(rows, centroids, rng)
    share, done = len(rows) / width, 0
    best, fullest = prices, np.inf
    for turn in range(iterations + _SETTLING + 1):
        assign_rows(wider, prepared(lifted(centroids, _lift(prices))), codes, sums)
        here = float(sums.counts.max()) / share
        if turn >= iterations and here < fullest:
            best, fullest = prices, here
        if turn >= iterations and fullest <= _FULLEST:
            break
        if turn < iterations:
            centroids = sums.means(lifted(centroids, np.zeros(width, dtype=np.float32)))[:, :-1].copy()
            done += 1
            if after_each is not None:
                after_each()
        prices = prices + _FEEDBACK * scale * np.log(np.maximum(sums.counts, 0.5) / share)
    lift = _lift(best)
    assign_rows(wider, prepared(lifted(centroids, lift)), codes, sums)
    energy = float(row_distances(rows, centroids, codes).sum())
    return Balanced(Clustering(centroids, codes, energy, done, 0), lift)


def _sampled_prices(
    rows: ResidualRows, centroids: FloatRows, rng: np.random.Generator
) -> tuple[Floats, float]:
    """Prices that balance a sample of the rows, and the mean gap between a row's two nearest codes."""
    width = len(centroids)
    if len(rows) > _SAMPLE * width:
        picked = rng.choice(len(rows), _SAMPLE * width, replace=False, shuffle=False)
        rows = ResidualRows(rows.take(np.sort(picked)))
    prices, regrets = np.zeros(width), np.empty(len(rows))
    places, costs = _candidates(rows, centroids, prices)
    cheapest(places, costs, prices, np.empty(len(rows), dtype=np.int64), regrets)
    finite = regrets[np.isfinite(regrets)]
    raise_prices(places, costs, prices, -(-len(rows) // width), _ROUNDS, int(len(rows) * _ENOUGH))
    return prices, float(finite.mean()) if len(finite) else 0.0


def _lift(prices: Floats) -> FloatRows:
    """Square roots of prices [width], of which only the differences count."""
    return np.sqrt(prices - prices.min()).astype(np.float32)


def _equal_sizes(
    rows: ResidualRows, centroids: FloatRows, prices: Floats
) -> tuple[npt.NDArray[np.int32], Floats]:
    """Codes [n] of equal sizes, and prices that lead every row to its code; starts from given prices."""
    n, width = len(rows), len(centroids)
    prices = prices.copy()
    places, costs = _candidates(rows, centroids, prices)
    slots = raise_prices(places, costs, prices, -(-n // width), _ROUNDS, int(n * _ENOUGH))
    counts = np.bincount(places[np.arange(n), slots], minlength=width)
    sizes = np.full(width, n // width, dtype=np.int64)
    sizes[np.argsort(-counts, kind="stable")[: n % width]] += 1
    surplus = reach_sizes(places, costs, prices, slots, sizes)
    codes = places[np.arange(n), slots]
    if surplus.any():
        _force(rows, centroids, codes, surplus, sizes)
    centre_prices(places, costs, slots, prices, _SWEEPS)
    return codes, prices


def _candidates(
    rows: ResidualRows, centroids: FloatRows, prices: Floats
) -> tuple[npt.NDArray[np.int32], Floats]:
    """Codes int32 [n, m] that a row may take, the cheapest at these prices, and squared distances [n, m]."""
    n, width = len(rows), len(centroids)
    kept = width if n * width <= _ALL_PAIRS else min(_CANDIDATES, width)
    places, costs = np.empty((n, kept), dtype=np.int32), np.empty((n, kept))
    centred = centroids - centroids.astype(np.float64).mean(axis=0).astype(np.float32)
    constant = torch.from_numpy(
        (np.square(centred.astype(np.float64)).sum(axis=1) + prices).astype(np.float32)
    )
    mean = centroids[0] - centred[0]

    def work(_: None, start: int, stop: int) -> None:
        tile = rows.tile(start, stop)
        if kept == width:
            places[start:stop] = np.arange(width)
        else:
            values = np.full((len(tile), kept), np.inf, dtype=np.float32)
            found = np.full((len(tile), kept), -1, dtype=np.int64)
            scores = torch.addmm(
                constant, torch.from_numpy(tile - mean), torch.from_numpy(centred.T), alpha=-2.0
            )
            keep_smallest(scores.numpy(), 0, np.full(len(tile), -1, dtype=np.int64), values, found)
            places[start:stop] = np.sort(found, axis=1)
        _measure(tile, centroids, places[start:stop], costs[start:stop])

    over_tiles(n, _TILE, lambda: None, work)
    return places, costs


@compiled()
def _measure(tile: FloatRows, centroids: FloatRows, places: npt.NDArray[np.int32], costs: Floats) -> None:
    for i in range(places.shape[0]):
        for s in range(places.shape[1]):
            costs[i, s] = squared_distance(tile, i, centroids, places[i, s])


def _force(
    rows: ResidualRows,
    centroids: FloatRows,
    codes: npt.NDArray[np.int32],
    surplus: npt.NDArray[np.int64],
    sizes: npt.NDArray[np.int64],
) -> None:
    """Give surplus rows, which had no candidate with room, the nearest code that has some, row by row."""
    room = sizes - np.bincount(codes, minlength=len(sizes))
    for code in np.flatnonzero(surplus):
        members = np.flatnonzero(codes == code)
        far = np.argsort(-row_distances_of(rows, members, centroids[code]), kind="stable")
        for row in members[far[: surplus[code]]].tolist():
            free = np.flatnonzero(room > 0)
            gaps = np.square(rows.take(np.array([row])).astype(np.float64) - centroids[free]).sum(axis=1)
            codes[row] = free[gaps.argmin()]
            room[codes[row]] -= 1


def row_distances_of(rows: ResidualRows, members: npt.NDArray[np.int64], centroid: FloatRows) -> Floats:
    return np.square(rows.take(members).astype(np.float64) - centroid).sum(axis=1)  # type: ignore[no-any-return]


def _take(
    rows: ResidualRows, codes: npt.NDArray[np.int32], new: npt.NDArray[np.int32], sums: FixedPointSums
) -> int:
    """Bring codes [n] and sums up to date with new codes; returns how many rows moved."""

    def work(changes: FixedPointSums, start: int, stop: int) -> None:
        changes.move(rows.tile(start, stop), codes[start:stop], new[start:stop])
        codes[start:stop] = new[start:stop]

    states = over_tiles(len(rows), _TILE, sums.like, work)
    for changes in states:
        sums.add(changes)
    return sum(int(changes.moved) for changes in states)
