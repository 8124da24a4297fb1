"""Histories: each user's items by time, as one ragged array of item rows."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import polars as pl
from scipy.sparse import csr_matrix

from qarm.core.item_index import ItemIndex
from qarm.data.interactions import Log

__all__ = ["BLOCK", "Histories", "histories_of", "leave_last_out"]

Ints = npt.NDArray[np.int64]
Rows = npt.NDArray[np.int32]
BLOCK = 32  # users of one block of scores; a fixed shape, so that a user's scores are the same in any batch


@dataclass(frozen=True)
class Histories:
    """Item rows of users: user u's are items[offsets[u]:offsets[u + 1]], oldest first.

    items: int32 [m]; offsets: int64 [users + 1].
    """

    items: Rows
    offsets: Ints

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def __getitem__(self, user: int) -> Rows:
        return self.items[self.offsets[user] : self.offsets[user + 1]]

    @property
    def lengths(self) -> Ints:
        """Number of events of each user, int64 [users]."""
        return np.diff(self.offsets)

    @classmethod
    def of(cls, lists: Sequence[Sequence[int] | Rows]) -> "Histories":
        """Histories of lists of item rows."""
        lengths = np.fromiter((len(rows) for rows in lists), dtype=np.int64, count=len(lists))
        items = np.concatenate(
            [np.asarray(rows, dtype=np.int32) for rows in lists] or [np.empty(0, np.int32)]
        )
        return cls(items, np.concatenate([[0], np.cumsum(lengths)]))

    def only(self, users: Ints) -> "Histories":
        """Histories of some users, int64 [k], in the given order."""
        return self._parts(self.offsets[users], self.offsets[users + 1])

    def latest(self, length: int) -> "Histories":
        """The latest `length` events of each user."""
        return self._parts(np.maximum(self.offsets[:-1], self.offsets[1:] - length), self.offsets[1:])

    def without_last(self, count: int = 1) -> "Histories":
        """All but the latest `count` events of each user."""
        return self._parts(self.offsets[:-1], np.maximum(self.offsets[:-1], self.offsets[1:] - count))

    def distinct(self) -> "Histories":
        """Each item once, at its first event."""
        keys = self.owners() * (int(self.items.max(initial=0)) + 1) + self.items
        first = np.sort(np.unique(keys, return_index=True)[1])
        return Histories(self.items[first], np.searchsorted(first, self.offsets))

    def _parts(self, start: Ints, end: Ints) -> "Histories":
        lengths = end - start
        offsets = np.concatenate([[0], np.cumsum(lengths)])
        rows = np.repeat(start - offsets[:-1], lengths) + np.arange(offsets[-1])
        return Histories(self.items[rows], offsets)

    def owners(self) -> Ints:
        """User of each event, int64 [m]."""
        return np.repeat(np.arange(len(self)), self.lengths)

    def age(self) -> Ints:
        """Number of later events of the same user, for each event, int64 [m]."""
        return np.repeat(self.offsets[1:], self.lengths) - 1 - np.arange(len(self.items))

    def padded(self, length: int) -> npt.NDArray[np.int64]:
        """The latest `length` items of each user, right-aligned, -1 before them, int64 [users, length]."""
        recent = self.latest(length)
        table = np.full((len(self), length), -1, dtype=np.int64)
        table[recent.owners(), length - 1 - recent.age()] = recent.items
        return table

    def matrix(self, items: int, *, decay: float = 1.0, length: int | None = None) -> csr_matrix:
        """Sparse weights float32 [users, items]: decay ** age, summed where an item comes again."""
        events = self if length is None else self.latest(length)
        weights = (decay ** events.age()).astype(np.float32)
        # a copy, as sum_duplicates sorts in place
        table = csr_matrix((weights, events.items.copy(), events.offsets.copy()), shape=(len(self), items))
        table.sum_duplicates()
        return table

    def counts(self, items: int) -> Ints:
        """Number of events of each item, int64 [items]."""
        return np.bincount(self.items, minlength=items)

    def blocks(self) -> Iterator[tuple[Ints, "Histories"]]:
        """Blocks of `BLOCK` users: their numbers, and their histories; the last one ends with empty ones."""
        for first in range(0, len(self), BLOCK):
            users = np.arange(first, min(first + BLOCK, len(self)))
            part = self.only(users)
            empty = np.full(BLOCK - len(users), part.offsets[-1])
            yield users, Histories(part.items, np.concatenate([part.offsets, empty]))


def histories_of(logs: Sequence[Log], user_ids: Sequence[str], index: ItemIndex) -> Histories:
    """Positive events of some users on known items, by time; a user without any has an empty history.

    Args:
        logs: parts of one log. user_ids: distinct. index: the catalogue; events on other items are left out.
    """
    users = ItemIndex(user_ids)
    frame = pl.concat([log.positives().frame.select("user_id", "item_id", "time", "row") for log in logs])
    owners, items = (
        find(frame[name].to_list()) for find, name in ((users.find, "user_id"), (index.find, "item_id"))
    )
    kept = (owners >= 0) & (items >= 0)
    order = np.lexsort((frame["row"].to_numpy()[kept], frame["time"].to_numpy()[kept], owners[kept]))
    sorted_owners = owners[kept][order]
    offsets = np.searchsorted(sorted_owners, np.arange(len(users) + 1))
    return Histories(items[kept][order].astype(np.int32), offsets)


def leave_last_out(histories: Histories, count: int) -> tuple[Histories, Rows]:
    """Histories without their last `count` events, and the first item left out of each, int32 [users].

    Users need more than `count` events.
    """
    return histories.without_last(count), histories.items[histories.offsets[1:] - count]
