"""Selection of pairs from candidates: thresholds, popularity correction, mix of sources, cap per item."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
import polars as pl

from qarm.config import PairsConfig
from qarm.core.parallel.numba_jit import compiled
from qarm.errors import Problems

__all__ = ["ITEM2ITEM", "SOURCES", "USER2ITEM", "Directions", "Selection", "select", "unordered"]

ITEM2ITEM, USER2ITEM = "item2item", "user2item"
SOURCES = (ITEM2ITEM, USER2ITEM)  # in alphabetical order, as the tables are sorted
KEY = ("source", "trigger_id", "target_id")
Directions = Literal["one", "both"]
Numbers = npt.NDArray[np.uint32]


@dataclass(frozen=True)
class Selection:
    """Thresholds, mix and caps of candidates; `mine_pairs` explains each."""

    per_item: int
    min_score: Mapping[str, float]
    min_count: Mapping[str, float]
    mix: Mapping[str, float]
    popularity: float
    directions: Directions

    @classmethod
    def of(cls, settings: PairsConfig) -> "Selection":
        """The selection that settings ask for.

        Raises:
            InputError: the cap leaves no room, or the mix leaves out both sources.
        """
        by_source = {name: dict(getattr(settings, name)) for name in ("min_score", "min_count", "mix")}
        thresholds = {
            name: {source: value for source, value in values.items() if value is not None}
            for name, values in by_source.items()
        }
        selection = cls(
            per_item=settings.per_item,
            popularity=settings.popularity,
            directions=settings.directions,
            **thresholds,
        )
        problems, least = Problems(), 2 if settings.directions == "both" else 1
        if settings.per_item < least:
            problems.add(f"got per_item={settings.per_item}, need at least {least}; raise pairs.per_item")
        if not any(selection.shares):
            problems.add(f"got mix={dict(selection.mix)}, need more than 0 for a source")
        problems.raise_any()
        return selection

    @property
    def shares(self) -> tuple[float, ...]:
        """Part of each source in the mix, summing to 1; all 0 where the mix leaves out both."""
        parts = [self.mix.get(source, 0.0 if self.mix else 1.0) for source in SOURCES]
        total = sum(parts)
        return tuple(part / total if total else 0.0 for part in parts)

    def limits(self) -> npt.NDArray[np.int64]:
        """Most pairs of one item: from each source while it is alone, then in all, int64 [3]."""
        room = self.per_item // 2 if self.directions == "both" else self.per_item
        return np.array([*(int(room * share + 1e-9) for share in self.shares), room])


def select(candidates: pl.DataFrame, users: pl.DataFrame, selection: Selection) -> pl.DataFrame:
    """Candidates with the reason of each rejection.

    Args:
        candidates: trigger_id, target_id, source, score, count and `strength`, which ranks those of one
            source; no (source, trigger, target) twice.
        users: item_id and `users`, the number of users with the item.
        selection: what a candidate must pass, in this order: score, count, cap.

    Returns:
        The candidates, sorted by source, trigger_id, target_id, with weight f32 and `reason`: null for a
        pair, else "score", "count" or "cap".
    """
    reason = (
        pl.when(pl.col("score").cast(pl.Float32) < _by_source(selection.min_score, -math.inf))
        .then(pl.lit("score"))
        .when(pl.col("count") < _by_source(selection.min_count, 0))
        .then(pl.lit("count"))
    )
    marked = candidates.with_columns(reason=reason.otherwise(None).cast(pl.String))
    strong = marked.filter(pl.col("reason").is_null())
    kept = _capped(_corrected(strong, users, selection.popularity), selection.limits())
    capped = strong.with_columns(reason=pl.when(~kept).then(pl.lit("cap")).otherwise(None))
    every = pl.concat([marked.filter(pl.col("reason").is_not_null()), capped])
    weighed = every.with_columns(weight=_weights(every, selection))
    return (_mirrored(weighed) if selection.directions == "both" else weighed).sort(KEY)


def unordered(one: str, other: str) -> tuple[pl.Expr, pl.Expr]:
    """The lower and the higher of two columns of item ids, under the names of the two."""
    return pl.min_horizontal(one, other).alias(one), pl.max_horizontal(one, other).alias(other)


def _by_source(values: Mapping[str, float], default: float) -> pl.Expr:
    """Value of each row's source."""
    return pl.col("source").replace_strict(
        {source: values.get(source, default) for source in SOURCES}, return_dtype=pl.Float32
    )


