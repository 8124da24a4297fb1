"""Quality of pairs: coverage, popularity, overlap of sources, lift on later behaviour."""

from collections.abc import Mapping
from typing import Any

import polars as pl

from qarm.data.interactions import Log
from qarm.pairs.lift import pair_lift
from qarm.pairs.selection import unordered
from qarm.schemas.pairs import PairCategory, PairLift, PairOverlap, PairQuality, PairSource, Range, Spread

__all__ = ["pair_quality"]


def pair_quality(
    pairs: pl.DataFrame,
    log: Log,
    *,
    future: Log | None = None,
    categories: Mapping[str, str] | None = None,
    rejected: pl.DataFrame | None = None,
    groups: int = 5,
    seed: int = 0,
) -> PairQuality:
    """Figures for `pairs/quality.json`; shares are 0 to 1, None where the divisor is 0.

    Args:
        pairs: as `mine_pairs` gives them.
        log: the events that the pairs were mined from.
        future: later events; adds each source's `lift`, as `pair_lift` gives it.
        categories: of items, by item id; adds each source's `category`.
        rejected: what `mine_pairs` left out; adds `rejected`.
        groups: the items' popularity groups, equally many items in each, rarest first.
        seed: of the lifts' intervals.

    Returns:
        pairs, items, users: their numbers. sources: for each source its pairs, the number of items that they
        cover and its share of all items, the share of users who have such an item, score (min, median, max),
        count (mean, max), per_item (mean over covered items, max). per_item: mean and max over both
        sources. overlap: unordered pairs in both sources, and as a share of each. popularity: for each group
        its items, its share of positive events, and for each source its share of the source's appearances
        (`item2item`), the share of its items that are covered (`item2item_items`), and of the users of its
        items those who have a covered one (`item2item_users`). category: `same`, of the pairs whose two
        categories are known the share with the same category; `random`, the same for all pairs of the log's
        items; `known`, the share of pairs with both known. rejected: candidates by source and reason.
    """
    clicks = log.positives().frame
    counts = clicks.group_by("item_id").len("clicks").sort("clicks", "item_id")
    sources = {name: pairs.filter(pl.col("source") == name) for name in pairs["source"].unique().sort()}
    figures = {
        name: _source(
            part,
            clicks,
            counts.height,
            lift=None if future is None else pair_lift(part, log, future, seed=seed),
            category=None if categories is None else _category(part, counts["item_id"], categories),
        )
        for name, part in sources.items()
    }
    quality = PairQuality(
        pairs=pairs.height,
        items=counts.height,
        users=clicks["user_id"].n_unique(),
        sources=figures,
        per_item=_per_item(pairs),
        overlap=_overlap(sources),
        popularity=_popularity(sources, clicks, counts, groups),
    )
    if rejected is not None:
        quality.rejected = _rejected(rejected)
    return quality


def _appearances(pairs: pl.DataFrame) -> pl.Series:
    """Item ids, once per pair and end, [2 * pairs]."""
    return pl.concat([pairs["trigger_id"], pairs["target_id"].alias("trigger_id")]).alias("item_id")


def _per_item(pairs: pl.DataFrame) -> Spread:
    """Pairs per item, over the items that have one."""
    return _spread(_appearances(pairs).value_counts()["count"])


def _spread(counts: pl.Series) -> Spread:
    mean, largest = counts.mean(), counts.max()
    return Spread.model_validate({"mean": mean, "max": largest})


def _source(
    pairs: pl.DataFrame,
    clicks: pl.DataFrame,
    items: int,
    *,
    lift: PairLift | None,
    category: PairCategory | None,
) -> PairSource:
    covered = _appearances(pairs).unique()
    touched = clicks.filter(pl.col("item_id").is_in(covered.implode()))["user_id"].n_unique()
    scores = pairs["score"]
    source = PairSource(
        pairs=pairs.height,
        items=len(covered),
        items_share=len(covered) / items,
        users_share=touched / clicks["user_id"].n_unique(),
        score=Range.model_validate({"min": scores.min(), "median": scores.median(), "max": scores.max()}),
        count=_spread(pairs["count"]),
        per_item=_per_item(pairs),
    )
    if lift is not None:
        source.lift = lift
    if category is not None:
        source.category = category
    return source


