"""Ground truth of the demo world: item factors, users' tastes, and the weight of each modality."""

import math
from dataclasses import asdict, dataclass
from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt

from qarm.errors import InputError, Problems

__all__ = [
    "DIMS",
    "GROUPS",
    "PARTS",
    "SOURCES",
    "GroundTruth",
    "Tastes",
    "WorldSpec",
    "centres",
    "draw_ground_truth",
    "stream",
]

SOURCES = ("text", "image", "audio", "hidden")
PARTS = (*SOURCES, "popularity")
GROUPS = 8
DIMS = 2
MOST_EVENTS = 4_000_000  # times are distinct, so that a split never cuts through a moment
STREAMS = ("factors", "popularity", "cold", "tastes", "activity", "choices", "text", "picture", "sound")

Array = npt.NDArray[np.float64]
Tastes = Literal["directions", "groups"]


@dataclass(frozen=True)
class WorldSpec:
    """The size of a world and the strength of what is planted in it.

    items, users, events_per_user: counts, the last one a mean; cold: share of items that nobody can
    choose before the split time; strength: standard deviation over items of one source's part in a
    user's utility; popularity: that of the item's own part; jitter: spread of items around the centre
    of their group, as a share of the factors' deviation; tastes: users like a direction in the plane of
    each source's factors, so that a linear map of what is seen is the true model, or some groups of items,
    whichever way these lie.
    Utilities are log odds: an item with 1 more is chosen e times as often.
    """

    items: int = 2_000
    users: int = 1_000
    events_per_user: int = 60
    cold: float = 0.1
    strength: float = 0.8
    popularity: float = 0.36
    jitter: float = 0.3
    tastes: Tastes = "directions"

    def check(self) -> None:
        """Raise `InputError` with every setting that cannot make a world."""
        problems = Problems()
        least = {"items": 20, "users": 1, "events_per_user": 4}
        for name, low in least.items():
            if getattr(self, name) < low:
                problems.add(f"{name} = {getattr(self, name)}, need at least {low}")
        for name in ("cold", "jitter"):
            if not 0.0 < getattr(self, name) < 1.0:
                problems.add(f"{name} = {getattr(self, name)}, need a share between 0 and 1")
        for name in ("strength", "popularity"):
            if not 0.0 <= getattr(self, name) < math.inf:
                problems.add(f"{name} = {getattr(self, name)}, need 0 or more")
        if self.tastes not in get_args(Tastes):
            problems.add(f"tastes = {self.tastes!r}, need one of {', '.join(get_args(Tastes))}")
        if self.users * self.events_per_user > MOST_EVENTS:
            problems.add(
                f"users x events_per_user = {self.users * self.events_per_user:,}, need at most "
                f"{MOST_EVENTS:,}, about one event in two seconds; lower users"
            )
        if not problems.messages and 3 * self.events_per_user > self.warm:
            problems.add(
                f"events_per_user = {self.events_per_user}, need at most a third of the "
                f"{self.warm} items that are not cold; raise items"
            )
        problems.raise_any()

    @property
    def warm(self) -> int:
        """Number of items that are there from the first day."""
        return self.items - round(self.cold * self.items)

    def settings(self) -> dict[str, Any]:
        """The fields as JSON values."""
        return asdict(self)


@dataclass(frozen=True)
class GroundTruth:
    """The planted truth.

    factors: float64 [4, items, 2], one slice per source in the order of `SOURCES`, each column with
    mean 0 and deviation about 1; groups: int64 [4, items], the group that the item lies around; popularity:
    float64 [items]; cold: bool [items]; tastes: float64 [4, users, 2], its scalar product with an item's
    factors is the source's part in the utility, or [4, users, groups], where that part is the entry of the
    item's group.
    """

    factors: Array
    tastes: Array
    popularity: Array
    cold: npt.NDArray[np.bool_]
    groups: npt.NDArray[np.int64]

    @property
    def by_group(self) -> bool:
        """Whether tastes are for groups."""
        return bool(self.tastes.shape[2] == GROUPS)


def stream(seed: int, name: str, *index: int) -> np.random.Generator:
    """The generator of one purpose, and of one item where an index is given.

    Streams do not touch one another, so that changing what is planted in one source cannot change a
    byte of the others, and the order of drawing is free.
    """
    return np.random.default_rng([seed, STREAMS.index(name), *index])


def draw_ground_truth(spec: WorldSpec, *, seed: int) -> GroundTruth:
    """Draw factors, tastes, popularity and cold items.

    Raises:
        InputError: a setting is out of range or the seed is negative.
    """
    spec.check()
    if seed < 0:
        raise InputError(f"seed = {seed}, need 0 or more")
    cold = np.zeros(spec.items, dtype=np.bool_)
    chosen = stream(seed, "cold").choice(spec.items, spec.items - spec.warm, replace=False)
    cold[chosen] = True
    likes = _directions if spec.tastes == "directions" else _likes
    return GroundTruth(
        factors=np.stack([_factors(spec, seed, k) for k in range(len(SOURCES))]),
        tastes=np.stack([likes(spec, seed, k) for k in range(len(SOURCES))]),
        groups=np.stack([_groups(spec, stream(seed, "factors", k)) for k in range(len(SOURCES))]),
        popularity=spec.popularity * stream(seed, "popularity").normal(size=spec.items),
        cold=cold,
    )


def centres() -> Array:
    """Unit centres of the taste groups, evenly around a circle, float64 [groups, 2]."""
    angles = 2 * np.pi * np.arange(GROUPS) / GROUPS
    return np.stack([np.cos(angles), np.sin(angles)], axis=1)


def _factors(spec: WorldSpec, seed: int, source: int) -> Array:
    random = stream(seed, "factors", source)
    around = math.sqrt(DIMS * (1 - spec.jitter**2)) * centres()[_groups(spec, random)]
    return around + spec.jitter * random.normal(size=(spec.items, DIMS))


def _groups(spec: WorldSpec, random: np.random.Generator) -> npt.NDArray[np.int64]:
    """The first draw of a source's factors."""
    return random.integers(GROUPS, size=spec.items)


def _directions(spec: WorldSpec, seed: int, source: int) -> Array:
    """Each user leans towards a mix of one to three groups; everybody leans equally far."""
    random = stream(seed, "tastes", source)
    order = random.random((spec.users, GROUPS)).argsort(axis=1, kind="stable")
    liked = random.integers(1, 4, size=(spec.users, 1))
    weights = np.where(order < liked, random.standard_exponential((spec.users, GROUPS)), 0.0)
    # Two opposite groups can cancel out; the small push keeps the direction defined.
    leaning: Array = weights @ centres() + 1e-6 * random.normal(size=(spec.users, DIMS))
    leaning *= spec.strength / np.linalg.norm(leaning, axis=1, keepdims=True)
    return leaning


def _likes(spec: WorldSpec, seed: int, source: int) -> Array:
    """Each user likes one to three groups, all alike; likes spread equally far in everybody."""
    random = stream(seed, "tastes", source)
    order = random.random((spec.users, GROUPS)).argsort(axis=1, kind="stable")
    liked = (order < random.integers(1, 4, size=(spec.users, 1))).astype(np.float64)
    liked -= liked.mean(axis=1, keepdims=True)
    leaning: Array = liked * (spec.strength / liked.std(axis=1, keepdims=True))
    return leaning
