"""Neighbour overlap: share of an item's nearest neighbours that stay nearest after decoding."""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from qarm.core.parallel.tiles import over_tiles
from qarm.quantizer.kmeans.top_k import keep_smallest
from qarm.schemas.codes import Overlap

__all__ = ["neighbour_overlap"]

_BLOCK_QUERIES, _BLOCK_ROWS = 125, 8192

FloatRows = npt.NDArray[np.float32]


def neighbour_overlap(
    vectors: FloatRows,
    table: npt.NDArray[np.int32],
    group: npt.NDArray[np.int64],
    decode: Callable[[npt.NDArray[np.int32]], FloatRows],
    *,
    neighbours: int,
    queries: int,
    seed: int,
) -> Overlap | None:
    """Mean share of the nearest rows (Euclidean) that are nearest after decoding too, with an interval.

    Items that share a code are equally near after decoding: where only some of such a group fit among the
    nearest, each counts with the chance that a random order would put it there.

    Args:
        vectors: float32 [n, d].
        table: codes int32 [n, levels].
        group: int64 [n], number of each row's full code, from 0 without gaps.
        decode: from codes to vectors.
        neighbours: how many nearest rows; n - 1 where there are fewer.
        queries: how many rows are sampled; all where there are fewer.
        seed: of that sample.

    Returns:
        `mean`, `low`, `high` (95 % normal interval, corrected for the finite number of rows), `queries`;
        None below two rows.
    """
    n = len(vectors)
    if n < 2:
        return None
    neighbours, queries = min(neighbours, n - 1), min(queries, n)
    rng = np.random.default_rng(seed)
    sample = np.sort(rng.choice(n, queries, replace=False, shuffle=False))
    first, sizes = np.unique(group, return_index=True, return_counts=True)[1:]
    shares = np.empty(queries)

    def work(_: None, start: int, stop: int) -> None:
        rows = sample[start:stop]
        nearest = _nearest_rows(vectors, rows, neighbours)
        codes = _Codes(table[first], sizes, group[rows], group[nearest], decode)
        shares[start:stop] = _chances(codes, neighbours).mean(axis=1)

    over_tiles(queries, _BLOCK_QUERIES, lambda: None, work)
    mean = float(shares.mean())
    spread = float(shares.std(ddof=1)) if queries > 1 else 0.0
    margin = 1.96 * spread * math.sqrt((n - queries) / (n - 1) / queries)
    low, high = max(mean - margin, 0.0), min(mean + margin, 1.0)
    return Overlap(mean=mean, low=low, high=high, queries=queries)


@dataclass(frozen=True)
class _Codes:
    """Distinct codes [groups, levels] with their numbers of items [groups], and what is asked of them.

    own: int64 [q], the queries' groups; wanted: int64 [q, neighbours], groups of their nearest rows.
    """

    distinct: npt.NDArray[np.int32]
    sizes: npt.NDArray[np.int64]
    own: npt.NDArray[np.int64]
    wanted: npt.NDArray[np.int64]
    decode: Callable[[npt.NDArray[np.int32]], FloatRows]


def _nearest_rows(vectors: FloatRows, rows: npt.NDArray[np.int64], neighbours: int) -> npt.NDArray[np.int64]:
    """Nearest rows of the given ones, themselves left out, int64 [len(rows), neighbours]."""
    values, found = _nothing(len(rows), neighbours)
    for start, distances in _blocks(vectors[rows], len(vectors), lambda a, b: vectors[a:b]):
        keep_smallest(distances, start, rows, values, found)
    return found


def _chances(codes: _Codes, neighbours: int) -> npt.NDArray[np.float64]:
    """The chance that a row of group wanted[q, j] is among the nearest of a row of group own[q]."""
    groups = len(codes.distinct)
    # one more than asked for: a query's own group may hold nothing but the query
    values, found = _nothing(len(codes.own), min(neighbours + 1, groups))
    nobody = np.full(len(codes.own), -1, dtype=np.int64)
    wanted = np.empty(codes.wanted.shape, dtype=np.float32)
    queries = codes.decode(codes.distinct[codes.own])
    for start, distances in _blocks(queries, groups, lambda a, b: codes.decode(codes.distinct[a:b])):
        here = (codes.wanted >= start) & (codes.wanted < start + distances.shape[1])
        wanted[here] = distances[np.nonzero(here)[0], codes.wanted[here] - start]
        keep_smallest(distances, start, nobody, values, found)
    chances = np.empty(codes.wanted.shape)
    for query, own in enumerate(codes.own.tolist()):
        members = codes.sizes[found[query]] - (found[query] == own)
        level, inverse = np.unique(values[query], return_inverse=True)
        count = np.bincount(inverse, weights=members)
        chance = np.clip((neighbours - np.cumsum(count) + count) / np.maximum(count, 1.0), 0.0, 1.0)
        chances[query] = np.append(chance, 0.0)[np.searchsorted(level, wanted[query])]
    return chances


def _nothing(rows: int, kept: int) -> tuple[FloatRows, npt.NDArray[np.int64]]:
    return np.full((rows, kept), np.inf, dtype=np.float32), np.full((rows, kept), -1, dtype=np.int64)


def _blocks(
    queries: FloatRows, rows: int, read: Callable[[int, int], FloatRows]
) -> Iterator[tuple[int, FloatRows]]:
    """(first row, squared distances [len(queries), block]) for one block of rows after the other."""
    left = torch.from_numpy(np.array(queries, dtype=np.float32))
    squares = (left * left).sum(1)[:, None]
    for start in range(0, rows, _BLOCK_ROWS):
        right = torch.from_numpy(np.array(read(start, min(start + _BLOCK_ROWS, rows)), dtype=np.float32))
        yield start, torch.addmm(squares + (right * right).sum(1), left, right.T, alpha=-2.0).numpy()