def _unordered(pairs: pl.DataFrame) -> pl.DataFrame:
    """Distinct unordered pairs as `low` and `high`, sorted."""
    low, high = unordered("trigger_id", "target_id")
    return pairs.select(low=low, high=high).unique().sort("low", "high")


def _overlap(sources: dict[str, pl.DataFrame]) -> PairOverlap:
    distinct = [_unordered(part) for part in sources.values()]
    if len(distinct) < 2:
        return PairOverlap(pairs=0, share=dict.fromkeys(sources, 0.0))
    shared = distinct[0].join(distinct[1], on=["low", "high"], how="semi").height
    shares = {name: shared / part.height for name, part in zip(sources, distinct, strict=True)}
    return PairOverlap(pairs=shared, share=shares)


def _popularity(
    sources: dict[str, pl.DataFrame], clicks: pl.DataFrame, counts: pl.DataFrame, groups: int
) -> list[dict[str, int | float | None]]:
    """A row per group of equally many items, the rarest first; `pair_quality` says what each field means."""
    grouped = counts.with_columns(group=pl.int_range(pl.len()) * groups // pl.len())
    grouped_clicks = clicks.select("user_id", "item_id").join(
        grouped.select("item_id", "group"), on="item_id"
    )
    rows: list[dict[str, int | float | None]] = [
        {"items": items, "log": _ratio(size, clicks.height)}
        for items, size in _by_group(grouped, pl.len(), pl.col("clicks").sum())
    ]
    sizes_of_groups = [row[0] for row in _by_group(grouped, pl.len())]
    users = [row[0] for row in _by_group(grouped_clicks, pl.col("user_id").n_unique())]
    for name, part in sources.items():
        sizes = _appearances(part).value_counts(name="size")
        counted = grouped.join(sizes, on="item_id", how="left")
        shares = _by_group(counted, pl.col("size").sum(), pl.col("size").count())
        covered = pl.col("item_id").is_in(sizes["item_id"].implode())
        touched = _by_group(grouped_clicks, pl.col("user_id").filter(covered).n_unique())
        columns = zip(rows, sizes_of_groups, users, shares, touched, strict=True)
        for row, in_group, in_users, (size, items), (reached,) in columns:
            row[name] = _ratio(size, 2 * part.height)
            row[f"{name}_items"] = _ratio(items, in_group)
            row[f"{name}_users"] = _ratio(reached, in_users)
    return rows


def _by_group(frame: pl.DataFrame, *figures: pl.Expr) -> list[tuple[Any, ...]]:
    """Figures of each popularity group, the rarest first."""
    named = [figure.alias(str(column)) for column, figure in enumerate(figures)]
    return frame.group_by("group").agg(named).sort("group").drop("group").rows()


def _category(pairs: pl.DataFrame, items: pl.Series, categories: Mapping[str, str]) -> PairCategory:
    table = pl.DataFrame(
        {"item_id": list(categories), "category": list(categories.values())},
        schema={"item_id": pl.String, "category": pl.String},
    )
    ends = _unordered(pairs)
    for end in ("low", "high"):
        named = table.rename({"item_id": end, "category": f"{end}_category"})
        ends = ends.join(named, on=end, how="left")
    known = ends.drop_nulls()
    sizes = items.to_frame().join(table.drop_nulls(), on="item_id")["category"].value_counts()["count"]
    total = int(sizes.sum())
    same = known.filter(pl.col("low_category") == pl.col("high_category")).height
    return PairCategory(
        same=_ratio(same, known.height),
        random=_ratio(int((sizes * (sizes - 1)).sum()), total * (total - 1)),
        known=known.height / ends.height,
    )


def _rejected(rejected: pl.DataFrame) -> dict[str, dict[str, int]]:
    """Number of rejected candidates by source and reason."""
    counted = rejected.group_by("source", "reason").len().sort("source", "reason").rows()
    return {source: {r: n for s, r, n in counted if s == source} for source, _, _ in counted}


def _ratio(part: float, whole: float) -> float | None:
    return part / whole if whole else None
