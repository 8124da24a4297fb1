"""Negative sampling: seeded draws of items without a user's event, without repeats, compiled."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from qarm.core.parallel.numba_jit import compiled
from qarm.core.statistics import splitmix64

__all__ = ["Untouched", "draw", "draw_popular", "log_q"]

TRIES = 100
_splitmix64 = compiled()(splitmix64)

Ints = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Untouched:
    """The items that may be drawn, and what each user touched among them.

    pool: int32 [p], item rows, ascending; offsets: int64 [users + 1]; touched: int64, positions in
    the pool, ascending within a user: user u touched pool[touched[offsets[u]:offsets[u + 1]]].
    """

    pool: npt.NDArray[np.int32]
    offsets: Ints
    touched: Ints

    @classmethod
    def of(
        cls,
        users: npt.NDArray[np.int32],
        items: npt.NDArray[np.int32],
        *,
        pool: npt.NDArray[np.int32],
        n_users: int,
    ) -> "Untouched":
        """From events, user and item row of each [n], in any order and with repeats."""
        position = np.searchsorted(pool, items)
        inside = position < len(pool)
        inside[inside] = pool[position[inside]] == items[inside]
        pairs = np.unique(users[inside].astype(np.int64) * len(pool) + position[inside])
        owner, touched = np.divmod(pairs, max(len(pool), 1))
        return cls(pool, np.searchsorted(owner, np.arange(n_users + 1)), touched)


def draw(
    source: Untouched, users: npt.NDArray[np.int32], events: Ints, *, count: int, seed: int
) -> tuple[npt.NDArray[np.int32], Ints]:
    """Up to `count` distinct untouched items per positive, uniform over the pool, in random order.

    A draw depends on the seed and the positive's event number only, so that removing other rows
    changes nothing. A user with fewer than `count` untouched items gets them all.

    Args:
        source: what may be drawn; users: [n], owner of each positive; events: [n], their numbers.

    Returns:
        items: int32 [n, count], filled from the left; drawn: int64 [n], how many are valid.
    """
    return _draw(source.pool, source.offsets, source.touched, users, events, count, np.uint64(seed % 2**64))


def draw_popular(
    source: Untouched,
    users: npt.NDArray[np.int32],
    events: Ints,
    *,
    popularity: Ints,
    count: int,
    seed: int,
) -> tuple[npt.NDArray[np.int32], Ints]:
    """As `draw`, items by their popularity; one that is touched or repeated is drawn again.

    Args:
        popularity: int64 [pool], 0 or more; what has 0 is never drawn.

    Returns:
        as `draw`; a positive gets fewer where `TRIES` draws per negative did not suffice.
    """
    return _draw_popular(
        source.pool,
        source.offsets,
        source.touched,
        users,
        events,
        np.cumsum(popularity),
        count,
        np.uint64(seed % 2**64),
    )


def log_q(counts: npt.NDArray[np.int64]) -> npt.NDArray[np.float32]:
    """Logarithm of an item's chance among negatives drawn by popularity, against a uniform draw, [items].

    A ranker that was trained against uniform negatives has log p(item | user) in its logits; subtracting
    log q makes them those of one trained against the popular ones (Yi et al., RecSys 2019). An item without a
    training event has the mean of the others, weighted by events: what a ranker takes it for.
    """
    known = counts > 0
    logs = np.zeros(len(counts))
    logs[known] = np.log(counts[known] * (known.sum() / counts.sum()))
    logs[~known] = np.average(logs[known], weights=counts[known])
    return logs.astype(np.float32)


@compiled()
def _nth_free(touched: Ints, nth: int) -> int:
    """The nth position that is not in `touched`: nth + j, j the number of touched ones before it."""
    low, high = 0, len(touched)
    while low < high:
        middle = (low + high) // 2
        if touched[middle] - middle <= nth:
            low = middle + 1
        else:
            high = middle
    return nth + low


@compiled()
def _distinct(free: int, count: int, state: np.uint64, out: Ints) -> None:
    """`count` distinct numbers below `free` into `out`; shuffles when most of them are wanted."""
    if 2 * count >= free:
        everything = np.arange(free)
        for i in range(count):
            state = _splitmix64(state)
            j = i + np.int64(state % np.uint64(free - i))
            everything[i], everything[j] = everything[j], everything[i]
            out[i] = everything[i]
        return
    filled = 0
    while filled < count:
        state = _splitmix64(state)
        number = np.int64(state % np.uint64(free))
        repeated = False
        for earlier in range(filled):
            if out[earlier] == number:
                repeated = True
                break
        if not repeated:
            out[filled] = number
            filled += 1


@compiled()
def _user_and_state(
    offsets: Ints, touched: Ints, user: np.int32, event: np.int64, seed: np.uint64
) -> tuple[Ints, np.uint64]:
    """What the user touched, and the state that the draws of this event begin with."""
    touched_by_user = touched[offsets[user] : offsets[user + 1]]
    return touched_by_user, _splitmix64(_splitmix64(seed) ^ np.uint64(event))


@compiled()
def _draw(
    pool: npt.NDArray[np.int32],
    offsets: Ints,
    touched: Ints,
    users: npt.NDArray[np.int32],
    events: Ints,
    count: int,
    seed: np.uint64,
) -> tuple[npt.NDArray[np.int32], Ints]:
    n = len(users)
    items = np.zeros((n, count), np.int32)
    drawn = np.zeros(n, np.int64)
    numbers = np.zeros(count, np.int64)
    for row in range(n):
        excluded, state = _user_and_state(offsets, touched, users[row], events[row], seed)
        free = len(pool) - len(excluded)
        drawn[row] = min(count, free)
        _distinct(free, drawn[row], state, numbers)
        for j in range(drawn[row]):
            items[row, j] = pool[_nth_free(excluded, numbers[j])]
    return items, drawn


@compiled()
def _draw_popular(
    pool: npt.NDArray[np.int32],
    offsets: Ints,
    touched: Ints,
    users: npt.NDArray[np.int32],
    events: Ints,
    total: Ints,
    count: int,
    seed: np.uint64,
) -> tuple[npt.NDArray[np.int32], Ints]:
    n = len(users)
    items = np.zeros((n, count), np.int32)
    drawn = np.zeros(n, np.int64)
    for row in range(n):
        excluded, state = _user_and_state(offsets, touched, users[row], events[row], seed)
        for _ in range(count * TRIES):
            if drawn[row] == count or total[-1] == 0:
                break
            state = _splitmix64(state)
            position = np.searchsorted(total, np.int64(state % np.uint64(total[-1])), side="right")
            near = np.searchsorted(excluded, position)
            rejected = near < len(excluded) and excluded[near] == position
            for earlier in range(drawn[row]):
                rejected |= items[row, earlier] == pool[position]
            if not rejected:
                items[row, drawn[row]] = pool[position]
                drawn[row] += 1
    return items, drawn
