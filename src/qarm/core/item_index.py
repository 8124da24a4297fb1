"""Item index: the row of each item id."""

from collections.abc import Iterable, Iterator, Sequence

import numpy as np
import numpy.typing as npt

from qarm.errors import InputError, shown

__all__ = ["ItemIndex"]

UNKNOWN = "no item {items}; give ids of the {count:,} known items"


class ItemIndex:
    """Rows of distinct ids.

    Args:
        ids: n distinct strings; id number i has row i.
    """

    def __init__(self, ids: Iterable[str]) -> None:
        self._rows = {item: row for row, item in enumerate(ids)}

    def __len__(self) -> int:
        return len(self._rows)

    def __contains__(self, item: object) -> bool:
        return item in self._rows

    def __iter__(self) -> Iterator[str]:
        return iter(self._rows)

    def __getitem__(self, item: str) -> int:
        """The row of one id.

        Raises:
            KeyError: it is unknown.
        """
        return self._rows[item]

    def get(self, item: str) -> int | None:
        """The row of one id; None where it is unknown."""
        return self._rows.get(item)

    def find(self, items: Sequence[str]) -> npt.NDArray[np.int64]:
        """Rows of ids in the given order, -1 where an id is unknown, int64 [len(items)]."""
        return np.fromiter((self._rows.get(item, -1) for item in items), dtype=np.int64, count=len(items))

    def rows(self, items: Sequence[str], *, missing: str = UNKNOWN) -> npt.NDArray[np.int64]:
        """Rows of known ids in the given order, int64 [len(items)].

        Args:
            missing: the error's text; `{items}` stands for the unknown ids, `{count}` for how many are known.

        Raises:
            InputError: ids are unknown.
        """
        rows = self.find(items)
        unknown = [items[position] for position in np.flatnonzero(rows < 0).tolist()]
        if unknown:
            raise InputError(missing.format(items=shown(unknown), count=len(self)))
        return rows
