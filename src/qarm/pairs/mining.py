"""Pairs (trigger, target) of items that behave alike, mined from both sources."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import polars as pl

from qarm.core.atomic_io import write_parquet
from qarm.core.parallel.engine import EngineName
from qarm.data.interactions import Log
from qarm.errors import InputError
from qarm.pairs.selection import ITEM2ITEM, USER2ITEM, Directions, Rules, sift
from qarm.pairs.swing.swing import swing as score_neighbors
from qarm.pairs.user2item import user2item as find_triggers

__all__ = ["mine_pairs"]

COLUMNS = (
    pl.col("trigger_id"),
    pl.col("target_id"),
    pl.col("source"),
    pl.col("score").cast(pl.Float32),
    pl.col("weight"),
    pl.col("count").cast(pl.Int32),
)
CANDIDATE = {
    "trigger_id": pl.String,
    "target_id": pl.String,
    "source": pl.String,
    "score": pl.Float64,
    "count": pl.Int64,
    "strength": pl.Float64,
}


def mine_pairs(
    log: Log,
    *,
    window: int = 50,
    per_item: int = 40,
    min_score: Mapping[str, float] | None = None,
    min_count: Mapping[str, int] | None = None,
    mix: Mapping[str, float] | None = None,
    popularity: float = 0.0,
    directions: Directions = "one",
    swing: Mapping[str, Any] | None = None,
    user2item: Mapping[str, Any] | None = None,
    seed: int = 0,
    rejected: Path | None = None,
    engine: EngineName = "local",
) -> pl.DataFrame:
    """Mine pairs from the positive events of `log`; give it the past only.

    item2item: the neighbours of `swing`, each unordered pair once, from the side that scores it higher;
    `count` is the number of (sampled) users who have both. user2item: the rows of `user2item`, each (trigger,
    target) once; `count` is the number of clicks that chose it, and all of them have the same score.

    A candidate becomes a pair if its score, then its count, is high enough and if the cap has room. The
    cap counts an item's appearances as trigger and as target, in both sources together. Within a source a
    pair's rank is the better of its two places, among all pairs of the one item and among all of the
    other, by score (item2item) or by count, then score (user2item). Better ranks go first, so that
    every item gets its best pairs before any item gets its weak ones. Each source first fills its part of
    the cap by itself, so that neither crowds the other out; what room is left goes to the best ranks.

    Args:
        log: events before the split time.
        window: past items among which user2item looks for a trigger.
        per_item: most rows in which one item stands.
        min_score: least score by source, {"item2item": 0.1}; a source that it does not name has none.
        min_count: least count by source, in the same way.
        mix: parts of the sources, {"item2item": 2, "user2item": 1}: of the cap, and of the sum of `weight`,
            whose mean over all pairs is 1. A source with 0 or not named is left out. Without a mix each
            source has half of the cap and every pair the weight 1.
        popularity: p of the correction: within a source pairs are ranked by what is said above divided by
            (n_trigger * n_target) ** p, n being an item's users; 0.5 is the cosine's. `score` stays as it is.
        directions: "one" leaves item2item in the direction of the higher score and user2item in that of
            time; "both" joins a pair with its reverse, counts added, and writes both.
        swing: keyword arguments of `swing`.
        user2item: keyword arguments of `user2item`.
        seed: of the samples of `swing` and of the training of `user2item`.
        rejected: a Parquet file to write, with the other candidates: the same columns, and `reason`:
            "score", "count" or "cap".
        engine: "local", or "ray" to score items and search triggers on a Ray cluster; the bytes are the same.

    Returns:
        trigger_id str, target_id str, source "item2item" or "user2item", score f32, weight f32, count i32,
        sorted by source, trigger_id, target_id.

    Raises:
        InputError: an argument is out of range, or the log yields no pair.
        MissingExtraError: the engine is not installed.
    """
    rules = Rules(per_item, min_score or {}, min_count or {}, mix or {}, popularity, directions)
    rules.check()
    parts = [pl.DataFrame(schema=CANDIDATE)]
    for_swing, for_clicks = rules.shares
    if for_swing:
        near = score_neighbors(log, **{"seed": seed, "engine": engine, **(swing or {}), "support": True})
        parts.append(_item2item(near))
    if for_clicks:
        settings = {"window": window, "seed": seed, "engine": engine, **(user2item or {})}
        clicked = find_triggers(log, **settings)
        parts.append(_user2item(clicked, directed=directions == "one"))
    candidates = pl.concat(parts)
    if not candidates.height:
        raise InputError(_no_pair(log))
    judged = sift(candidates, _users(log), rules)
    if rejected is not None:
        write_parquet(rejected, judged.drop_nulls("reason").select(*COLUMNS, "reason"))
    pairs = judged.filter(pl.col("reason").is_null()).select(COLUMNS)
    if not pairs.height:
        raise InputError(
            f"all of {candidates.height:,} candidates are below min_score or min_count; lower them"
        )
    return pairs


def _no_pair(log: Log) -> str:
    seen = log.positives()
    return (
        f"no pair comes out of {len(seen):,} positive events of {len(seen.users):,} users on "
        f"{len(seen.items):,} items: nobody has two items at different times, and no two users share two; "
        "give a longer log, or check the user, item, time and label columns"
    )


def _users(log: Log) -> pl.DataFrame:
    clicks = log.frame.filter(pl.col("label") == 1)
    return clicks.group_by("item_id").agg(users=pl.col("user_id").n_unique())


def _unordered() -> list[pl.Expr]:
    ends = ("trigger_id", "target_id")
    return [pl.min_horizontal(ends).alias(ends[0]), pl.max_horizontal(ends).alias(ends[1])]


def _item2item(near: pl.DataFrame) -> pl.DataFrame:
    """Candidates from the swing table: one row per unordered pair."""
    ends = [pl.min_horizontal("item_id", "neighbor_id"), pl.max_horizontal("item_id", "neighbor_id")]
    return (
        near.sort(pl.col("score"), "item_id", descending=[True, False])
        .unique(ends, keep="first", maintain_order=True)
        .select(
            trigger_id="item_id",
            target_id="neighbor_id",
            source=pl.lit(ITEM2ITEM),
            score="score",
            count=pl.col("users").cast(pl.Int64),
            strength="score",
        )
    )


def _user2item(clicked: pl.DataFrame, *, directed: bool = True) -> pl.DataFrame:
    """Candidates from the clicks: one row per (trigger, target), or per unordered pair."""
    rows = clicked if directed else clicked.with_columns(_unordered())
    pairs = rows.group_by("trigger_id", "target_id").agg(
        count=pl.len().cast(pl.Int64), score=pl.col("score").max().cast(pl.Float64)
    )
    # A cosine is at most 1, so count + score / 4 sorts by count, then by score.
    return pairs.select(
        "trigger_id",
        "target_id",
        pl.lit(USER2ITEM).alias("source"),
        "score",
        "count",
        strength=pl.col("count") + pl.col("score") / 4,
    )
