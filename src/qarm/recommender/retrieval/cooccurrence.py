"""Co-occurrence of items in histories, weighted by the gap between two events, the strongest of each item."""

import os
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from scipy.sparse import csr_matrix

from qarm.core.parallel.engine import run_in_threads
from qarm.core.parallel.numba_jit import compiled
from qarm.recommender.retrieval.histories import Histories

__all__ = ["cooccurrence_neighbours"]

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]
BUCKETS = 64  # of items, shared out to threads


class Occurrences(NamedTuple):
    """Events of histories, and where each item occurs among them.

    items: int32 [m]; begins, ends: int64 [m], of the user of an event; positions: int64 [m], events by item,
    item i's in first[i]:first[i + 1].
    """

    items: npt.NDArray[np.int32]
    begins: Ints
    ends: Ints
    positions: Ints
    first: Ints


class Weighting(NamedTuple):
    """Weight of a pair of events: 1, or 1 / gap; times source[i] * target[j], float64 [items].

    window: most steps between the two; backward: pairs count in both directions; by_gap: divide by the gap.
    """

    source: Floats
    target: Floats
    window: int
    backward: bool
    by_gap: bool


@compiled()
def _fill(
    bucket: tuple[int, int],
    events: Occurrences,
    weighting: Weighting,
    columns: npt.NDArray[np.int32],
    values: npt.NDArray[np.float32],
) -> None:
    """Neighbours of the items in first:last, strongest first; of equal ones the smaller row first."""
    sums = np.zeros(len(weighting.target))
    touched = np.empty(len(weighting.target), dtype=np.int32)
    for item in range(bucket[0], bucket[1]):
        count = 0
        for occurrence in range(events.first[item], events.first[item + 1]):
            event = events.positions[occurrence]
            start = max(events.begins[event], event - weighting.window) if weighting.backward else event + 1
            for other in range(start, min(events.ends[event], event + weighting.window + 1)):
                neighbour = events.items[other]
                if neighbour == item:
                    continue
                if sums[neighbour] == 0.0:
                    touched[count] = neighbour
                    count += 1
                sums[neighbour] += 1.0 / abs(other - event) if weighting.by_gap else 1.0
        rows = np.sort(touched[:count])
        scores = np.empty(count)
        for slot in range(count):
            scores[slot] = -sums[rows[slot]] * weighting.source[item] * weighting.target[rows[slot]]
            sums[rows[slot]] = 0.0
        order = np.argsort(scores, kind="mergesort")
        for slot in range(min(count, columns.shape[1])):
            columns[item, slot] = rows[order[slot]]
            values[item, slot] = -scores[order[slot]]


def cooccurrence_neighbours(
    histories: Histories,
    items: int,
    *,
    source: npt.NDArray[np.floating[Any]],
    target: npt.NDArray[np.floating[Any]],
    window: int,
    neighbours: int,
    backward: bool = False,
    by_gap: bool = True,
) -> csr_matrix:
    """Strongest co-occurring items of each item, sparse float32 [items, items].

    An entry (i, j) is source[i] * target[j] times the sum, over the pairs of an event on i and an event on
    another item j of the same user, of 1 / gap or of 1. Time grows with events * window, memory with
    items * neighbours.

    Args:
        histories: whose pairs count. items: size of the catalogue.
        source, target: factors of both items, [items].
        window: most steps between the two events; neighbours: entries kept of each item.
        backward: j may also come before i; by_gap: a pair counts 1 / gap instead of 1.
    """
    owners = histories.owners()
    positions = np.argsort(histories.items, kind="stable")
    first = np.searchsorted(histories.items[positions], np.arange(items + 1))
    events = Occurrences(
        histories.items, histories.offsets[owners], histories.offsets[owners + 1], positions, first
    )
    rows, columns = (np.ascontiguousarray(part, dtype=np.float64) for part in (source, target))
    weighting = Weighting(rows, columns, window, backward, by_gap)
    neighbours = min(neighbours, items)
    nearest = np.full((items, neighbours), -1, np.int32)
    values = np.zeros((items, neighbours), np.float32)
    edges = np.arange(BUCKETS + 1) * items // BUCKETS
    buckets = [(int(low), int(high)) for low, high in pairwise(edges) if high > low]

    def fill(_: None, bucket: tuple[int, int]) -> None:
        _fill(bucket, events, weighting, nearest, values)

    list(run_in_threads(fill, buckets, shared=None, workers=os.cpu_count() or 1))
    kept = nearest >= 0
    offsets = np.concatenate([[0], np.cumsum(kept.sum(axis=1))])
    table = csr_matrix((values[kept], nearest[kept], offsets), shape=(items, items))
    table.sort_indices()
    return table
