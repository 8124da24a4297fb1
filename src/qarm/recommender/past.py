"""What users did before a moment: positive events by user and time, and items and users as numbers."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import polars as pl

from qarm.data.interactions import Log
from qarm.errors import InputError, shown

__all__ = ["Ints", "Past", "Rows", "row_numbers"]

Ints = npt.NDArray[np.int64]
Rows = npt.NDArray[np.int32]


@dataclass(frozen=True)
class Past:
    """Positive events by user and time: items and times [m], user u's in offsets[u]:offsets[u + 1]."""

    items: Rows
    times: Ints
    offsets: Ints

    @classmethod
    def of(cls, log: Log, user_ids: list[str], item_ids: list[str]) -> "Past":
        frame = log.positives().frame
        users = row_numbers(frame["user_id"], user_ids)
        times, rows = frame["time"].to_numpy(), frame["row"].to_numpy()
        order = np.lexsort((rows, times, users))
        offsets = np.searchsorted(users[order], np.arange(len(user_ids) + 1))
        return cls(row_numbers(frame["item_id"], item_ids)[order], times[order], offsets)

    def before(self, users: Rows, times: Ints) -> tuple[Ints, Ints]:
        """Start and end of the events of each user strictly before each time."""
        clock = np.unique(np.concatenate([self.times, times]))
        owners = np.repeat(np.arange(len(self.offsets) - 1), np.diff(self.offsets))
        own = owners * len(clock) + np.searchsorted(clock, self.times)
        wanted = users.astype(np.int64) * len(clock) + np.searchsorted(clock, times)
        end = np.searchsorted(own, wanted)
        return self.offsets[users], end


def row_numbers(ids: pl.Series, vocabulary: list[str]) -> Rows:
    """Position of each id in a vocabulary of distinct strings, int32 [len(ids)].

    Raises:
        InputError: ids that the vocabulary has not, named and counted.
    """
    places = ids.cast(pl.Enum(vocabulary), strict=False).to_physical()
    if places.null_count():
        unknown = ids.filter(places.is_null()).unique().sort()
        raise InputError(
            f"{ids.name}: {len(unknown)} unknown, {shown(unknown)}; add them to the catalogue and its codes"
        )
    return places.to_numpy().astype(np.int32)
