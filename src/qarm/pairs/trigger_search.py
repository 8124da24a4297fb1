"""Trigger search: for every click, the most similar of the user's latest items before it."""

from itertools import pairwise
from typing import NamedTuple

import numba
import numpy as np
import numpy.typing as npt

from qarm.core.parallel.engine import EngineName
from qarm.core.parallel.engine import engine as run_on
from qarm.core.parallel.numba_jit import compiled

__all__ = ["Search", "search_bucket", "similar_triggers"]

Floats = npt.NDArray[np.float32]
Ints = npt.NDArray[np.int32]
Longs = npt.NDArray[np.int64]
NONE = -1
BUCKETS_PER_THREAD = 4


def similar_triggers(
    vectors: Floats,
    items: Ints,
    *,
    starts: Longs,
    times: Longs,
    window: int,
    threads: int | None = None,
    engine: EngineName = "local",
) -> tuple[Ints, Floats]:
    """Trigger of each click: the nearest of the user's earlier items, with its cosine.

    Candidates are the latest `window` distinct items, other than the clicked one, that the user clicked
    strictly earlier in time. An item counts once, as of its latest such click; clicks of one moment
    keep the given order. Of equally similar candidates the one clicked last is chosen, then the lowest
    item number.

    Args:
        vectors: float32 [items, d], compared by cosine; a zero vector is at 0 from every other.
        items: item number of each click, int32 [n], one user's clicks together and in order of time.
        starts: int64 [users + 1], user r's clicks are starts[r]:starts[r + 1].
        times: of the clicks, int64 [n].
        window: most candidates per click.
        threads: that work at once, by default all of numba's; the result does not depend on it.
        engine: that runs `search_bucket` over buckets of users.

    Returns:
        Item number of each click's trigger, int32 [n], -1 where it has no candidate; and their cosine,
        float32 [n], 0 without a candidate.
    """
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    unit = np.ascontiguousarray(vectors / np.where(lengths > 0.0, lengths, 1.0), dtype=np.float32)
    # numba.get_num_threads() would start its OpenMP and change torch's number of threads
    threads = threads or numba.config.NUMBA_NUM_THREADS  # type: ignore[attr-defined]
    # Whole users, and about as many clicks, to each bucket.
    bounds = np.searchsorted(starts, np.linspace(0, len(items), BUCKETS_PER_THREAD * threads + 1))
    buckets = [(int(first), int(last)) for first, last in pairwise(bounds) if first < last]
    run = run_on(engine)
    parts = list(
        run(search_bucket, buckets, shared=Search(unit, items, starts, times, window), workers=threads)
    )
    triggers = np.concatenate([np.empty(0, np.int32), *(part[0] for part in parts)])
    return triggers, np.concatenate([np.empty(0, np.float32), *(part[1] for part in parts)])


class Search(NamedTuple):
    """Input of every bucket of users: unit vectors, and the arguments of `similar_triggers`."""

    unit: Floats
    items: Ints
    starts: Longs
    times: Longs
    window: int


def search_bucket(search: Search, users: tuple[int, int]) -> tuple[Ints, Floats]:
    """Triggers and cosines of the clicks of the users from the first to before the last."""
    starts = search.starts[users[0] : users[1] + 1]
    clicks = slice(starts[0], starts[-1])
    items, times = search.items[clicks], search.times[clicks]
    triggers, scores = np.full(len(items), NONE, dtype=np.int32), np.zeros(len(items), dtype=np.float32)
    _search(search.unit, items, starts - starts[0], times, search.window, triggers, scores)
    return triggers, scores


@compiled(division="numpy")
def _search(
    unit: Floats, items: Ints, starts: Longs, times: Longs, window: int, triggers: Ints, scores: Floats
) -> None:
    """Fill triggers and scores of some users; each user's items are a linked list, latest first."""
    older, newer = np.full(len(unit), NONE, np.int32), np.full(len(unit), NONE, np.int32)
    latest = np.zeros(len(unit), np.int64)
    for user in range(len(starts) - 1):
        head, begin, stop = NONE, starts[user], starts[user + 1]
        while begin < stop:
            end = begin
            while end < stop and times[end] == times[begin]:
                end += 1
            for click in range(begin, end):
                triggers[click], scores[click] = _nearest(unit, items[click], head, older, latest, window)
            for click in range(begin, end):
                head = _move_to_front(items[click], head, older, newer)
                latest[items[click]] = times[click]
            begin = end
        while head != NONE:
            newer[head] = NONE
            previous, older[head] = older[head], NONE
            head = previous


@compiled(division="numpy")
def _nearest(
    unit: Floats, item: int, head: int, older: Ints, latest: Longs, window: int
) -> tuple[int, np.float32]:
    best, best_score = NONE, np.float32(0.0)
    candidate, left = head, window
    while candidate != NONE and left > 0:
        if candidate != item:
            left -= 1
            score = _dot(unit[candidate], unit[item])
            # Candidates come latest first: only one of the same moment can still win a tie.
            tie = score == best_score and latest[candidate] == latest[best] and candidate < best
            if best == NONE or score > best_score or tie:
                best, best_score = candidate, score
        candidate = older[candidate]
    return best, best_score


@compiled(division="numpy")
def _dot(x: Floats, y: Floats) -> np.float32:
    total = np.float32(0.0)
    for d in range(len(x)):
        total += x[d] * y[d]
    return total


@compiled(division="numpy")
def _move_to_front(item: int, head: int, older: Ints, newer: Ints) -> int:
    if item == head:
        return item
    if newer[item] != NONE:  # listed, and not first
        older[newer[item]] = older[item]
        if older[item] != NONE:
            newer[older[item]] = newer[item]
    older[item], newer[item] = head, NONE
    if head != NONE:
        newer[head] = item
    return item
