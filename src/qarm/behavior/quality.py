"""Figures about pairs: what they cover, whom they favour, and whether later behaviour agrees."""

from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl
from numba import njit

from qarm.behavior.log import Log
from qarm.behavior.matrix import click_matrix

__all__ = ["pair_quality"]

Numbers = npt.NDArray[np.int32]
Longs = npt.NDArray[np.int64]


def pair_quality(
    pairs: pl.DataFrame, log: Log, *, future: Log | None = None, groups: int = 5
) -> dict[str, Any]:
    """Figures for `pairs/quality.json`; shares are 0 to 1, None where nothing can be divided.

    Args:
        pairs: as `mine_pairs` gives them.
        log: the events they were mined from.
        future: later events; adds each source's lift.
        groups: the items' popularity groups, equally many items in each, rarest first.

    Returns:
        pairs, items, users: how many there are. sources: for each one its pairs, how many items they
        cover and what share of all, the share of users who have such an item, score (min, median, max),
        count (mean, max), per_item (mean over covered items, max), and with `future` the lift: users who
        later chose both items, per distinct pair, over the same figure for all pairs of the log's items.
        per_item: mean and max over both sources. overlap: unordered pairs in both sources, and as a share
        of each. popularity: for each group its items, its share of positive events, and its share of each
        source's appearances.
    """
    clicks = log.positives().frame
    counts = clicks.group_by("item_id").len("clicks").sort("clicks", "item_id")
    sources = {name: pairs.filter(pl.col("source") == name) for name in pairs["source"].unique().sort()}
    figures = {name: _source(part, clicks, counts.height) for name, part in sources.items()}
    if future is not None:
        known = counts["item_id"].sort()
        for name, part in sources.items():
            figures[name]["lift"] = _lift(part, known, future)
    return {
        "pairs": pairs.height,
        "items": counts.height,
        "users": clicks["user_id"].n_unique(),
        "sources": figures,
        "per_item": _per_item(pairs),
        "overlap": _overlap(sources),
        "popularity": _popularity(sources, counts, groups),
    }


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


def _popularity(sources: dict[str, pl.DataFrame], counts: pl.DataFrame, groups: int) -> list[dict[str, Any]]:
    group = pl.int_range(pl.len()) * groups // pl.len()
    grouped = counts.with_columns(group=group)
    shares = {"log": counts.select("item_id", size="clicks")}
    for name, part in sources.items():
        shares[name] = _appearances(part).value_counts(name="size")
    rows: list[dict[str, Any]] = [
        {"items": size} for size in grouped.group_by("group").len().sort("group")["len"]
    ]
    for name, sizes in shares.items():
        total = float(sizes["size"].sum())
        joined = grouped.join(sizes, on="item_id", how="left").group_by("group").agg(pl.col("size").sum())
        for row, part in zip(rows, joined.sort("group")["size"], strict=True):
            row[name] = _ratio(part, total)
    return rows


def _lift(pairs: pl.DataFrame, item_ids: pl.Series, future: Log) -> dict[str, Any]:
    later = click_matrix(future.only_items(item_ids.to_list()))
    positions = pl.DataFrame({"low": later.item_ids, "place": np.arange(len(later.item_ids), dtype=np.int32)})
    ends = _unordered(pairs)
    places = [
        ends.select(low=end)
        .join(positions, on="low", how="left", maintain_order="left")["place"]
        .fill_null(-1)
        for end in ("low", "high")
    ]
    by_item = later.by_item
    together = _together(by_item.starts, by_item.values, places[0].to_numpy(), places[1].to_numpy())
    sizes = later.by_user.sizes
    observed = _ratio(int(together.sum()), ends.height)
    expected = _ratio(int((sizes * (sizes - 1) // 2).sum()), len(item_ids) * (len(item_ids) - 1) // 2)
    return {
        "users_per_pair": observed,
        "users_per_random_pair": expected,
        "lift": _ratio(observed, expected) if observed is not None and expected else None,
    }


@njit(nogil=True, cache=True)
def _together(starts: Longs, users: Numbers, left: Numbers, right: Numbers) -> Longs:
    """How many users have both items, for each pair of places; -1 is an item that nobody has."""
    together = np.zeros(len(left), np.int64)
    for pair in range(len(left)):
        if left[pair] < 0 or right[pair] < 0:
            continue
        a, a_end = starts[left[pair]], starts[left[pair] + 1]
        b, b_end = starts[right[pair]], starts[right[pair] + 1]
        while a < a_end and b < b_end:
            if users[a] == users[b]:
                together[pair] += 1
            a, b = a + (users[a] <= users[b]), b + (users[b] <= users[a])
    return together


def _ratio(part: float, whole: float) -> float | None:
    return part / whole if whole else None
