"""Swing over buckets of items: who scores what, and how the parts come together."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from tqdm import tqdm

from qarm.behavior.matrix import Lists
from qarm.behavior.swing_kernel import score_items
from qarm.engines import EngineName
from qarm.engines import engine as run_on

__all__ = ["Neighbors", "Scoring", "neighbors", "score_bucket"]

Ints = npt.NDArray[np.int32]
Longs = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]
BLOCK_CELLS, BLOCK_ROWS = 1 << 22, 1 << 15  # what is merged at once
PARTS_PER_THREAD = 4  # an item that many have takes long: the others need not wait for it


@dataclass(frozen=True)
class Neighbors:
    """Scored neighbours of items, best first: entry e says neighbors[e] is near items[e].

    items, neighbors: int32 [entries]; scores: float64 [entries]; users: int32 [entries], those who have
    both.
    """

    items: Ints
    neighbors: Ints
    scores: Floats
    users: Ints


class Scoring(NamedTuple):
    """What every bucket of items needs.

    by_user: every user's items; by_item: every item's users, all or a sample; weights: w of each user,
    float64 [users]; scale: factor of each item's scores, float64 [items]; alpha: added to the number of
    shared items; top_k: neighbours per item.
    """

    by_user: Lists
    by_item: Lists
    weights: Floats
    scale: Floats
    alpha: float
    top_k: int


def neighbors(scoring: Scoring, *, threads: int, engine: EngineName = "local") -> Iterator[Neighbors]:
    """The `top_k` neighbours of every item by (-score, number), in blocks of ascending items.

    Args:
        scoring: the lists and the formula's numbers.
        threads: that work at once on this machine; the result does not depend on it.
        engine: that runs `score_bucket` over buckets of items.
    """
    count = len(scoring.by_item)
    width = max(1, min(scoring.top_k, count - 1))
    height = max(1, min(BLOCK_ROWS, BLOCK_CELLS // width))
    blocks = [
        np.arange(first, min(first + height, count), dtype=np.int32) for first in range(0, count, height)
    ]
    parts = threads * PARTS_PER_THREAD
    buckets = [part for rows in blocks for part in _dealt(rows, scoring.by_item.sizes[rows], parts)]
    run = run_on(engine)
    scored = run(score_bucket, buckets, shared=scoring, workers=threads)
    with tqdm(total=count, desc="swing", disable=None) as bar:
        for rows in blocks:
            yield _merged([next(scored) for _ in range(parts)])
            bar.update(len(rows))


def score_bucket(scoring: Scoring, rows: Ints) -> Neighbors:
    """The neighbours of the items `rows`, int32 [n], in that order; they depend on no other bucket."""
    by_user, by_item = scoring.by_user, scoring.by_item
    lists = (by_user.starts, by_user.values, by_item.starts, by_item.values)
    out = _Block.empty(len(rows), max(1, min(scoring.top_k, len(by_item) - 1)))
    score_items(rows, lists, scoring.weights, scoring.scale, scoring.alpha, out)
    return out.packed(rows)


def _dealt(rows: Ints, sizes: Longs, parts: int) -> list[Ints]:
    """The heaviest items are dealt out first, one to each part in turn."""
    order = rows[np.argsort(-sizes, kind="stable")]
    return [np.ascontiguousarray(order[part::parts]) for part in range(parts)]


def _merged(parts: list[Neighbors]) -> Neighbors:
    items = np.concatenate([part.items for part in parts])
    order = np.argsort(items, kind="stable")  # an item's neighbours stay in their order
    rest = (
        np.concatenate([getattr(part, name) for part in parts])[order]
        for name in ("neighbors", "scores", "users")
    )
    return Neighbors(items[order], *rest)


class _Block(NamedTuple):
    neighbors: Ints  # [rows, width]
    scores: Floats  # [rows, width]
    users: Ints  # [rows, width]
    found: Longs  # [rows], how many of `width` are filled

    @classmethod
    def empty(cls, rows: int, width: int) -> "_Block":
        shape = (rows, width)
        return cls(
            np.empty(shape, np.int32), np.empty(shape), np.empty(shape, np.int32), np.zeros(rows, np.int64)
        )

    def packed(self, rows: Ints) -> Neighbors:
        filled = np.arange(self.neighbors.shape[1]) < self.found[:, None]
        items = np.repeat(rows, self.found)
        return Neighbors(items, self.neighbors[filled], self.scores[filled], self.users[filled])
