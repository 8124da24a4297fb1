"""Profile of a log: range of its times, parts of the split, clicks of users and items, and what is thin."""

from collections.abc import Iterator

import polars as pl

from qarm.core.tables.times import guessed_unit, instant
from qarm.data.interactions import Log
from qarm.data.splits import Split
from qarm.schemas.check import LogProfile

__all__ = ["log_profile", "thin_parts"]

FEW_CLICKS = 3.0  # a user with fewer gives next to no pairs, and no history before a test event
QUANTILES = (0.1, 0.5, 0.9)


def log_profile(log: Log, split: Split) -> LogProfile:
    """Figures of the log and its split."""
    known = set(split.train.items)
    cold = ~split.test.frame["item_id"].is_in(list(known))
    return LogProfile(
        first=_moment(log, log.frame["time"].min()),
        last=_moment(log, log.frame["time"].max()),
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


def _moment(log: Log, time: object) -> str:
    """A time of the log as text: a date where the column had dates, or its numbers can only be dates."""
    assert isinstance(time, int)  # noqa: S101 - the column is i64, and a log that was split is not empty
    unit = log.unit or guessed_unit(int(log.frame["time"].max() or 0))  # type: ignore[arg-type] # a number
    return str(time) if unit is None else instant(time, unit)
