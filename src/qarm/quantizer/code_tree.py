"""Code tree: the number of items under each prefix of codes, and example items."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from qarm.data.codes import Codes
from qarm.quantizer.code_prefix import Prefix, prefix_stretch

__all__ = ["CodeTree", "Node"]

Ints = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Node:
    """A prefix of codes; items: how many have it; codes: how many codes of the next level follow it.

    examples: ids of some of its items, at least one from each of its largest branches, largest first.
    """

    prefix: Prefix
    items: int
    codes: int
    examples: list[str]


class CodeTree:
    """Items sorted by their codes, so that every prefix is one stretch of them.

    Args:
        codes: of n items.
    """

    def __init__(self, codes: Codes) -> None:
        order = np.lexsort(codes.rq.T[::-1])  # stable: equal codes stay in the table's order
        self._rows = codes.rq[order]
        self._ids = [codes.item_ids[row] for row in order]

    @property
    def levels(self) -> int:
        """Number of levels of the RQ code."""
        return int(self._rows.shape[1])

    @property
    def item_ids(self) -> list[str]:
        """Items in the order of their codes."""
        return self._ids

    def __len__(self) -> int:
        return len(self._ids)

    def stretch(self, prefix: Prefix) -> tuple[int, int]:
        """First and last + 1 of the prefix's items, in the order of the codes."""
        return prefix_stretch(self._rows.T, prefix)

    def branches(self, prefix: Prefix) -> int:
        """Number of codes of the next level that follow the prefix."""
        low, high = self.stretch(prefix)
        return len(np.unique(self._rows[low:high, len(prefix)]))

    def items(self, prefix: Prefix = (), *, start: int = 0, most: int | None = None) -> tuple[int, list[str]]:
        """How many items have the prefix, and the ids of up to `most` of them from place `start`."""
        low, high = self.stretch(prefix)
        stop = high if most is None else min(high, low + start + most)
        return high - low, self._ids[low + start : stop]

    def nodes(
        self, prefix: Prefix = (), *, most: int = 6000, examples: int = 6, depth: int | None = None
    ) -> list[Node]:
        """The prefix itself, if any item has it, and up to `most` of the prefixes that begin with it.

        Kept are the largest, of equal ones the shortest and then the lowest, so that every kept prefix
        has its parent kept too.

        Args:
            prefix: codes from level 1 on, () for the whole tree.
            most: prefixes kept below it.
            examples: ids at each.
            depth: levels below it; all when None.

        Returns:
            Sorted by prefix; a parent stands before its children.
        """
        low, high = self.stretch(prefix)
        if low == high:
            return []
        top = len(prefix)
        bottom = self.levels if depth is None else min(self.levels, top + depth)
        starts = self._starts(low, high, top)
        kept = _largest([starts[level] for level in range(top + 1, bottom + 1)], high, most)
        chosen = [(top, low, high), *((top + 1 + level, start, stop) for level, start, stop in kept)]
        found = [self._node(starts, level, start, stop, examples) for level, start, stop in chosen]
        return sorted(found, key=lambda node: node.prefix)

    def _starts(self, low: int, high: int, top: int) -> dict[int, Ints]:
        """For each level below `top`, where its prefixes begin between `low` and `high`."""
        rows = self._rows[low:high]
        differs = np.zeros(len(rows), dtype=bool)
        differs[0] = True
        starts = {}
        for level in range(top, self.levels):
            differs[1:] |= rows[1:, level] != rows[:-1, level]
            starts[level + 1] = low + np.flatnonzero(differs)
        return starts

    def _node(self, starts: dict[int, Ints], level: int, start: int, stop: int, examples: int) -> Node:
        prefix = tuple(int(code) for code in self._rows[start, :level])
        branches = len(_between(starts[level + 1], start, stop)) if level < self.levels else 0
        rows = self._examples(starts, level, start, stop, examples)
        return Node(prefix, stop - start, branches, [self._ids[row] for row in rows])

    def _examples(self, starts: dict[int, Ints], level: int, start: int, stop: int, count: int) -> list[int]:
        """Rows, taken in turn from the largest branches."""
        if level == self.levels:
            return list(range(start, min(stop, start + count)))
        bounds = np.append(_between(starts[level + 1], start, stop), stop)
        largest = np.argsort(-np.diff(bounds), kind="stable")[:count]
        branches = [
            self._examples(starts, level + 1, int(bounds[b]), int(bounds[b + 1]), count) for b in largest
        ]
        turns = (branch[turn] for turn in range(count) for branch in branches if turn < len(branch))
        return [row for row, _ in zip(turns, range(count), strict=False)]


def _largest(starts: Sequence[Ints], high: int, most: int) -> list[tuple[int, int, int]]:
    """(place in `starts`, first row, row after the last) of the largest stretches."""
    if not starts:
        return []
    levels = np.concatenate([np.full(len(rows), level) for level, rows in enumerate(starts)])
    firsts = np.concatenate(starts)
    sizes = np.concatenate([np.diff(np.append(rows, high)) for rows in starts])
    order = np.lexsort((firsts, levels, -sizes))[:most]
    return [
        (int(level), int(first), int(first + size))
        for level, first, size in zip(levels[order], firsts[order], sizes[order], strict=True)
    ]


def _between(starts: Ints, low: int, high: int) -> Ints:
    first, last = np.searchsorted(starts, [low, high])
    found: Ints = starts[first:last]
    return found
