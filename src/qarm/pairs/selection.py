"""From candidates to pairs: what is too weak goes, and no item is in too many."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
import numpy.typing as npt
import polars as pl
from numba import njit

from qarm.errors import Problems

__all__ = ["ITEM2ITEM", "SOURCES", "USER2ITEM", "Directions", "Rules", "sift"]

ITEM2ITEM, USER2ITEM = "item2item", "user2item"
SOURCES = (ITEM2ITEM, USER2ITEM)  # in alphabetical order, as the tables are sorted
KEY = ("source", "trigger_id", "target_id")
Directions = Literal["one", "both"]
Numbers = npt.NDArray[np.uint32]


@dataclass(frozen=True)
class Rules:
    """What a candidate must pass; `mine_pairs` says what each means."""

    per_item: int
    min_score: Mapping[str, float]
    min_count: Mapping[str, int]
    mix: Mapping[str, float]
    popularity: float
    directions: Directions

    def check(self) -> None:
        """Raise an InputError that lists every value out of range."""
        problems = Problems()
        least = 2 if self.directions == "both" else 1
        if self.per_item < least:
            problems.add(f"got per_item={self.per_item}, need at least {least}; raise pairs.per_item")
        if self.directions not in get_args(Directions):
            problems.add(f"got directions={self.directions!r}, need one or both")
        if not 0.0 <= self.popularity < math.inf:
            problems.add(f"got popularity={self.popularity:g}, need at least 0")
        for name in ("min_score", "min_count", "mix"):
            if unknown := sorted(set(getattr(self, name)) - set(SOURCES)):
                problems.add(f"{name} names {', '.join(unknown)}, need {' or '.join(SOURCES)}")
        if any(not 0.0 <= share < math.inf for share in self.mix.values()):
            problems.add(f"got mix={dict(self.mix)}, need numbers of at least 0")
        elif not any(self.shares):
            problems.add(f"got mix={dict(self.mix)}, need more than 0 for a source")
        if any(math.isnan(score) for score in self.min_score.values()):
            problems.add(f"got min_score={dict(self.min_score)}, need numbers")
        problems.raise_any()

    @property
    def shares(self) -> tuple[float, ...]:
        """Each source's part in the mix, summing to 1; all 0 where nothing is asked for."""
        parts = [self.mix.get(source, 0.0 if self.mix else 1.0) for source in SOURCES]
        total = sum(parts)
        return tuple(part / total if total else 0.0 for part in parts)

    def limits(self) -> npt.NDArray[np.int64]:
        """Most pairs of one item: from each source while it is alone, then in all, int64 [3]."""
        room = self.per_item // 2 if self.directions == "both" else self.per_item
        return np.array([*(int(room * share + 1e-9) for share in self.shares), room])


def sift(candidates: pl.DataFrame, users: pl.DataFrame, rules: Rules) -> pl.DataFrame:
    """Say of every candidate why it is not a pair.

    Args:
        candidates: trigger_id, target_id, source, score, count and `strength`, which ranks those of one
            source; no (source, trigger, target) twice.
        users: item_id and `users`, how many had the item.
        rules: to pass, in this order: score, count, cap.

    Returns:
        The candidates, sorted by source, trigger_id, target_id, with weight f32 and `reason`: null for a
        pair, else "score", "count" or "cap".
    """
    reason = (
        pl.when(pl.col("score").cast(pl.Float32) < _by_source(rules.min_score, -math.inf))
        .then(pl.lit("score"))
        .when(pl.col("count") < _by_source(rules.min_count, 0))
        .then(pl.lit("count"))
    )
    judged = candidates.with_columns(reason=reason.otherwise(None).cast(pl.String))
    strong = judged.filter(pl.col("reason").is_null())
    kept = _capped(_corrected(strong, users, rules.popularity), rules.limits())
    capped = strong.with_columns(reason=pl.when(~kept).then(pl.lit("cap")).otherwise(None))
    every = pl.concat([judged.filter(pl.col("reason").is_not_null()), capped])
    weighed = every.with_columns(weight=_weights(every, rules))
    return (_mirrored(weighed) if rules.directions == "both" else weighed).sort(KEY)


