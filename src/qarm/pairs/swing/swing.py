"""Swing scores: two items are near when the pairs of users who share both share few other items."""

from dataclasses import replace

import numba
import numpy as np
import numpy.typing as npt
import polars as pl

from qarm.config import SwingConfig
from qarm.config.sources import settings_with
from qarm.core.parallel.engine import EngineName
from qarm.data.interaction_matrix import click_matrix, sampled
from qarm.data.interactions import Log
from qarm.errors import Problems
from qarm.pairs.swing.partition import Neighbors, Scoring, merged, neighbors
from qarm.pairs.swing.popular_items import popular_items_of

__all__ = ["swing"]

Longs = npt.NDArray[np.int64]
SCHEMA = {"item_id": pl.String, "neighbor_id": pl.String, "score": pl.Float64, "users": pl.Int32}


def swing(
    log: Log,
    settings: SwingConfig | None = None,
    *,
    seed: int = 0,
    threads: int | None = None,
    support: bool = False,
    engine: EngineName = "local",
    **changes: object,
) -> pl.DataFrame:
    """Nearest items of every item, from distinct positive (user, item) pairs.

    s(i, j) is the sum, over pairs of users u < v who both have i and j, of
    w_u * w_v / (alpha + |I_u and I_v in common|) (Yang et al. 2020, "Large Scale Product Graph
    Construction for Recommendation in E-commerce").

    Args:
        log: events; negatives and repetitions do not count.
        settings: of the formula and its caps; default: those of `SwingConfig`.
        seed: of the samples that the caps draw.
        threads: that work at once, by default all of numba's; the result does not depend on it.
        support: also return `users`.
        engine: "local", or "ray" to score buckets of items on a Ray cluster; the bytes are the same.
        changes: fields of `SwingConfig` in place of those of `settings`: `alpha`, at least 0, smooths small
            overlaps; `top_k` neighbours per item; `user_weight`: w_u is 1 / sqrt(|I_u|) for "sqrt" and
            (|I_u| + `user_alpha`) ** `user_beta` for "power", by default with Alink's values; users with
            fewer items than `min_user_items` do not count; a user with more than `max_items_per_user` counts
            with a seeded sample; an item with more than `max_users_per_item` users is scored from a sample,
            scaled so that the expectation is the exact score, None has no limit; `time_window`: only events
            less than this long before the latest one count, in the unit of the log's time (microseconds
            where it had dates).

    Returns:
        item_id str, neighbor_id str, score f64, sorted by item_id, -score, neighbor_id; with `support`
        also users i32, how many of the item's (sampled) users have both. Exact where no cap binds.

    Raises:
        InputError: a setting is out of range, or the log has no positive event.
        MissingExtraError: the engine is not installed.
    """
    problems = Problems()
    if not (log.frame["label"] == 1).any():
        problems.add("the log has no positive event; check the label column")
    chosen = settings_with(settings or SwingConfig(), changes, problems=problems)
    problems.raise_any()
    matrix = click_matrix(_latest(log, chosen.time_window), min_items=chosen.min_user_items)
    by_user = sampled(matrix.by_user, chosen.max_items_per_user, seed=seed)
    every = by_user.flipped(len(matrix.item_ids))
    by_item = sampled(every, chosen.max_users_per_item, seed=seed)
    scoring = Scoring(
        by_user,
        by_item,
        weights=_user_weights(by_user.sizes, chosen),
        scale=_pairs(every.sizes) / np.maximum(_pairs(by_item.sizes), 1),
        head=popular_items_of(by_user, every.sizes, whole=by_item is every),
        alpha=chosen.alpha,
        top_k=chosen.top_k,
    )
    # numba.get_num_threads() would start its OpenMP and change torch's number of threads
    threads = threads or numba.config.NUMBA_NUM_THREADS  # type: ignore[attr-defined]
    blocks = list(neighbors(scoring, threads=threads, engine=engine))
    frame = _named(merged(blocks), matrix.item_ids)
    return frame if support else frame.drop("users")


def _latest(log: Log, time_window: int | None) -> Log:
    if time_window is None:
        return log
    return replace(log, frame=log.frame.filter(pl.col("time") > pl.col("time").max() - time_window))


def _user_weights(sizes: Longs, settings: SwingConfig) -> npt.NDArray[np.float64]:
    if settings.user_weight == "sqrt":
        return 1.0 / np.sqrt(np.maximum(sizes, 1))
    weights: npt.NDArray[np.float64] = np.power(sizes + settings.user_alpha, settings.user_beta)
    return weights


def _pairs(sizes: Longs) -> npt.NDArray[np.float64]:
    return sizes * (sizes - 1) / 2.0


def _named(block: Neighbors, item_ids: pl.Series) -> pl.DataFrame:
    columns = {
        "item_id": item_ids.gather(block.items),
        "neighbor_id": item_ids.gather(block.neighbors),
        "score": block.scores,
        "users": block.users,
    }
    return pl.DataFrame(columns, schema=SCHEMA)
