"""Pairs (trigger, target) of items that behave alike, from both sources, with no item in too many."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl
from numba import njit

from qarm.behavior.log import Log
from qarm.behavior.swing import swing as score_neighbors
from qarm.behavior.user2item import user2item as find_triggers
from qarm.errors import InputError

__all__ = ["mine_pairs"]

ITEM2ITEM, USER2ITEM = "item2item", "user2item"
KEY = ("source", "trigger_id", "target_id")
Numbers = npt.NDArray[np.uint32]


def mine_pairs(
    log: Log,
    *,
    window: int = 50,
    per_item: int = 40,
    swing: Mapping[str, Any] | None = None,
    user2item: Mapping[str, Any] | None = None,
    seed: int = 0,
) -> pl.DataFrame:
    """Mine pairs from the positive events of `log`; give it the past only.

    item2item: the neighbours of `swing`, each unordered pair once, from the side that scores it higher;
    `count` is the number of (sampled) users who have both. user2item: the rows of `user2item`, each (trigger,
    target) once; `count` is the number of clicks that chose it, and all of them have the same score.

    The cap counts an item's appearances as trigger and as target, in both sources together. Within a
    source a pair's rank is the better of its two places, among all pairs of the one item and among all of
    the other, by score (item2item) or by count, then score (user2item). Better ranks go first, so that
    every item gets its best pairs before any item gets its weak ones. Each source first fills half of
    the cap by itself, so that neither crowds the other out; what room is left goes to the best ranks.

    Args:
        log: events before the split time.
        window: past items among which user2item looks for a trigger.
        per_item: most pairs of one item.
        swing: keyword arguments of `swing`.
        user2item: keyword arguments of `user2item`.
        seed: of the samples of `swing` and of the training of `user2item`.

    Returns:
        trigger_id str, target_id str, source "item2item" or "user2item", score f32, weight f32 (1: every
        pair alike), count i32, sorted by source, trigger_id, target_id.

    Raises:
        InputError: an argument is out of range, or the log yields no pair.
    """
    if per_item < 1:
        raise InputError(f"got per_item={per_item}, need at least 1; raise pairs.per_item")
    near = score_neighbors(log, **{"seed": seed, **(swing or {}), "support": True})
    clicked = find_triggers(log, **{"window": window, "seed": seed, **(user2item or {})})
    candidates = pl.concat([_item2item(near), _user2item(clicked)])
    if not candidates.height:
        raise InputError(_no_pair(log))
    return (
        _capped(candidates, per_item)
        .sort(KEY)
        .select(
            "trigger_id",
            "target_id",
            "source",
            pl.col("score").cast(pl.Float32),
            pl.lit(1.0, dtype=pl.Float32).alias("weight"),
            pl.col("count").cast(pl.Int32),
        )
    )


def _no_pair(log: Log) -> str:
    seen = log.positives()
    return (
        f"no pair comes out of {len(seen):,} positive events of {len(seen.users):,} users on "
        f"{len(seen.items):,} items: nobody has two items at different times, and no two users share two; "
        "give a longer log, or check the user, item, time and label columns"
    )


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


def _user2item(clicked: pl.DataFrame) -> pl.DataFrame:
    """Candidates from the clicks: one row per (trigger, target)."""
    pairs = clicked.group_by("trigger_id", "target_id").agg(
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


def _capped(candidates: pl.DataFrame, per_item: int) -> pl.DataFrame:
    ordered = candidates.sort("source", "strength", *KEY[1:], descending=[False, True, False, False])
    ends = ordered.select(KEY[1:])
    item_ids = pl.concat([ends["trigger_id"], ends["target_id"].alias("trigger_id")]).unique().sort()
    numbers = ends.select(pl.all().cast(pl.Enum(item_ids)).to_physical().cast(pl.UInt32))
    triggers, targets = numbers["trigger_id"].to_numpy(), numbers["target_id"].to_numpy()
    sources = (ordered["source"] == USER2ITEM).cast(pl.UInt32).to_numpy()
    best = np.argsort(_ranks(triggers, targets, sources, len(item_ids)), kind="stable")
    kept = _choose(triggers[best], targets[best], sources[best], len(item_ids), per_item)
    return ordered.select(pl.all().gather(best[kept]))


@njit(nogil=True, cache=True)
def _ranks(triggers: Numbers, targets: Numbers, sources: Numbers, items: int) -> npt.NDArray[np.int64]:
    """The better of a pair's places at its two items, for pairs in order of strength."""
    seen = np.zeros((2, items), np.int64)
    ranks = np.empty(len(triggers), np.int64)
    for pair in range(len(triggers)):
        places = seen[sources[pair]]
        ranks[pair] = min(places[triggers[pair]], places[targets[pair]])
        places[triggers[pair]] += 1
        places[targets[pair]] += 1
    return ranks


@njit(nogil=True, cache=True)
def _choose(
    triggers: Numbers, targets: Numbers, sources: Numbers, items: int, per_item: int
) -> npt.NDArray[np.bool_]:
    """True for the pairs that fit: each source up to half of the cap, then both up to all of it."""
    own, both = np.zeros((2, items), np.int64), np.zeros(items, np.int64)
    kept = np.zeros(len(triggers), np.bool_)
    for alone in (True, False):
        limit = per_item // 2 if alone else per_item
        for pair in range(len(triggers)):
            trigger, target = triggers[pair], targets[pair]
            mine = own[sources[pair]]
            used = mine if alone else both
            if not kept[pair] and used[trigger] < limit and used[target] < limit:
                kept[pair] = True
                for item in (trigger, target):
                    mine[item] += 1
                    both[item] += 1
    return kept
