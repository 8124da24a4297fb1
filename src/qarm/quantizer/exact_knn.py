"""Nearest rows by cosine: exact search, and an inverted file for large pools."""

from dataclasses import dataclass
from typing import Any

import faiss
import numpy as np
import numpy.typing as npt
import torch

from qarm.core.parallel.numba_jit import compiled
from qarm.core.parallel.tiles import over_tiles
from qarm.errors import shown
from qarm.quantizer.kmeans.init import starting_centroids
from qarm.quantizer.kmeans.lloyd import lloyd
from qarm.quantizer.kmeans.top_k import keep_smallest
from qarm.quantizer.vectors import ResidualRows, VectorsError

__all__ = ["Inverted", "exact_nearest", "inverted", "unit_rows"]

_SPARE = 16  # rows kept beyond k, so that rounding rarely forces an exhaustive search
_BLOCK_QUERIES, _BLOCK_ROWS = 256, 8192
_ROUNDING = 2.0**-24
_ROWS_PER_LIST, _MOST_LISTS, _TRAINING_ITERATIONS = 64, 16384, 8  # rows that a list's centre is learned from
_PROBED, _RECALL = 1000, 0.99

FloatRows = npt.NDArray[np.float32]
Integers = npt.NDArray[np.int64]


def unit_rows(rows: npt.NDArray[Any], *, first_row: int = 0) -> FloatRows:
    """Rows of length 1, float32 [n, d]; a row of zeros has no direction and is refused."""
    unit = np.empty(rows.shape, dtype=np.float32)
    for start in range(0, len(rows), _BLOCK_QUERIES):
        exact = rows[start : start + _BLOCK_QUERIES].astype(np.float64)
        norms = np.sqrt(np.square(exact).sum(axis=1))
        zero = np.flatnonzero(norms == 0.0) + first_row + start
        if len(zero):
            raise VectorsError(
                f"vectors are all zero in rows {shown(zero.tolist())}; cosine needs a direction"
            )
        unit[start : start + _BLOCK_QUERIES] = exact / norms[:, None]
    return unit


def exact_nearest(rows: npt.NDArray[Any], own: Integers, pool: FloatRows, k: int) -> npt.NDArray[np.int32]:
    """Pool rows int32 [n, k], most similar first, ties to the lower row.

    Args:
        rows: float [n, d], of any length but zero.
        own: int64 [n], a pool row that does not count, -1 for none.
        pool: float32 [pool, d] of length 1, more than k rows.
        k: entries per list.
    """
    found = np.empty((len(rows), k), dtype=np.int32)

    def work(_: None, start: int, stop: int) -> None:
        queries = unit_rows(rows[start:stop], first_row=start)
        found[start:stop] = _tile_nearest(queries, own[start:stop], pool, k)

    over_tiles(len(rows), _BLOCK_QUERIES, lambda: None, work)
    return found


def _tile_nearest(queries: FloatRows, own: Integers, pool: FloatRows, k: int) -> npt.NDArray[np.int32]:
    opposed = np.full((len(queries), k + _SPARE), np.inf, dtype=np.float32)
    rows = np.full((len(queries), k + _SPARE), -1, dtype=np.int64)
    opposite = torch.from_numpy(-queries)
    for start in range(0, len(pool), _BLOCK_ROWS):
        block = opposite @ torch.from_numpy(pool[start : start + _BLOCK_ROWS]).T
        keep_smallest(block.numpy(), start, own, opposed, rows)
    found = np.empty((len(queries), k), dtype=np.int32)
    _rank(queries, own, pool, opposed, rows, found)
    return found


@dataclass(frozen=True)
class Inverted:
    """An inverted file over the pool: rows by their nearest of some centres, of which a query visits a few.

    centres: float32 [lists, d]; probes: lists that a query visits; recall: share of the exact k nearest that
    it finds, over 1,000 seeded pool rows; index, coarse: of faiss, which does not keep the latter alive.
    """

    centres: FloatRows
    probes: int
    recall: float
    index: Any
    coarse: Any

    def nearest(
        self, rows: npt.NDArray[Any], own: Integers, pool: FloatRows, k: int
    ) -> npt.NDArray[np.int32]:
        """As `exact_nearest`, but for what `recall` says; lists that come out short are searched exactly."""
        found = np.empty((len(rows), k), dtype=np.int32)
        for start in range(0, len(rows), _BLOCK_ROWS):
            part, mine = rows[start : start + _BLOCK_ROWS], own[start : start + _BLOCK_ROWS]
            queries = unit_rows(part, first_row=start)
            candidates = self.index.search(queries, k + _SPARE)[1]
            candidates[candidates == mine[:, None]] = -1
            short = np.flatnonzero((candidates >= 0).sum(axis=1) < k)
            new = found[start : start + _BLOCK_ROWS]
            _order(queries, pool, candidates, new)
            if len(short):
                new[short] = exact_nearest(part[short], mine[short], pool, k)
        return found


