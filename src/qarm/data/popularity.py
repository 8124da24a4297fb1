"""Popularity groups: items in groups by their number of clicks, the rarest first."""

from collections.abc import Iterable

import numpy as np
import numpy.typing as npt
import polars as pl

__all__ = ["frequency_groups"]


def frequency_groups(item_ids: Iterable[str], counts: pl.DataFrame, *, groups: int) -> npt.NDArray[np.int64]:
    """Group of each item, int64 [items]: 0 without a count, else 1 (rarest) to `groups`, all of one size.

    counts: `item_id`, and `count`, by which items are sorted, then by id.
    """
    ranked = counts.sort("count", "item_id")["item_id"]
    numbers = 1 + np.arange(len(ranked)) * groups // max(1, len(ranked))
    group = dict(zip(ranked, numbers.tolist(), strict=True))
    return np.array([group.get(item, 0) for item in item_ids], dtype=np.int64)
