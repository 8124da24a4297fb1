"""Swing: items are near when the user pairs who share both share little else."""

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Literal, get_args

import numba
import numpy as np
import numpy.typing as npt
import polars as pl

from qarm.core.parallel.engine import EngineName
from qarm.data.interaction_matrix import click_matrix, sampled
from qarm.data.interactions import Log
from qarm.errors import Problems
from qarm.pairs.swing.partition import Neighbors, Scoring, in_order, neighbors
from qarm.pairs.swing.popular_items import head_of

__all__ = ["swing"]

UserWeight = Literal["sqrt", "power"]
Longs = npt.NDArray[np.int64]
SCHEMA = {"item_id": pl.String, "neighbor_id": pl.String, "score": pl.Float64, "users": pl.Int32}


def swing(
    log: Log,
    *,
    alpha: float = 1.0,
    top_k: int = 20,
    user_weight: UserWeight = "sqrt",
    user_alpha: float = 5.0,
    user_beta: float = -0.35,
    min_user_items: int = 2,
    max_items_per_user: int | None = 1000,
    max_users_per_item: int | None = 1000,
    time_window: int | None = None,
    seed: int = 0,
    threads: int | None = None,
    support: bool = False,
    engine: EngineName = "local",
) -> pl.DataFrame:
    """The nearest items of every item, from distinct positive (user, item) pairs.

    s(i, j) is the sum, over pairs of users u < v who both have i and j, of
    w_u * w_v / (alpha + |I_u and I_v in common|) (Yang et al. 2020, "Large Scale Product Graph
    Construction for Recommendation in E-commerce").

    Args:
        log: events; negatives and repetitions do not count.
        alpha: smooths small overlaps, at least 0.
        top_k: neighbours per item.
        user_weight: w_u is 1 / sqrt(|I_u|) for "sqrt" and (|I_u| + user_alpha) ** user_beta for "power".
        user_alpha, user_beta: of "power"; the defaults are Alink's.
        min_user_items: users with fewer items do not count; up to 2 changes no score.
        max_items_per_user: a user with more counts with a seeded sample of them; None has no limit.
        max_users_per_item: an item with more is scored from a seeded sample of its users, scaled so that
            the score's expectation is the exact one; None has no limit.
        time_window: only events less than this long before the latest one count, in the unit of the log's
            time (microseconds where it had dates); None has no limit.
        seed: of both samples.
        threads: that work at once, by default all of numba's; the result does not depend on it.
        support: also return `users`.
        engine: "local", or "ray" to score buckets of items on a Ray cluster; the bytes are the same.

    Returns:
        item_id str, neighbor_id str, score f64, sorted by item_id, -score, neighbor_id; with `support`
        also users i32, how many of the item's (sampled) users have both. Exact where no cap binds.

    Raises:
        InputError: an argument is out of range, or the log has no positive event.
        MissingExtraError: the engine is not installed.
    """
    caps = {"max_items_per_user": max_items_per_user, "max_users_per_item": max_users_per_item}
    counts = {"top_k": top_k, "min_user_items": min_user_items}
    if time_window is not None:
        counts["time_window"] = time_window
    _check(log, alpha, user_weight, user_alpha, counts, caps)
    matrix = click_matrix(_latest(log, time_window), min_items=min_user_items)
    by_user = sampled(matrix.by_user, max_items_per_user, seed=seed)
    every = by_user.flipped(len(matrix.item_ids))
    by_item = sampled(every, max_users_per_item, seed=seed)
    scoring = Scoring(
        by_user,
        by_item,
        weights=_weights(by_user.sizes, user_weight, user_alpha, user_beta),
        scale=_pairs(every.sizes) / np.maximum(_pairs(by_item.sizes), 1),
        head=head_of(by_user, every.sizes, whole=by_item is every),
        alpha=alpha,
        top_k=top_k,
    )
    # numba.get_num_threads() would start its OpenMP and change torch's number of threads
    threads = threads or numba.config.NUMBA_NUM_THREADS  # type: ignore[attr-defined]
    blocks = list(neighbors(scoring, threads=threads, engine=engine))
    frame = _named(in_order(blocks), matrix.item_ids)
    return frame if support else frame.drop("users")


def _check(
    log: Log,
    alpha: float,
    user_weight: str,
    user_alpha: float,
    counts: Mapping[str, int],
    caps: Mapping[str, int | None],
) -> None:
    problems = Problems()
    if not (log.frame["label"] == 1).any():
        problems.add("the log has no positive event; check the label column")
    if not 0.0 <= alpha < math.inf:
        problems.add(f"got alpha={alpha:g}, need at least 0")
    if user_weight not in get_args(UserWeight):
        problems.add(f"got user_weight={user_weight!r}, need one of {', '.join(get_args(UserWeight))}")
    if not user_alpha > -1.0:
        problems.add(f"got user_alpha={user_alpha:g}, need more than -1")
    for name, value in counts.items():
        if value < 1:
            problems.add(f"got {name}={value}, need at least 1")
    for name, cap in caps.items():
        if cap is not None and cap < 2:
            problems.add(f"got {name}={cap}, need at least 2, or None for no limit")
    problems.raise_any()


def _latest(log: Log, time_window: int | None) -> Log:
    if time_window is None:
        return log
    return replace(log, frame=log.frame.filter(pl.col("time") > pl.col("time").max() - time_window))


def _weights(sizes: Longs, kind: str, alpha: float, beta: float) -> npt.NDArray[np.float64]:
    if kind == "sqrt":
        return 1.0 / np.sqrt(np.maximum(sizes, 1))
    weights: npt.NDArray[np.float64] = np.power(sizes + alpha, beta)
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
