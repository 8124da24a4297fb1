"""Figures about pairs: what they cover, whom they favour, and whether later behaviour agrees."""

from collections.abc import Mapping
from typing import Any

import polars as pl

from qarm.data.interactions import Log
from qarm.pairs.lift import pair_lift

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
) -> dict[str, Any]:
    """Figures for `pairs/quality.json`; shares are 0 to 1, None where nothing can be divided.

    Args:
        pairs: as `mine_pairs` gives them.
        log: the events they were mined from.
        future: later events; adds each source's `lift`, as `pair_lift` gives it.
        categories: of items, by item id; adds each source's `category`.
        rejected: what `mine_pairs` left out; adds `rejected`.
        groups: the items' popularity groups, equally many items in each, rarest first.
        seed: of the lifts' intervals.

    Returns:
        pairs, items, users: how many there are. sources: for each one its pairs, how many items they
        cover and what share of all, the share of users who have such an item, score (min, median, max),
        count (mean, max), per_item (mean over covered items, max). per_item: mean and max over both
        sources. overlap: unordered pairs in both sources, and as a share of each. popularity: for each group
        its items, its share of positive events, and for each source its share of the source's appearances
        (`item2item`), the share of its items that are covered (`item2item_items`), and of the users of its
        items those who have a covered one (`item2item_users`). category: `same`, of the pairs whose two
        categories are known the share with one category; `random`, the same for all pairs of the log's
        items; `known`, the share of pairs with both known. rejected: candidates by source and reason.
    """
    clicks = log.positives().frame
    counts = clicks.group_by("item_id").len("clicks").sort("clicks", "item_id")
    sources = {name: pairs.filter(pl.col("source") == name) for name in pairs["source"].unique().sort()}
    figures = {name: _source(part, clicks, counts.height) for name, part in sources.items()}
    for name, part in sources.items():
        if future is not None:
            figures[name]["lift"] = pair_lift(part, log, future, seed=seed)
        if categories is not None:
            figures[name]["category"] = _category(part, counts["item_id"], categories)
    quality = {
        "pairs": pairs.height,
        "items": counts.height,
        "users": clicks["user_id"].n_unique(),
        "sources": figures,
        "per_item": _per_item(pairs),
        "overlap": _overlap(sources),
        "popularity": _popularity(sources, clicks, counts, groups),
    }
    if rejected is not None:
        quality["rejected"] = _rejected(rejected)
    return quality


def _appearances(pairs: pl.DataFrame) -> pl.Series:
    """Item ids, once per pair and end, [2 * pairs]."""
    return pl.concat([pairs["trigger_id"], pairs["target_id"].alias("trigger_id")]).alias("item_id")


def _per_item(pairs: pl.DataFrame) -> dict[str, Any]:
    sizes = _appearances(pairs).value_counts()["count"]
    return {"mean": sizes.mean(), "max": sizes.max()}


def _source(pairs: pl.DataFrame, clicks: pl.DataFrame, items: int) -> dict[str, Any]:
    covered = _appearances(pairs).unique()
    touched = clicks.filter(pl.col("item_id").is_in(covered.implode()))["user_id"].n_unique()
    scores, counts = pairs["score"], pairs["count"]
    return {
        "pairs": pairs.height,
        "items": len(covered),
        "items_share": _ratio(len(covered), items),
        "users_share": _ratio(touched, clicks["user_id"].n_unique()),
        "score": {"min": scores.min(), "median": scores.median(), "max": scores.max()},
        "count": {"mean": counts.mean(), "max": counts.max()},
        "per_item": _per_item(pairs),
    }


def _unordered(pairs: pl.DataFrame) -> pl.DataFrame:
    ends = ("trigger_id", "target_id")
    return (
        pairs.select(low=pl.min_horizontal(ends), high=pl.max_horizontal(ends)).unique().sort("low", "high")
    )


def _overlap(sources: dict[str, pl.DataFrame]) -> dict[str, Any]:
    distinct = [_unordered(part) for part in sources.values()]
    if len(distinct) < 2:
        return {"pairs": 0, "share": dict.fromkeys(sources, 0.0)}
    shared = distinct[0].join(distinct[1], on=["low", "high"], how="semi").height
    return {
        "pairs": shared,
        "share": {name: _ratio(shared, part.height) for name, part in zip(sources, distinct, strict=True)},
    }


def _popularity(
    sources: dict[str, pl.DataFrame], clicks: pl.DataFrame, counts: pl.DataFrame, groups: int
) -> list[dict[str, Any]]:
    grouped = counts.with_columns(group=pl.int_range(pl.len()) * groups // pl.len())
    held = clicks.select("user_id", "item_id").join(grouped.select("item_id", "group"), on="item_id")
    rows: list[dict[str, Any]] = [
        {"items": items, "log": _ratio(size, clicks.height)}
        for items, size in _by_group(grouped, pl.len(), pl.col("clicks").sum())
    ]
    users = [row[0] for row in _by_group(held, pl.col("user_id").n_unique())]
    for name, part in sources.items():
        sizes = _appearances(part).value_counts(name="size")
        joined = grouped.join(sizes, on="item_id", how="left")
        shares = _by_group(joined, pl.col("size").sum(), pl.col("size").count())
        covered = pl.col("item_id").is_in(sizes["item_id"].implode())
        touched = _by_group(held, pl.col("user_id").filter(covered).n_unique())
        for row, there, (size, items), (reached,) in zip(rows, users, shares, touched, strict=True):
            row[name] = _ratio(size, 2 * part.height)
            row[f"{name}_items"] = _ratio(items, row["items"])
            row[f"{name}_users"] = _ratio(reached, there)
    return rows


def _by_group(frame: pl.DataFrame, *figures: pl.Expr) -> list[tuple[Any, ...]]:
    named = [figure.alias(str(place)) for place, figure in enumerate(figures)]
    return frame.group_by("group").agg(named).sort("group").drop("group").rows()


def _category(pairs: pl.DataFrame, items: pl.Series, categories: Mapping[str, str]) -> dict[str, Any]:
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
    return {
        "same": _ratio(known.filter(pl.col("low_category") == pl.col("high_category")).height, known.height),
        "random": _ratio(int((sizes * (sizes - 1)).sum()), total * (total - 1)),
        "known": _ratio(known.height, ends.height),
    }


def _rejected(rejected: pl.DataFrame) -> dict[str, dict[str, int]]:
    counted = rejected.group_by("source", "reason").len().sort("source", "reason").rows()
    return {source: {r: n for s, r, n in counted if s == source} for source, _, _ in counted}


def _ratio(part: float, whole: float) -> float | None:
    return part / whole if whole else None