def _corrected(candidates: pl.DataFrame, users: pl.DataFrame, popularity: float) -> pl.DataFrame:
    """Candidates with `strength` divided by (n_trigger * n_target) ** popularity."""
    if not popularity:
        return candidates
    users_of = dict(users.select("item_id", pl.col("users").cast(pl.Float64)).rows())
    product = pl.lit(1.0)
    for end in ("trigger_id", "target_id"):
        product = product * pl.col(end).replace_strict(users_of, return_dtype=pl.Float64)
    return candidates.with_columns(strength=pl.col("strength") / product**popularity)


def _weights(marked: pl.DataFrame, selection: Selection) -> pl.Series:
    """Weight of each candidate: 1, or such that each source has its share of the sum and the mean is 1."""
    if not selection.mix:
        return pl.repeat(1.0, marked.height, dtype=pl.Float32, eager=True)
    pairs = marked.filter(pl.col("reason").is_null())["source"]
    counts = [int((pairs == source).sum()) for source in SOURCES]
    present = sum(share for share, count in zip(selection.shares, counts, strict=True) if count)
    weights = {
        source: share / present * len(pairs) / count if count else 1.0
        for source, share, count in zip(SOURCES, selection.shares, counts, strict=True)
    }
    return marked["source"].replace_strict(weights, return_dtype=pl.Float32)


def _mirrored(marked: pl.DataFrame) -> pl.DataFrame:
    """Candidates in both directions."""
    swapped = marked.with_columns(trigger_id="target_id", target_id="trigger_id")
    return pl.concat([marked, swapped])


# ---- the cap ----------------------------------------------------------------------------------


def _capped(candidates: pl.DataFrame, limits: npt.NDArray[np.int64]) -> pl.Series:
    """True for the candidates within the cap, in the given order."""
    order = (
        candidates.with_row_index("row")
        .sort("source", "strength", *KEY[1:], descending=[False, True, False, False])["row"]
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


@compiled()
def _ranks(triggers: Numbers, targets: Numbers, sources: Numbers, items: int) -> npt.NDArray[np.int64]:
    """The better of a pair's two ranks, one among the pairs of each of its items, for pairs by strength."""
    seen = np.zeros((2, items), np.int64)
    ranks = np.empty(len(triggers), np.int64)
    for pair in range(len(triggers)):
        next_rank = seen[sources[pair]]
        ranks[pair] = min(next_rank[triggers[pair]], next_rank[targets[pair]])
        next_rank[triggers[pair]] += 1
        next_rank[targets[pair]] += 1
    return ranks


@compiled()
def _choose(
    triggers: Numbers, targets: Numbers, sources: Numbers, items: int, limits: npt.NDArray[np.int64]
) -> npt.NDArray[np.bool_]:
    """True for the pairs within the limits: each source up to its limit, then both up to the last one."""
    by_source, total = np.zeros((2, items), np.int64), np.zeros(items, np.int64)
    kept = np.zeros(len(triggers), np.bool_)
    for alone in (True, False):
        for pair in range(len(triggers)):
            trigger, target = triggers[pair], targets[pair]
            of_source = by_source[sources[pair]]
            used = of_source if alone else total
            limit = limits[sources[pair]] if alone else limits[2]
            if not kept[pair] and used[trigger] < limit and used[target] < limit:
                kept[pair] = True
                for item in (trigger, target):
                    of_source[item] += 1
                    total[item] += 1
    return kept
