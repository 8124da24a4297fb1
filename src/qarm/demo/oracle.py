"""Oracle: scores by the ground truth, an upper bound for every recommender."""

from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import polars as pl

from qarm.core.tables.parquet import read_parquet
from qarm.demo.ground_truth import DIMS, GROUPS, PARTS, Array
from qarm.errors import InputError, shown

__all__ = ["true_scores"]


def true_scores(
    folder: Path, *, users: Sequence[str], items: Sequence[str], parts: Iterable[str] = PARTS
) -> Array:
    """Planted utility of the pairs (users[k], items[k]), float64 [k].

    Choices follow exp(utility), so no other score ranks a user's next choice against other items better
    on average. With fewer `parts` it is what one could know who saw those alone; leave popularity
    and hidden out for the best that content can do.

    Raises:
        InputError: an id is not of this world, a part is unknown, or the lengths differ.
    """
    parts = list(parts)
    if len(users) != len(items):
        raise InputError(f"got {len(users):,} users and {len(items):,} items, need one of each per pair")
    if unknown := sorted(set(parts) - set(PARTS)):
        raise InputError(f"unknown parts {shown(unknown)}; need some of {', '.join(PARTS)}")
    item_row, item_frame = _rows(folder / "truth.parquet", "item_id", items)
    user_row, user_frame = _rows(folder / "truth_users.parquet", "user_id", users)
    scores = np.zeros(len(users))
    if "popularity" in parts:
        scores += item_frame["popularity"].to_numpy()[item_row]
    for part in (part for part in PARTS[:-1] if part in parts):
        if f"{part}_group" in item_frame.columns:
            likes = user_frame.select(f"{part}_{group}" for group in range(GROUPS)).to_numpy()
            scores += likes[user_row, item_frame[f"{part}_group"].to_numpy()[item_row]]
            continue
        for name in (f"{part}_{dim}" for dim in range(DIMS)):
            scores += item_frame[name].to_numpy()[item_row] * user_frame[name].to_numpy()[user_row]
    return scores


def _rows(path: Path, key: str, ids: Sequence[str]) -> tuple[npt.NDArray[np.int64], pl.DataFrame]:
    """Row numbers of the ids in the table, and the table."""
    if not path.is_file():
        raise InputError(f"{path}: no such file; build the world first")
    frame = read_parquet(path)
    rows = pl.Series(ids, dtype=pl.String).replace_strict(
        frame[key], pl.Series(range(frame.height), dtype=pl.Int64), default=None, return_dtype=pl.Int64
    )
    if rows.null_count():
        unknown = pl.Series(ids).filter(rows.is_null()).unique(maintain_order=True)
        raise InputError(f"{path} does not know {key} {shown(unknown)}; give ids of this world")
    return rows.to_numpy(), frame
