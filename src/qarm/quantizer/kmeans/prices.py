"""Prices of codes under which rows spread evenly, found on a few candidate codes per row."""

import numpy as np
import numpy.typing as npt
import torch

from qarm.core.parallel.numba_jit import compiled
from qarm.core.parallel.tiles import over_tiles
from qarm.quantizer.kmeans.assignment import prepared, squared_distances, tile_codes
from qarm.quantizer.kmeans.assignment_kernels import squared_distance
from qarm.quantizer.kmeans.optimal_transport import fair_prices
from qarm.quantizer.kmeans.top_k import keep_smallest
from qarm.quantizer.vectors import LiftedRows, ResidualRows, lifted

__all__ = ["add_candidates", "astray", "candidates", "lift_of", "priced", "shrunk"]

_ALL_PAIRS = 1 << 21  # rows times codes up to which every code is a candidate
_LAST_PAIRS = 1 << 23  # the same for the last assignment, which decides
_CANDIDATES = 16
_TILE = 512
_HALVINGS, _HOT = 6, 2.0

FloatRows = npt.NDArray[np.float32]
Floats = npt.NDArray[np.float64]


def lift_of(prices: Floats) -> FloatRows:
    """Square roots of prices [width], of which only the differences count."""
    lift: FloatRows = np.sqrt(prices - prices.min()).astype(np.float32)
    return lift


def priced(
    rows: ResidualRows, centroids: FloatRows, prices: Floats, *, attempts: int
) -> tuple[npt.NDArray[np.int32], Floats, Floats]:
    """Candidates, their costs, and fair prices for them; starts from given prices.

    A price is made by the rows that have the code as candidate and can be far too low for the others. It then
    makes the code a candidate of theirs in the next attempt.
    """
    most = _ALL_PAIRS if attempts == 1 else max(_ALL_PAIRS, _LAST_PAIRS)
    for _ in range(attempts):
        places, costs = candidates(rows, centroids, prices, most=most)
        prices = fair_prices(places, costs, prices)
        if attempts == 1 or places.shape[1] == len(centroids) or not _hot(rows, centroids, prices):
            break
    return places, costs, prices


def candidates(
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
            found = np.full((len(tile), kept), -1, dtype=np.int64)
            scores = torch.addmm(
                constant, torch.from_numpy(tile - mean), torch.from_numpy(centred.T), alpha=-2.0
            )
            keep_smallest(scores.numpy(), 0, np.full(len(tile), -1, dtype=np.int64), values, found)
            places[start:stop] = np.sort(found, axis=1)
        _measure(tile, centroids, places[start:stop], costs[start:stop])

    over_tiles(n, _TILE, lambda: None, work)
    return places, costs


def _smallest(scores: FloatRows, count: int) -> npt.NDArray[np.int64]:
    values = np.full((len(scores), count), np.inf, dtype=np.float32)
    found = np.full((len(scores), count), -1, dtype=np.int64)
    keep_smallest(scores, 0, np.full(len(scores), -1, dtype=np.int64), values, found)
    return found


@compiled()
def _measure(tile: FloatRows, centroids: FloatRows, places: npt.NDArray[np.int32], costs: Floats) -> None:
    for i in range(places.shape[0]):
        for s in range(places.shape[1]):
            costs[i, s] = squared_distance(tile, i, centroids, places[i, s])


def astray(
    rows: ResidualRows, centroids: FloatRows, prices: Floats, codes: npt.NDArray[np.int32]
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int32]]:
    """Rows that prices lead to another code than `codes` [n], and that code."""
    wider = LiftedRows(rows.values, rows.codebooks, rows.codes)
    book = prepared(lifted(centroids, lift_of(prices)))
    found = np.empty(len(rows), dtype=np.int32)

    def work(_: None, start: int, stop: int) -> None:
        found[start:stop] = tile_codes(wider.tile(start, stop), book)

    over_tiles(len(rows), book.tile_rows, lambda: None, work)
    lost = np.flatnonzero(found != codes)
    return lost, found[lost]


def add_candidates(
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
    _, codes = astray(rows, centroids, prices, np.full(len(rows), -1, dtype=np.int32))
    return int(np.bincount(codes).max()) > _HOT * len(rows) / len(centroids)


def shrunk(rows: ResidualRows, centroids: FloatRows, prices: Floats) -> Floats:
    """Prices halved until no code gets more than twice its share; a last resort is the average price.

    They come from the candidates of a sample and can be far too low for other rows. Where groups lie far
    apart, few prices are neither too low for a whole group nor too high for another.
    """
    for _ in range(_HALVINGS):
        if not _hot(rows, centroids, prices):
            break
        prices = 0.5 * prices
    return prices
