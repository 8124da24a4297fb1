"""Ranking of the full catalogue: rows of every unseen item for some users, recall and NDCG at 10."""

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from qarm.data.interactions import Log
from qarm.recommender.examples import LONG, Examples, read_examples

__all__ = ["FIGURES", "catalogue_rows", "top_figures"]

TOP = 10
FIGURES = ("recall", "ndcg", "recall of cold items", "ndcg of cold items")


def catalogue_rows(
    past: Sequence[Log],
    future: Log,
    *,
    item_ids: Sequence[str],
    trained_items: Sequence[str],
    users: int,
    history: int = 50,
    long_history: int = LONG,
    seed: int = 0,
) -> Examples:
    """A row for every item that a user has not seen, as of the moment before the user's first future event.

    Args:
        past: events before; an item with one of them is seen. future: what is to be foretold: label 1 are a
            user's positives on unseen items.
        item_ids: the catalogue; trained_items: those that are not cold.
        users: as many of those with such a positive, drawn at random; all when there are fewer.
    """
    known = pl.DataFrame({"item_id": sorted(item_ids)})
    seen = pl.concat([log.frame for log in past]).select("user_id", "item_id").unique()
    begins = future.frame.group_by("user_id").agg(time=pl.col("time").min())
    wanted = future.positives().frame.select("user_id", "item_id").unique()
    wanted = wanted.join(known, on="item_id", how="semi").join(seen, on=["user_id", "item_id"], how="anti")
    eligible = wanted["user_id"].unique().sort()
    chosen = np.random.default_rng([seed, 13]).permutation(len(eligible))[:users]
    some = pl.DataFrame({"user_id": eligible.gather(np.sort(chosen))}).with_row_index("event")
    asked = some.join(begins, on="user_id").join(known, how="cross")
    asked = asked.join(seen, on=["user_id", "item_id"], how="anti")
    labelled = wanted.with_columns(label=pl.lit(1, dtype=pl.Int8))
    rows = (
        asked.join(labelled, on=["user_id", "item_id"], how="left")
        .with_columns(
            pl.col("label").fill_null(0),
            pl.col("event").cast(pl.Int64),
            cold=~pl.col("item_id").is_in(list(trained_items)),
        )
        .sort("event", "item_id")
    )
    return read_examples(rows, [*past, future], item_ids=item_ids, history=history, long_history=long_history)


def top_figures(rows: Examples, scores: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
    """Recall and NDCG at 10 of each user, over all positives and over the cold ones among them, [users, 4].

    Recall is over at most ten positives, so that 1 can be reached; NaN where there is no such positive. Equal
    scores stand in the order of the rows.

    Args:
        rows: from `catalogue_rows`; scores: [n], higher means likelier.
    """
    edges = rows.groups()
    found = np.full((len(edges) - 1, len(FIGURES)), np.nan)
    gains = 1 / np.log2(np.arange(TOP) + 2)
    wanted = rows.labels == 1
    masks = wanted, wanted & rows.cold
    for user, (first, last) in enumerate(pairwise(edges)):
        best = first + np.argsort(-scores[first:last], kind="stable")[:TOP]
        for place, mask in enumerate(masks):
            positives = int(np.count_nonzero(mask[first:last]))
            if positives:
                hits, most = mask[best], min(positives, TOP)
                found[user, 2 * place] = hits.sum() / most
                found[user, 2 * place + 1] = gains[: len(best)][hits].sum() / gains[:most].sum()
    return found
