"""Profile of a log: times, parts of the split, clicks of users and items, what is thin; popularity groups."""

from collections.abc import Iterable, Iterator

import numpy as np
import numpy.typing as npt
import polars as pl

from qarm.data.interactions import Log
from qarm.data.splits import Split
from qarm.schemas.check import LogProfile

__all__ = ["frequency_groups", "log_profile", "thin_parts"]

FEW_CLICKS = 3.0  # a user with fewer gives next to no pairs, and no history before a test event
QUANTILES = (0.1, 0.5, 0.9)


def log_profile(log: Log, split: Split) -> LogProfile:
    """Figures of the log and its split."""
    times = log.frame["time"]
    first, last = log.period or (str(times.min()), str(times.max()))
    known = set(split.train.items)
    cold = ~split.test.frame["item_id"].is_in(list(known))
    return LogProfile(
        first=first,
        last=last,
        read_as=log.times,
        parts={"train": len(split.train), "valid": len(split.valid), "test": len(split.test)},
        cold_items=split.test.frame.filter(cold)["item_id"].n_unique(),
        cold_share=float(cold.sum() / max(len(cold), 1)),
        clicks_per_user=_quantiles(log, "user_id"),
        clicks_per_item=_quantiles(log, "item_id"),
    )


def thin_parts(profile: LogProfile, split: Split) -> Iterator[str]:
    """A warning for each thing that a later stage can use but that will not tell much."""
    median = profile.clicks_per_user[1]
    if median < FEW_CLICKS:
        yield (
            f"half of the users have {median:g} clicks or fewer, need 3 for pairs and histories; "
            "take a longer log, or expect few pairs"
        )
    if len(split.valid) and not len(split.valid.positives()):
        yield "validation has no positive event, so training cannot stop early; raise split.valid"
    if len(split.test) and not len(split.test.positives()):
        yield "test has no positive event, so nothing can be measured; raise split.test"
    if len(split.test) and not profile.cold_items:
        yield (
            "test has no cold item, so the gain on new items cannot be measured; "
            "set split.cold_items=0.1, or take split.kind=time"
        )


def _quantiles(log: Log, column: str) -> list[float]:
    counts = log.frame.group_by(column).agg(pl.len())["len"]
    return [float(counts.quantile(q, interpolation="nearest") or 0) for q in QUANTILES]


def frequency_groups(item_ids: Iterable[str], counts: pl.DataFrame, *, groups: int) -> npt.NDArray[np.int64]:
    """Group of each item, int64 [items]: 0 without a count, else 1 (rarest) to `groups`, all of one size.

    counts: `item_id`, and `count`, by which items are sorted, then by id.
    """
    ranked = counts.sort("count", "item_id")["item_id"]
    numbers = 1 + np.arange(len(ranked)) * groups // max(1, len(ranked))
    group = dict(zip(ranked, numbers.tolist(), strict=True))
    return np.array([group.get(item, 0) for item in item_ids], dtype=np.int64)
