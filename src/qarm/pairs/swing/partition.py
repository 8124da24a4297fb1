"""Partition of Swing: buckets of items, their scores, and the merge of the buckets."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from qarm.core.parallel.engine import EngineName
from qarm.core.parallel.engine import engine as run_on
from qarm.core.parallel.progress import Progress
from qarm.data.interaction_matrix import Lists
from qarm.pairs.swing.kernel import keep_best, score_items
from qarm.pairs.swing.popular_items import PopularItems, popular_scores

__all__ = ["Bucket", "Neighbors", "Scoring", "merged", "neighbors", "score_bucket"]

Ints = npt.NDArray[np.int32]
Longs = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]
BLOCK_CELLS, BLOCK_ROWS = 1 << 22, 1 << 15  # largest block that is merged at once
PARTS = 16  # of a block, whatever the number of threads: sums over parts must not depend on it


@dataclass(frozen=True)
class Neighbors:
    """Scored neighbours of items, best first: entry e has neighbors[e] as a neighbour of items[e].

    items, neighbors: int32 [entries]; scores: float64 [entries]; users: int32 [entries], number of users
    with both.
    """

    items: Ints
    neighbors: Ints
    scores: Floats
    users: Ints


@dataclass(frozen=True)
class Bucket:
    """Result of a bucket of items: its neighbours, and its part of the popular items' scores.

    near: of the bucket's items without the popular ones; popular: for each popular item the best of the
    bucket's items, and for those in the bucket the popular items of lower bits; shared: float64
    [2 ** head items], see `popular_items`.
    """

    near: Neighbors
    popular: Neighbors
    shared: Floats


class Scoring(NamedTuple):
    """Input of every bucket of items.

    by_user: every user's items; by_item: every item's users, all or a sample; weights: w of each user,
    float64 [users]; scale: factor of each item's scores, float64 [items]; head: the very popular items;
    alpha: added to the number of shared items; top_k: neighbours per item.
    """

    by_user: Lists
    by_item: Lists
    weights: Floats
    scale: Floats
    head: PopularItems
    alpha: float
    top_k: int

    @property
    def width(self) -> int:
        """The most neighbours that an item can have."""
        return max(1, min(self.top_k, len(self.by_item) - 1))


def neighbors(scoring: Scoring, *, threads: int, engine: EngineName = "local") -> Iterator[Neighbors]:
    """The `top_k` neighbours of every item by (-score, number), in blocks; popular items come last.

    Args:
        scoring: the lists and the settings of the formula.
        threads: that work at once on this machine; the result does not depend on it.
        engine: that runs `score_bucket` over buckets of items.
    """
    others = ~np.isin(np.arange(len(scoring.by_item)), scoring.head.items[: scoring.head.heads])
    rows = np.flatnonzero(others).astype(np.int32)
    height = max(1, min(BLOCK_ROWS, BLOCK_CELLS // scoring.width))
    blocks = [rows[first : first + height] for first in range(0, len(rows), height)]
    buckets = [part for block in blocks for part in _balanced_parts(block, scoring.by_item.sizes[block])]
    scored = run_on(engine)(score_bucket, buckets, shared=scoring, workers=threads)
    shared, best = np.zeros(1 << scoring.head.heads), []
    with Progress(total=len(rows), desc="swing", unit="item") as bar:
        for block in blocks:
            parts = [next(scored) for _ in range(PARTS)]
            for part in parts:
                shared += part.shared
                best.append(part.popular)
            yield merged([part.near for part in parts])
            bar.update(len(block))
    if scoring.head.heads:
        yield _popular_neighbors(scoring, best, shared)


def score_bucket(scoring: Scoring, rows: Ints) -> Bucket:
    """The neighbours of the items `rows`, int32 [n], none of the head; they depend on no other bucket."""
    by_user, by_item, head = scoring.by_user, scoring.by_item, scoring.head
    lists = (head.tail, by_item.starts, by_item.values)
    most = int(by_user.sizes.max(initial=0)) + 2
    with np.errstate(divide="ignore"):  # two users share one item or more, so that parts[0] is not read
        parts = 1.0 / (scoring.alpha + np.arange(most))
    block, by_bit = _Block.empty(len(rows), scoring.width), _ByBit.empty(len(rows), head)
    numbers = (scoring.weights, scoring.scale, parts)
    score_items(rows, lists, numbers, (head.masks, head.bits, head.heads), block, by_bit)
    popular = merged([_best_for_popular(rows, by_bit, scoring.width), _lower(rows, by_bit, head)])
    return Bucket(block.packed(rows), popular, by_bit.shared)


def _balanced_parts(rows: Ints, sizes: Longs) -> list[Ints]:
    """Rows in parts of about equal work: by falling number of users, one to each part in turn."""
    order = rows[np.argsort(-sizes, kind="stable")]
    return [np.ascontiguousarray(order[part::PARTS]) for part in range(PARTS)]


def _best_for_popular(rows: Ints, by_bit: "_ByBit", width: int) -> Neighbors:
    """Neighbours of the popular items: the best of `rows` for each."""
    out = _Block.empty(len(by_bit.items), width)
    for bit in range(len(by_bit.items)):
        both = by_bit.users[:, bit] > 1
        columns = (rows[both], by_bit.scores[both, bit], by_bit.users[both, bit])
        keep_best(int(both.sum()), bit, columns, out)
    return out.packed(by_bit.items)


def _lower(rows: Ints, by_bit: "_ByBit", head: PopularItems) -> Neighbors:
    """Neighbours of the popular items among `rows`: the popular items of lower bits."""
    row, bit = np.nonzero((head.bits[rows] < len(by_bit.items))[:, None] & (by_bit.users > 1))
    return Neighbors(rows[row], by_bit.items[bit], by_bit.scores[row, bit], by_bit.users[row, bit])


def _popular_neighbors(scoring: Scoring, best: list[Neighbors], shared: Floats) -> Neighbors:
    """Neighbours of the popular items: the best of every bucket, and of the scores among popular items."""
    head, items = scoring.head, np.sort(scoring.head.items)
    scores, users = popular_scores(head, scoring.weights, shared, alpha=scoring.alpha)
    one, other = np.nonzero((users > 1) & ~np.eye(head.heads, dtype=np.bool_))
    among = (head.items[one], head.items[other], scores[one, other], users[one, other].astype(np.int32))
    every = merged([*best, Neighbors(*among)])
    out = _Block.empty(len(items), scoring.width)
    for row, item in enumerate(items):
        of = every.items == item
        columns = (every.neighbors[of], every.scores[of], every.users[of])
        keep_best(int(of.sum()), row, columns, out)
    return out.packed(items)


def merged(parts: list[Neighbors]) -> Neighbors:
    """Entries of all parts, sorted by item; entries of one item keep their order."""
    if not parts:
        return _Block.empty(0, 1).packed(np.empty(0, np.int32))
    items = np.concatenate([part.items for part in parts])
    order = np.argsort(items, kind="stable")
    rest = (
        np.concatenate([getattr(part, name) for part in parts])[order]
        for name in ("neighbors", "scores", "users")
    )
    return Neighbors(items[order], *rest)


class _Block(NamedTuple):
    """Neighbours of rows of items, best first, in a table of fixed width."""

    neighbors: Ints  # [rows, width]
    scores: Floats  # [rows, width]
    users: Ints  # [rows, width]
    filled: Longs  # [rows], number of filled columns

    @classmethod
    def empty(cls, rows: int, width: int) -> "_Block":
        """Block without neighbours."""
        shape = (rows, width)
        return cls(
            np.empty(shape, np.int32), np.empty(shape), np.empty(shape, np.int32), np.zeros(rows, np.int64)
        )

    def packed(self, rows: Ints) -> Neighbors:
        """Neighbours of the items `rows`, without the unfilled columns."""
        kept = np.arange(self.neighbors.shape[1]) < self.filled[:, None]
        items = np.repeat(rows, self.filled)
        return Neighbors(items, self.neighbors[kept], self.scores[kept], self.users[kept])


class _ByBit(NamedTuple):
    """Scores and common users of rows of items with each popular item, by its bit."""

    items: Ints  # [popular]
    scores: Floats  # [rows, popular]
    users: Ints  # [rows, popular]
    shared: Floats  # [2 ** heads], see `Bucket`

    @classmethod
    def empty(cls, rows: int, head: PopularItems) -> "_ByBit":
        """Zeros for a number of rows."""
        shape = (rows, len(head.items))
        return cls(head.items, np.zeros(shape), np.zeros(shape, np.int32), np.zeros(1 << head.heads))
