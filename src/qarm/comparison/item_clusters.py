"""Clusters of items: the variance that the choice of items adds to a difference in GAUC."""

from collections.abc import Mapping, Sequence
from typing import Protocol

import numpy as np
import numpy.typing as npt

__all__ = ["ItemClusters", "row_influence"]

Array = npt.NDArray[np.generic]
Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]


class JudgedRows(Protocol):
    """Rows of one seed: user and item numbers, labels and a method's scores, [n] each."""

    @property
    def users(self) -> Ints:
        """User of each row."""

    @property
    def items(self) -> npt.NDArray[np.int32]:
        """Item of each row."""

    @property
    def labels(self) -> Array:
        """Label of each row, 1 or 0."""

    @property
    def scores(self) -> npt.NDArray[np.float32]:
        """Score of each row."""


class ItemClusters:
    """Influence of the items on the GAUC of methods, averaged over seeds.

    Rows of an item depend on one another across users. With items as a third way of clustering (Cameron,
    Gelbach and Miller 2011) the variance grows by that of clusters of items minus that of cells of a user and
    an item, which clusters of users hold already; zero at least.

    Args:
        rows: of one slice, by method, for each seed.
    """

    def __init__(self, rows: Mapping[str, Sequence[JudgedRows]]) -> None:
        seeds = next(iter(rows.values()))
        users, items = (
            np.concatenate([getattr(seed, name) for seed in seeds]).astype(np.int64)
            for name in ("users", "items")
        )
        self._items = np.unique(items, return_inverse=True)[1]
        self._cells = np.unique(users * (items.max(initial=0) + 1) + items, return_inverse=True)[1]
        self._influence = {
            method: np.concatenate([row_influence(each.users, each.labels, each.scores) for each in of_seeds])
            / len(of_seeds)
            for method, of_seeds in rows.items()
        }

    def added(self, method: str, against: str) -> float:
        """Variance that items add to the difference of two methods."""
        influence = self._influence[method] - self._influence[against]
        of_items, of_cells = (np.bincount(part, influence) for part in (self._items, self._cells))
        many = len(of_items)
        correction = many / (many - 1) if many > 1 else 1.0
        return max(0.0, correction * float(of_items @ of_items) - float(of_cells @ of_cells))


def row_influence(users: Array, labels: Array, scores: Array) -> Floats:
    """Influence of each row's weight on GAUC, float64 [n]; zero for rows of users with one label.

    A positive's placement is the share of the user's negatives below it, ties counted half, and a negative's
    that of the positives above it (DeLong, DeLong and Clarke-Pearson, Biometrics 1988).
    """
    order = np.lexsort((scores, users))
    user, value, positive = users[order], scores[order], labels[order].astype(bool)
    if not len(order):
        return np.empty(0)
    new_user = np.concatenate([[True], user[1:] != user[:-1]])
    new_tie = new_user | np.concatenate([[True], value[1:] != value[:-1]])
    owner, tie = np.cumsum(new_user) - 1, np.cumsum(new_tie) - 1
    counts = [np.bincount(owner, side) for side in (~positive, positive)]
    below = [
        _below(side, tie, np.flatnonzero(new_tie), np.flatnonzero(new_user)[owner])
        for side in (~positive, positive)
    ]
    negatives, positives = (count[owner] for count in counts)
    both = (negatives > 0) & (positives > 0)
    with np.errstate(invalid="ignore", divide="ignore"):
        place = np.where(positive, below[0] / negatives, (positives - below[1]) / positives)
        own = np.where(positive, positives, negatives)
        size = positives + negatives
        area = (np.bincount(owner, np.where(positive, place, 0)) / counts[1])[owner]
    kept = both.sum()
    if not kept:
        return np.zeros(len(order))
    whole = area[both].sum() / kept
    found = np.zeros(len(order))
    found[order] = np.where(both, size / own * (place - area) + area - whole, 0.0) / kept
    return found


def _below(side: npt.NDArray[np.bool_], tie: Ints, first: Ints, start: Ints) -> Floats:
    """Rows of one label below each row of the same user, those with an equal score counted half."""
    before = np.concatenate([[0], np.cumsum(side)])
    ends = np.append(first[1:], len(side))
    low, high = before[first][tie], before[ends][tie]
    halves: Floats = (low + high) / 2 - before[start]
    return halves