def inverted(
    pool: FloatRows,
    k: int,
    *,
    seed: int,
    centres: FloatRows | None = None,
    measured: tuple[int, float] | None = None,
) -> Inverted:
    """An inverted file with about 4 sqrt(pool) lists that visits as many as a recall of 0.99 takes.

    Args:
        pool: float32 [pool, d] of length 1.
        k: entries per list of neighbours, in which recall is measured.
        seed: of the rows that centres are learned from and recall is measured on.
        centres: known ones, float32 [lists, d]; None: learn them.
        measured: known probes and recall.
    """
    rng = np.random.default_rng(seed)
    if centres is None:
        lists = int(min(4 * np.sqrt(len(pool)), _MOST_LISTS, len(pool)))
        size = min(_ROWS_PER_LIST * lists, len(pool))
        sample = ResidualRows(pool[np.sort(rng.choice(len(pool), size, replace=False, shuffle=False))])
        start = starting_centroids(sample, lists, rng=rng)
        centres = lloyd(sample, start, iterations=_TRAINING_ITERATIONS).centroids
    coarse = faiss.IndexFlatL2(pool.shape[1])
    coarse.add(centres)
    index = faiss.IndexIVFFlat(coarse, pool.shape[1], len(centres))
    index.is_trained = True
    for first in range(0, len(pool), _BLOCK_ROWS):
        index.add(pool[first : first + _BLOCK_ROWS])
    if measured is not None:
        index.nprobe = measured[0]
        return Inverted(centres, measured[0], measured[1], index, coarse)
    asked = np.sort(rng.choice(len(pool), min(_PROBED, len(pool)), replace=False, shuffle=False))
    exact = exact_nearest(pool[asked], asked, pool, k)
    probes = 1
    while True:
        index.nprobe = probes
        found = Inverted(centres, probes, 0.0, index, coarse).nearest(pool[asked], asked, pool, k)
        both = [len(np.intersect1d(a, b)) for a, b in zip(exact, found, strict=True)]
        recall = float(np.sum(both) / exact.size)
        if recall >= _RECALL or probes >= len(centres):
            return Inverted(centres, probes, recall, index, coarse)
        probes = min(2 * probes, len(centres))


@compiled()
def _similarity(a: FloatRows, b: FloatRows) -> float:
    total = 0.0
    for j in range(a.shape[0]):
        total += np.float64(a[j]) * np.float64(b[j])
    return total


@compiled()
def _order(queries: FloatRows, pool: FloatRows, candidates: Integers, found: npt.NDArray[np.int32]) -> None:
    """The first k candidates by similarity in float64, then pool row; -1 is none."""
    for i in range(queries.shape[0]):
        known = np.sort(candidates[i][candidates[i] >= 0])
        exact = np.empty(len(known), dtype=np.float64)
        for slot in range(len(known)):
            exact[slot] = _similarity(queries[i], pool[known[slot]])
        order = np.argsort(-exact, kind="mergesort")
        for rank in range(min(found.shape[1], len(known))):
            found[i, rank] = known[order[rank]]


@compiled()
def _rank(
    queries: FloatRows,
    own: Integers,
    pool: FloatRows,
    opposed: FloatRows,
    rows: Integers,
    found: npt.NDArray[np.int32],
) -> None:
    """Order by similarity in float64, then pool row. Rows of length 1 err by at most d u in float32.

    A row that was not kept scored no better than the worst kept one. Where that is within twice the error of
    the k-th best, rounding may have left out a winner, and every pool row is measured in float64.
    """
    k, kept = found.shape[1], rows.shape[1]
    slack = 2.0 * (queries.shape[1] + 8) * _ROUNDING * 1.001
    for i in range(queries.shape[0]):
        worst = -np.float64(opposed[i, 0])
        exact = np.empty(kept, dtype=np.float64)
        candidates = rows[i].copy()
        for slot in range(kept):
            lost = candidates[slot] < 0
            exact[slot] = -np.inf if lost else _similarity(queries[i], pool[candidates[slot]])
        if np.sort(exact)[kept - k] <= worst + slack:
            candidates = np.arange(pool.shape[0])
            exact = np.empty(pool.shape[0], dtype=np.float64)
            for row in range(pool.shape[0]):
                exact[row] = -np.inf if row == own[i] else _similarity(queries[i], pool[row])
        by_row = np.argsort(candidates)
        order = np.argsort(-exact[by_row], kind="mergesort")
        for rank in range(k):
            found[i, rank] = candidates[by_row[order[rank]]]
