"""Mining of pairs (trigger, target) of items that behave alike, from both sources."""

from pathlib import Path

import polars as pl

from qarm.config import PairsConfig
from qarm.config.sources import settings_with
from qarm.core.parallel.engine import EngineName
from qarm.core.paths import as_path
from qarm.core.tables.parquet import write_parquet
from qarm.data.interactions import Log
from qarm.errors import InputError, Problems
from qarm.pairs.selection import ITEM2ITEM, USER2ITEM, Selection, select, unordered
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
    settings: PairsConfig | None = None,
    *,
    seed: int = 0,
    rejected: Path | str | None = None,
    engine: EngineName = "local",
    **changes: object,
) -> pl.DataFrame:
    """Pairs of items that behave alike, from the positive events of a log that ends at the split time.

    item2item: the neighbours of `swing`, each unordered pair once, from the side that scores it higher;
    `count` is the number of (sampled) users who have both. user2item: the rows of `user2item`, each (trigger,
    target) once; `count` is the number of clicks that chose it, and all of them have the same score.

    A candidate becomes a pair if its score, then its count, is high enough and if the cap has room. The
    cap counts an item's appearances as trigger and as target, in both sources together. Within a source a
    pair's rank is the better of its two ranks, among all pairs of the one item and among all of the
    other, by score (item2item) or by count, then score (user2item). Better ranks are chosen first, so that
    every item gets its best pairs before any item gets its weak ones. Each source first fills its share of
    the cap, so that no source takes the other's share; the rest of the cap goes to the best ranks.

    Args:
        log: events before the split time.
        settings: of both sources and of the selection; default: those of `PairsConfig`.
        seed: of the samples of `swing` and of the training of `user2item`.
        rejected: a Parquet file to write, with the other candidates: the same columns, and `reason`:
            "score", "count" or "cap".
        engine: "local", or "ray" to score items and search triggers on a Ray cluster; the bytes are the same.
        changes: fields of `PairsConfig` in place of those of `settings`: `window`, earlier items among
            which user2item searches the trigger; `per_item`, most rows with one item; `min_score` and
            `min_count`, least score and count by source, {"item2item": 0.1}, none for a source that is not
            named; `mix`, parts of the sources, {"item2item": 2, "user2item": 1}, of the cap and of the sum of
            `weight`, whose mean over all pairs is 1: a source with 0 or not named is left out, and without a
            mix each source has half of the cap and every pair the weight 1; `popularity`, the p of the
            correction: within a source pairs are ranked by the score or count divided by
            (n_trigger * n_target) ** p, n being an item's users (0.5 is the cosine's), `score` stays;
            `directions`, "one" leaves item2item in the direction of the higher score and user2item in that of
            time, "both" joins a pair with its reverse, counts added, and writes both; `swing` and
            `user2item`, fields of `SwingConfig` and of `User2ItemConfig`.

    Returns:
        trigger_id str, target_id str, source "item2item" or "user2item", score f32, weight f32, count i32,
        sorted by source, trigger_id, target_id.

    Raises:
        InputError: an argument is out of range, or the log yields no pair.
        MissingExtraError: the engine is not installed.
    """
    problems = Problems()
    chosen = settings_with(settings or PairsConfig(), changes, problems=problems)
    problems.raise_any()
    selection = Selection.of(chosen)
    parts = [pl.DataFrame(schema=CANDIDATE)]
    for_swing, for_clicks = selection.shares
    if for_swing:
        parts.append(_item2item(score_neighbors(log, chosen.swing, seed=seed, engine=engine, support=True)))
    if for_clicks:
        clicked = find_triggers(log, chosen.user2item, window=chosen.window, seed=seed, engine=engine)
        parts.append(_user2item(clicked, directed=chosen.directions == "one"))
    candidates = pl.concat(parts)
    if not candidates.height:
        raise InputError(_no_pair(log))
    marked = select(candidates, _users(log), selection)
    if rejected is not None:
        write_parquet(as_path(rejected), marked.drop_nulls("reason").select(*COLUMNS, "reason"))
    pairs = marked.filter(pl.col("reason").is_null()).select(COLUMNS)
    if not pairs.height:
        raise InputError(
            f"all of {candidates.height:,} candidates are below min_score or min_count; lower them"
        )
    return pairs


def _no_pair(log: Log) -> str:
    """Message for a log without a candidate."""
    seen = log.positives()
    return (
        f"no pair comes out of {len(seen):,} positive events of {len(seen.users):,} users on "
        f"{len(seen.items):,} items: nobody has two items at different times, and no two users share two; "
        "give a longer log, or check the user, item, time and label columns"
    )


def _users(log: Log) -> pl.DataFrame:
    """Number of users of each item, by item id."""
    clicks = log.frame.filter(pl.col("label") == 1)
    return clicks.group_by("item_id").agg(users=pl.col("user_id").n_unique())


def _item2item(near: pl.DataFrame) -> pl.DataFrame:
    """Candidates from the swing table: one row per unordered pair."""
    return (
        near.sort(pl.col("score"), "item_id", descending=[True, False])
        .unique([*unordered("item_id", "neighbor_id")], keep="first", maintain_order=True)
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
    rows = clicked if directed else clicked.with_columns(*unordered("trigger_id", "target_id"))
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
