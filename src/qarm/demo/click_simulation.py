"""Click simulation: utilities, choices by exponential races, and a calendar."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from qarm.core.parallel.progress import Progress
from qarm.demo.ground_truth import Array, GroundTruth, WorldSpec, stream

__all__ = ["SPLIT_TIME", "Events", "choose", "utilities"]

DAY = 86_400
SPLIT_TIME = 1_717_200_000  # 2024-06-01 00:00:00 UTC
DAYS_BEFORE, DAYS_AFTER = 70, 30
TRAIN_SHARE = 0.7
USERS_PER_CHUNK = 128  # 128 x 20,000 float32 keys take 10 MB: the cache likes it, memory stays flat
EVENTS_PER_VISIT = 2.4
# Relative activity in each hour of the day: quiet nights, a busy evening.
HOURS = (6, 4, 3, 2, 2, 3, 6, 12, 18, 22, 24, 26, 30, 28, 26, 26, 28, 32, 38, 44, 46, 40, 26, 12)

Floats = npt.NDArray[np.float32]
Ints = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Events:
    """Interactions in the order of time: user, item (row numbers) and time (Unix seconds), int64 [events].

    Times are distinct; exactly the first `before` events lie before `SPLIT_TIME`.
    """

    user: Ints
    item: Ints
    time: Ints
    before: int

    def __len__(self) -> int:
        return len(self.user)


def utilities(truth: GroundTruth, users: slice | Ints) -> Floats:
    """Planted utility of every item for some users, float32 [users, items]."""
    total = np.repeat(truth.popularity[None].astype(np.float32), len(truth.tastes[0, users]), axis=0)
    # Term by term, not as one product: BLAS may sum in another order on another machine.
    if truth.by_group:
        for group, likes in zip(truth.groups, truth.tastes[:, users], strict=True):
            total += likes.astype(np.float32)[:, group]
        return total
    for factors, tastes in zip(truth.factors, truth.tastes, strict=True):
        for dim in range(factors.shape[1]):
            total += np.float32(tastes[users, dim, None]) * np.float32(factors[None, :, dim])
    return total


def choose(spec: WorldSpec, truth: GroundTruth, *, seed: int) -> Events:
    """Draw every user's choices, without repetition, in proportion to exp(utility) (Plackett-Luce).

    The race of exponential clocks gives that law: the k fastest of clocks with rate exp(utility) are
    k draws without replacement. From the split time on, cold items run too.
    """
    user, rank = _visits(spec, seed)
    before = round(TRAIN_SHARE * len(user))
    total = np.bincount(user, minlength=spec.users)
    # The first event after the split is a warm one too: who cuts by share may round it into training.
    early = np.bincount(user[rank <= before], minlength=spec.users)
    item = np.empty(len(user), dtype=np.int64)
    ends = np.cumsum(total)
    chunks = range(0, spec.users, USERS_PER_CHUNK)
    for first in Progress(chunks, desc="choices", unit="chunk"):
        users = slice(first, min(first + USERS_PER_CHUNK, spec.users))
        random = stream(seed, "choices", first)
        chosen = _race(utilities(truth, users), truth.cold, early[users], total[users], random)
        item[ends[users.start] - total[users.start] : ends[users.stop - 1]] = chosen
    order = np.argsort(rank)
    return Events(user[order], item[order], _calendar(before, len(user) - before), before)


def _visits(spec: WorldSpec, seed: int) -> tuple[Ints, Ints]:
    """Users of all events, in the order of users, and the events' ranks in global time.

    Users come back at loosely regular intervals and stay for a few events each time.
    """
    random = stream(seed, "activity")
    mean = spec.events_per_user
    drawn = np.rint(random.gamma(6.0, mean / 6.0, size=spec.users))
    counts = np.clip(drawn, 0.4 * mean, min(2.5 * mean, spec.warm / 2)).astype(np.int64)
    user = np.repeat(np.arange(spec.users), counts)
    user = user[: len(user) // 10 * 10]  # so that 70 % of the events is a whole number of them
    nth = np.arange(len(user)) - (np.cumsum(counts) - counts)[user]
    visits = np.ceil(counts / EVENTS_PER_VISIT)[user]
    visit = np.floor(nth * visits / counts[user])
    opens = np.r_[True, (visit[1:] != visit[:-1]) | (user[1:] != user[:-1])]
    start = np.maximum.accumulate(np.where(opens, np.arange(len(user)), 0))
    arrival = (visit + random.random(len(user))[start]) / visits
    moment = arrival + 3e-5 * (np.arange(len(user)) - start)  # share of the whole period; 3e-5 is 4 minutes
    moment = moment[np.lexsort((moment, user))]
    rank = np.empty(len(user), dtype=np.int64)
    rank[np.argsort(moment, kind="stable")] = np.arange(len(user))
    return user, rank


def _race(
    utility: Floats,
    cold: npt.NDArray[np.bool_],
    early: Ints,
    total: Ints,
    random: np.random.Generator,
) -> Ints:
    """Chosen items of some users, each user's in the order of time, flat int64 [sum of total]."""
    rate = np.exp(utility)
    clocks = _clocks(rate, random)
    clocks[:, cold] = np.inf
    first = _fastest(clocks, int(early.max()))
    taken_early = np.arange(first.shape[1]) < early[:, None]
    # Clocks forget: whoever has not rung yet may be started afresh.
    clocks = _clocks(rate, random)
    rows, places = np.nonzero(taken_early)
    clocks[rows, first[rows, places]] = np.inf
    then = _fastest(clocks, int((total - early).max()))
    taken_late = np.arange(then.shape[1]) < (total - early)[:, None]
    return np.hstack([first, then])[np.hstack([taken_early, taken_late])]


def _clocks(rate: Floats, random: np.random.Generator) -> Floats:
    clocks = np.empty_like(rate)
    random.standard_exponential(dtype=np.float32, out=clocks)
    clocks /= rate
    return clocks


def _fastest(clocks: Floats, count: int) -> Ints:
    """Columns of the `count` smallest values of each row, smallest first."""
    if count == 0:
        return np.empty((len(clocks), 0), dtype=np.int64)
    nearest = np.argpartition(clocks, count - 1, axis=1)[:, :count]
    order = np.argsort(np.take_along_axis(clocks, nearest, axis=1), axis=1, kind="stable")
    return np.take_along_axis(nearest, order, axis=1)


def _calendar(before: int, after: int) -> Ints:
    """Distinct, rising times with a daily rhythm: `before` of them before the split time."""
    start = SPLIT_TIME - DAYS_BEFORE * DAY
    return np.concatenate([_rhythm(before, DAYS_BEFORE) + start, _rhythm(after, DAYS_AFTER) + SPLIT_TIME])


def _rhythm(count: int, days: int) -> Ints:
    weights = np.tile(np.array(HOURS, dtype=np.float64), days)
    reached = np.r_[0.0, np.cumsum(weights)] / weights.sum()
    seconds = np.interp((np.arange(count) + 0.5) / count, reached, 3600.0 * np.arange(len(reached)))
    steps = np.arange(count)
    apart: Array = np.maximum.accumulate(np.floor(seconds) - steps)
    # The evening's crowd is pushed into the next free seconds, but never past the end.
    return np.minimum(apart + steps, days * DAY - count + steps).astype(np.int64)