def _by_source(values: Mapping[str, float], default: float) -> pl.Expr:
    return pl.col("source").replace_strict(
        {source: values.get(source, default) for source in SOURCES}, return_dtype=pl.Float32
    )


def _corrected(candidates: pl.DataFrame, users: pl.DataFrame, popularity: float) -> pl.DataFrame:
    if not popularity:
        return candidates
    had = dict(users.select("item_id", pl.col("users").cast(pl.Float64)).rows())
    product = pl.lit(1.0)
    for end in ("trigger_id", "target_id"):
        product = product * pl.col(end).replace_strict(had, return_dtype=pl.Float64)
    return candidates.with_columns(strength=pl.col("strength") / product**popularity)


def _weights(judged: pl.DataFrame, rules: Rules) -> pl.Series:
    """1, or what gives each source's pairs their share of the total and pairs a mean of 1."""
    if not rules.mix:
        return pl.repeat(1.0, judged.height, dtype=pl.Float32, eager=True)
    pairs = judged.filter(pl.col("reason").is_null())["source"]
    counts = [int((pairs == source).sum()) for source in SOURCES]
    present = sum(share for share, count in zip(rules.shares, counts, strict=True) if count)
    weights = {
        source: share / present * len(pairs) / count if count else 1.0
        for source, share, count in zip(SOURCES, rules.shares, counts, strict=True)
    }
    return judged["source"].replace_strict(weights, return_dtype=pl.Float32)


def _mirrored(judged: pl.DataFrame) -> pl.DataFrame:
    swapped = judged.with_columns(trigger_id="target_id", target_id="trigger_id")
    return pl.concat([judged, swapped])


# ---- the cap ----------------------------------------------------------------------------------


def _capped(candidates: pl.DataFrame, limits: npt.NDArray[np.int64]) -> pl.Series:
    """True for the candidates that the cap leaves, in the given order."""
    order = (
        candidates.with_row_index("place")
        .sort("source", "strength", *KEY[1:], descending=[False, True, False, False])["place"]
        .to_numpy()
    )
    ends = candidates.select(KEY[1:])
    item_ids = pl.concat([ends["trigger_id"], ends["target_id"].alias("trigger_id")]).unique().sort()
    numbers = ends.select(pl.all().cast(pl.Enum(item_ids)).to_physical().cast(pl.UInt32))
    triggers, targets = (numbers[name].to_numpy()[order] for name in KEY[1:])
    sources = (candidates["source"] == USER2ITEM).cast(pl.UInt32).to_numpy()[order]
    best = np.argsort(_ranks(triggers, targets, sources, len(item_ids)), kind="stable")
    kept = np.zeros(len(order), dtype=np.bool_)
    kept[order[best]] = _choose(triggers[best], targets[best], sources[best], len(item_ids), limits)
    return pl.Series(kept)


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
    triggers: Numbers, targets: Numbers, sources: Numbers, items: int, limits: npt.NDArray[np.int64]
) -> npt.NDArray[np.bool_]:
    """True for the pairs that fit: each source up to its own limit, then both up to the last one."""
    own, both = np.zeros((2, items), np.int64), np.zeros(items, np.int64)
    kept = np.zeros(len(triggers), np.bool_)
    for alone in (True, False):
        for pair in range(len(triggers)):
            trigger, target = triggers[pair], targets[pair]
            mine = own[sources[pair]]
            used = mine if alone else both
            limit = limits[sources[pair]] if alone else limits[2]
            if not kept[pair] and used[trigger] < limit and used[target] < limit:
                kept[pair] = True
                for item in (trigger, target):
                    mine[item] += 1
                    both[item] += 1
    return kept
