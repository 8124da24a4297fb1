"""Interaction matrix: the distinct positive (user, item) pairs of a log, indexed from both sides."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import polars as pl

from qarm.core.parallel.numba_jit import compiled
from qarm.core.statistics import splitmix64
from qarm.data.interactions import Log

__all__ = ["ClickMatrix", "Lists", "click_matrix", "sampled"]

Ints = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Lists:
    """Sorted lists end to end: list r is values[starts[r]:starts[r + 1]].

    starts: int64 [rows + 1]; values: int32, ascending within a list.
    """

    starts: Ints
    values: npt.NDArray[np.int32]

    def __len__(self) -> int:
        return len(self.starts) - 1

    @property
    def sizes(self) -> Ints:
        """Length of each list, int64 [rows]."""
        return np.diff(self.starts)

    def flipped(self, rows: int) -> "Lists":
        """Transposed lists: for each value below `rows` the lists that have it."""
        starts = _starts(self.values, rows)
        return Lists(starts, _owners(self.starts, self.values, starts[:-1].copy()))

    def _kept(self, kept: npt.NDArray[np.bool_]) -> "Lists":
        owners = np.repeat(np.arange(len(self)), self.sizes)[kept]
        return Lists(_starts(owners, len(self)), self.values[kept])


@dataclass(frozen=True)
class ClickMatrix:
    """Items of each user; item_ids: sorted, an item's number is its row there; by_user: item numbers."""

    item_ids: pl.Series
    by_user: Lists

    @property
    def by_item(self) -> Lists:
        """Each item's users."""
        return self.by_user.flipped(len(self.item_ids))


def click_matrix(log: Log, *, min_items: int = 1) -> ClickMatrix:
    """Matrix of the distinct positive pairs of `log`, without users of fewer than `min_items` items."""
    clicks = log.frame.filter(pl.col("label") == 1)
    item_ids = clicks["item_id"].unique().sort()
    items = clicks["item_id"].cast(pl.Enum(item_ids)).to_physical().cast(pl.Int32).to_numpy()
    lengths = clicks["user_id"].rle().struct.field("len").to_numpy()  # the log is sorted by user
    starts = np.concatenate(([0], np.cumsum(lengths, dtype=np.int64)))
    ends, values = _distinct(starts, items, min_items)
    return ClickMatrix(item_ids, Lists(ends, values))


@compiled()
def _distinct(starts: Ints, items: npt.NDArray[np.int32], least: int) -> tuple[Ints, npt.NDArray[np.int32]]:
    """Each list sorted and without repetitions, if `least` values or more are left."""
    ends, values = np.zeros(len(starts), np.int64), np.empty(len(items), np.int32)
    kept = filled = 0
    for user in range(len(starts) - 1):
        ordered = np.sort(items[starts[user] : starts[user + 1]])
        end = filled
        for index in range(len(ordered)):
            if index == 0 or ordered[index] != ordered[index - 1]:
                values[end] = ordered[index]
                end += 1
        if end - filled >= least:
            kept, filled = kept + 1, end
            ends[kept] = end
    return ends[: kept + 1], values[:filled].copy()


@compiled()
def _owners(starts: Ints, values: npt.NDArray[np.int32], filled: Ints) -> npt.NDArray[np.int32]:
    """List of each value, sorted by value; `filled` is where each value's lists begin, and is changed."""
    owners = np.empty(len(values), np.int32)
    for row in range(len(starts) - 1):
        for value in values[starts[row] : starts[row + 1]]:
            owners[filled[value]] = row
            filled[value] += 1
    return owners


def sampled(lists: Lists, cap: int | None, *, seed: int) -> Lists:
    """Lists cut to at most `cap` values, drawn without replacement.

    The values with the lowest hashes stay. A hash depends on the seed, the list's number and the value
    alone, so that the sample is the same in every bucket.
    """
    if cap is None or not (lists.sizes > cap).any():
        return lists
    owners = np.repeat(np.arange(len(lists)), lists.sizes)
    long = np.flatnonzero((lists.sizes > cap)[owners])
    hashes = _hashes(owners[long], lists.values[long], seed)
    order = np.lexsort((hashes, owners[long]))
    first = np.searchsorted(owners[long], owners[long], side="left")
    kept = np.ones(len(owners), dtype=np.bool_)
    kept[long[order]] = np.arange(len(long)) - first < cap
    return lists._kept(kept)


def _starts(owners: npt.NDArray[np.integer], rows: int) -> Ints:
    return np.concatenate(([0], np.cumsum(np.bincount(owners, minlength=rows)))).astype(np.int64)


def _hashes(owners: Ints, values: npt.NDArray[np.int32], seed: int) -> npt.NDArray[np.uint64]:
    """Hash of each (seed, list, value)."""
    mixed = np.zeros(len(owners), dtype=np.uint64)
    for part in (np.full(len(owners), seed % 2**64, dtype=np.uint64), owners, values):
        mixed = splitmix64(mixed ^ part.astype(np.uint64))
    return mixed
