"""Balanced k-means: codes of exactly n / width rows each, or nearly so and faster.

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

from qarm.core.parallel.numba_jit import compiled
from qarm.core.parallel.tiles import over_tiles
from qarm.core.parallel.torchrun import current
from qarm.quantizer.kmeans.assignment import prepared, squared_distances, tile_codes
from qarm.quantizer.kmeans.assignment_kernels import squared_distance
from qarm.quantizer.kmeans.exact_sums import FixedPointSums
from qarm.quantizer.kmeans.lloyd import Clustering, assign_rows, row_distances
from qarm.quantizer.kmeans.optimal_transport import (
    centre_prices,
    cheapest,
    fair_prices,
    mean_gap,
    reach_sizes,
)
from qarm.quantizer.kmeans.top_k import keep_smallest
from qarm.quantizer.vectors import AugmentedRows, ResidualRows, augmented

__all__ = ["Balanced", "balanced", "nearly_balanced"]

_TILE = 512
_SWEEPS, _ATTEMPTS, _MOST_MISASSIGNED = 40, 10, 0.02
_SAMPLE = 64  # rows per code that prices are set on
_FEEDBACK, _PASSES, _FULLEST = 0.2, 15, 1.1
_ALL_PAIRS = 1 << 21  # rows times codes up to which every code is a candidate
_LAST_PAIRS = 1 << 23  # the same for the last assignment, which decides
_CANDIDATES = 16
_HALVINGS, _HOT = 6, 2.0

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
    codes are up to eight million; beyond, of all that give a row one of its 16 candidates.

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
    while done < iterations:
        new, prices = _equal_sizes(rows, centroids, prices, attempts=1)
        if _take(rows, codes, new, sums) == 0:
            break
        centroids = sums.means(centroids)
        done += 1
        if after_each is not None:
            after_each()
    codes, prices = _equal_sizes(rows, centroids, prices, attempts=_ATTEMPTS)
    energy = float(row_distances(rows, centroids, codes).sum())
    return Balanced(Clustering(centroids, codes, energy, done, 0), _lift_of(prices))


def nearly_balanced(
    rows: ResidualRows,
    centroids: FloatRows,
    *,
    iterations: int,
    rng: np.random.Generator,
    after_each: Callable[[], object] | None = None,
) -> Balanced:
    """As `balanced`, but sizes come near n / width: the fullest code has up to a tenth more, mostly.

    Prices are set on a sample of 64 rows per code; at the end they follow the sizes of all rows.

    Args:
        rows: n residual rows.
        centroids: where to start, float32 [width, d].
        iterations: updates of the centroids.
        rng: of the sample.
        after_each: called after every iteration, for progress.
    """
    width = len(centroids)
    wider = AugmentedRows(rows.values, rows.codebooks, rows.codes)
    sample = _sample(rows, _SAMPLE * width, rng)
    codes = np.full(len(rows), -1, dtype=np.int32)
    sums = FixedPointSums.empty(width, wider.dim, rows=len(rows), largest=rows.largest)
    prices = np.zeros(width)
    for _ in range(iterations):
        prices = fair_prices(*_candidates(sample, centroids, prices), prices)
        prices = _shrunk(sample, centroids, prices)
        assign_rows(wider, prepared(augmented(centroids, _lift_of(prices))), codes, sums)
        centroids = sums.means(augmented(centroids, np.zeros(width, dtype=np.float32)))[:, :-1].copy()
        if after_each is not None:
            after_each()
    lift = _settled(wider, sample, centroids, prices, codes, sums)
    current().fill(codes)
    energy = float(row_distances(rows, centroids, codes).sum())
    return Balanced(Clustering(centroids, codes, energy, iterations, 0), lift)


def _settled(
    wider: AugmentedRows,
    sample: ResidualRows,
    centroids: FloatRows,
    prices: Floats,
    codes: npt.NDArray[np.int32],
    sums: FixedPointSums,
) -> FloatRows:
    """The lift that gives the smallest fullest code; brings codes [n] and sums up to date."""
    share = len(wider) / len(centroids)
    places, costs = _candidates(sample, centroids, prices)
    prices = _shrunk(sample, centroids, fair_prices(places, costs, prices))
    step = _FEEDBACK * mean_gap(places, costs)
    best, least = prices, np.inf
    for _ in range(_PASSES):
        assign_rows(wider, prepared(augmented(centroids, _lift_of(prices))), codes, sums)
        fullest = float(sums.counts.max()) / share
        if fullest < least:
            best, least = prices, fullest
        if fullest <= _FULLEST:
            break
        prices = prices + step * np.log(np.clip(sums.counts / share, 0.5, 2.0))
    assign_rows(wider, prepared(augmented(centroids, _lift_of(best))), codes, sums)
    return _lift_of(best)


def _sample(rows: ResidualRows, size: int, rng: np.random.Generator) -> ResidualRows:
    if len(rows) <= size:
        return rows
    return ResidualRows(rows.take(np.sort(rng.choice(len(rows), size, replace=False, shuffle=False))))


def _equal_sizes(
    rows: ResidualRows, centroids: FloatRows, prices: Floats, *, attempts: int
) -> tuple[npt.NDArray[np.int32], Floats]:
    """Codes [n] of equal sizes, and prices that lead every row to its code; starts from given prices.

    A row that prices assign to another code gets that code as another candidate in the next attempt.
    """
    n, width = len(rows), len(centroids)
    places, costs, prices = _priced(rows, centroids, prices, attempts=attempts)
    sizes = np.full(width, n // width, dtype=np.int64)
    slots, every = np.empty(n, dtype=np.int64), np.arange(n)
    for attempt in range(attempts):
        cheapest(places, costs, prices, slots, np.empty(n))
        if attempt == 0:
            counts = np.bincount(places[every, slots], minlength=width)
            sizes[np.argsort(-counts, kind="stable")[: n % width]] += 1
        surplus = reach_sizes(places, costs, prices, slots, sizes)
        centre_prices(places, costs, slots, prices, _SWEEPS)
        codes = places[every, slots]
        if attempt == attempts - 1 or places.shape[1] == width:
            break
        lost, wanted = _misassigned(rows, centroids, prices, codes)
        if len(lost) == 0 or len(lost) > n * _MOST_MISASSIGNED:
            break
        _add_candidates(rows, centroids, places, costs, slots, lost, wanted)
    if surplus.any():
        _force(rows, centroids, codes, surplus, sizes)
    return codes, prices if attempts == 1 else _shrunk(rows, centroids, prices)


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
        far = np.argsort(-_distances(rows, members, centroids[code]), kind="stable")
        for row in members[far[: surplus[code]]].tolist():
            free = np.flatnonzero(room > 0)
            gaps = np.square(rows.take(np.array([row])).astype(np.float64) - centroids[free]).sum(axis=1)
            codes[row] = free[gaps.argmin()]
            room[codes[row]] -= 1


def _distances(rows: ResidualRows, members: npt.NDArray[np.int64], centroid: FloatRows) -> Floats:
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


# ---- prices of codes ---------------------------------------------------------------------------


def _lift_of(prices: Floats) -> FloatRows:
    """Square roots of prices [width], of which only the differences count."""
    lift: FloatRows = np.sqrt(prices - prices.min()).astype(np.float32)
    return lift


def _priced(
    rows: ResidualRows, centroids: FloatRows, prices: Floats, *, attempts: int
) -> tuple[npt.NDArray[np.int32], Floats, Floats]:
    """Candidates, their costs, and fair prices for them; starts from given prices.

    A price is made by the rows that have the code as candidate and can be far too low for the others. It then
    makes the code a candidate of theirs in the next attempt.
    """
    most = _ALL_PAIRS if attempts == 1 else max(_ALL_PAIRS, _LAST_PAIRS)
    for _ in range(attempts):
        places, costs = _candidates(rows, centroids, prices, most=most)
        prices = fair_prices(places, costs, prices)
        if attempts == 1 or places.shape[1] == len(centroids) or not _hot(rows, centroids, prices):
            break
    return places, costs, prices


def _candidates(
    rows: ResidualRows, centroids: FloatRows, prices: Floats, *, most: int | None = None
) -> tuple[npt.NDArray[np.int32], Floats]:
    """Codes int32 [n, m] that a row may take, and squared distances [n, m].

    Half of them are the nearest, half the cheapest of the others at the given prices.
    """
    n, width = len(rows), len(centroids)
    kept = width if n * width <= (_ALL_PAIRS if most is None else most) else min(_CANDIDATES, width)
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
            nearest = np.full((len(tile), kept), -1, dtype=np.int64)
            scores = torch.addmm(
                constant, torch.from_numpy(tile - mean), torch.from_numpy(centred.T), alpha=-2.0
            )
            keep_smallest(scores.numpy(), 0, np.full(len(tile), -1, dtype=np.int64), values, nearest)
            places[start:stop] = np.sort(nearest, axis=1)
        _measure(tile, centroids, places[start:stop], costs[start:stop])

    over_tiles(n, _TILE, lambda: None, work)
    return places, costs


@compiled()
def _measure(tile: FloatRows, centroids: FloatRows, places: npt.NDArray[np.int32], costs: Floats) -> None:
    for i in range(places.shape[0]):
        for s in range(places.shape[1]):
            costs[i, s] = squared_distance(tile, i, centroids, places[i, s])


def _misassigned(
    rows: ResidualRows, centroids: FloatRows, prices: Floats, codes: npt.NDArray[np.int32]
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int32]]:
    """Rows that prices assign to another code than `codes` [n], and that code."""
    wider = AugmentedRows(rows.values, rows.codebooks, rows.codes)
    book = prepared(augmented(centroids, _lift_of(prices)))
    assigned = np.empty(len(rows), dtype=np.int32)

    def work(_: None, start: int, stop: int) -> None:
        assigned[start:stop] = tile_codes(wider.tile(start, stop), book)

    over_tiles(len(rows), book.tile_rows, lambda: None, work)
    lost = np.flatnonzero(assigned != codes)
    return lost, assigned[lost]


def _add_candidates(
    rows: ResidualRows,
    centroids: FloatRows,
    places: npt.NDArray[np.int32],
    costs: Floats,
    slots: npt.NDArray[np.int64],
    lost: npt.NDArray[np.int64],
    wanted: npt.NDArray[np.int32],
) -> None:
    """Make code wanted[i] a candidate of row lost[i], in place of its most expensive one."""
    new = (places[lost] != wanted[:, None]).all(axis=1)
    lost, wanted = lost[new], wanted[new]
    others = costs[lost]
    others[np.arange(len(lost)), slots[lost]] = -np.inf
    slot = others.argmax(axis=1)
    places[lost, slot] = wanted
    costs[lost, slot] = squared_distances(rows.take(lost), centroids, wanted)


def _hot(rows: ResidualRows, centroids: FloatRows, prices: Floats) -> bool:
    """Whether these prices give a code more than twice its share."""
    _, codes = _misassigned(rows, centroids, prices, np.full(len(rows), -1, dtype=np.int32))
    return int(np.bincount(codes).max()) > _HOT * len(rows) / len(centroids)


def _shrunk(rows: ResidualRows, centroids: FloatRows, prices: Floats) -> Floats:
    """Prices halved until no code gets more than twice its share; a last resort is the average price.

    They come from the candidates of a sample and can be far too low for other rows. Where groups lie far
    apart, few prices are neither too low for a whole group nor too high for another.
    """
    for _ in range(_HALVINGS):
        if not _hot(rows, centroids, prices):
            break
        prices = 0.5 * prices
    return prices
