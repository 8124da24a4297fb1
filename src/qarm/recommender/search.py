"""Hard search: a long history's events that share a candidate's codes (QARM, 3.3; SIM, arXiv 2006.05639).

Positions of all histories are sorted by code once; a candidate's matches are then a stretch that binary
search finds. The cost follows the matches that are kept, not the length of the history.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

__all__ = ["KINDS", "CodeSearch", "Matches"]

KINDS = ("code 1", "codes 1 and 2", "VQ list")

Ints = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Matches:
    """What the histories of n rows hold of their candidates' codes.

    items: int64 [n, k], the matched events' items; kinds: int64 [n, k], 0 where there is none, else the place
    in `KINDS` from 1; counts: int64 [n, 3], matching events of each kind in the whole history, those that
    share codes 1 and 2 among those that share code 1 too.
    """

    items: Ints
    kinds: Ints
    counts: Ints


class CodeSearch:
    """An index of histories by their items' codes.

    Args:
        history: int [m], item rows of many users' events, each user's together and oldest first.
        rq: int64 [items, levels], of every item; the first two levels count.
        vq: int64 [items, nearest], pool ids, nearest first; None: no VQ list.
        pool: int64 [pool], the item row of every pool id, below 0 for items that are gone.
        most: matches that are kept by code 1, the latest ones, and by VQ list, the nearest ones.
    """

    def __init__(
        self,
        history: npt.NDArray[np.integer],
        rq: Ints,
        *,
        vq: Ints | None = None,
        pool: Ints | None = None,
        most: int = 10,
    ) -> None:
        self.history, self.most = history.astype(np.int64), most
        self.first = rq[:, 0]
        self.both = rq[:, 0] if rq.shape[1] == 1 else rq[:, 0] * (int(rq[:, 1].max(initial=0)) + 1) + rq[:, 1]
        self.lists = None if vq is None or pool is None else pool[vq]
        self._by_first = self._sorted(self.first)
        self._by_both = self._sorted(self.both)
        self._by_item = self._sorted(np.arange(len(rq))) if self.lists is not None else None

    def _sorted(self, codes: Ints) -> Ints:
        """Keys of (code, position), ascending."""
        return np.sort(codes[self.history] * (len(self.history) + 1) + np.arange(len(self.history)))

    def _stretch(self, keys: Ints, codes: Ints, begin: Ints, end: Ints) -> tuple[Ints, Ints]:
        """From and to where in `keys` the events begin..end-1 with these codes lie."""
        base = codes * (len(self.history) + 1)
        return np.searchsorted(keys, base + begin), np.searchsorted(keys, base + end)

    def find(self, items: Ints, begin: Ints, end: Ints) -> Matches:
        """Matches of candidates [n] in history[begin:end], begin and end int64 [n]."""
        low, high = self._stretch(self._by_first, self.first[items], begin, end)
        deep = np.subtract(*self._stretch(self._by_both, self.both[items], begin, end)[::-1])
        latest = high[:, None] - 1 - np.arange(self.most)
        there = latest >= low[:, None]
        places = self._by_first[np.where(there, latest, 0)] if len(self.history) else np.zeros_like(latest)
        found = self.history[places % (len(self.history) + 1)] if len(self.history) else places
        kinds = there * (1 + (self.both[found] == self.both[items][:, None]))
        matched, of, counts = [np.where(there, found, 0)], [kinds], [high - low, deep]
        if self.lists is not None and self._by_item is not None:
            near, events = self._near(self.lists[items], begin, end)
            matched.append(np.maximum(near, 0))
            of.append(3 * (near >= 0))
            counts.append(events)
        else:
            counts.append(np.zeros_like(deep))
        kept, of_kind = np.concatenate(matched, axis=1), np.concatenate(of, axis=1)
        return Matches(kept, of_kind, np.stack(counts, axis=1))

    def _near(self, lists: Ints, begin: Ints, end: Ints) -> tuple[Ints, Ints]:
        """The nearest list items [n, most] that are in the history, -1 where none; their events [n]."""
        assert self._by_item is not None  # noqa: S101 - `find` asks only then
        nearest = lists.shape[1]
        flat = lists.ravel()
        low, high = self._stretch(
            self._by_item, np.maximum(flat, 0), np.repeat(begin, nearest), np.repeat(end, nearest)
        )
        events = np.where(flat >= 0, high - low, 0).reshape(lists.shape)
        first = np.argsort(events == 0, axis=1, kind="stable")[:, : self.most]
        chosen = np.take_along_axis(lists, first, axis=1)
        chosen = np.where(np.take_along_axis(events, first, axis=1) > 0, chosen, -1)
        return chosen, events.sum(axis=1)
