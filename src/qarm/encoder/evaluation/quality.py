"""Quality of vectors before and after alignment, on what users did after the split."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import polars as pl

from qarm.data.embeddings import Embeddings
from qarm.data.interactions import Log
from qarm.data.log_profile import frequency_groups
from qarm.data.splits import Split
from qarm.encoder.evaluation.alignment_uniformity import (
    alignment,
    held_out_pairs,
    pair_retrieval_task,
    uniformity,
)
from qarm.encoder.evaluation.hit_rates import Bools, Ints, hit_rates
from qarm.encoder.evaluation.retrieval import (
    EACH,
    QUERIES,
    RetrievalTask,
    by_clicks,
    by_popularity,
    by_vectors,
    retrieval_task,
    truth_ranks,
)
from qarm.schemas.encoder import EmbeddingQuality, Geometry, PairRecall, Slice

__all__ = ["ALIGNED", "RAW", "cutoffs_of", "embedding_quality", "joined", "slices_of"]

RAW, ALIGNED = "raw", "aligned"
POPULARITY, ITEM_KNN = "popularity", "item-kNN"
GROUPS = 5
CUTOFFS, SHARES = (10, 50, 200), (1, 5)
PAIR_CUTOFFS = (10, 50)


def embedding_quality(
    versions: Mapping[str, Embeddings],
    split: Split,
    pairs: pl.DataFrame,
    item_ids: Sequence[str],
    *,
    draws: int = 1000,
    seed: int = 0,
) -> EmbeddingQuality:
    """Figures for `embeddings/quality.json`: how well vectors retrieve what users choose after the split.

    A user asks with the items of the 10 latest positives before the test part; each brings the 50
    nearest items that are new to the user, a candidate counts with its best score, and the hit rate at k is
    the share of later clicks whose item is among the user's first k candidates (`retrieval.truth_ranks`).
    Popularity and item-kNN (cosine of clicks) learn from the training part, as alignment does.

    Args:
        versions: vectors by name, at least "raw" and "aligned"; a version may lack items.
        split: of the log; the test part is what follows, train and valid are the past.
        pairs: of the training, which the held-out pairs leave out.
        item_ids: the catalogue's: all that can be found.
        draws: resamples of the users for the 95 % intervals.
        seed: of those draws.

    Returns:
        users, clicks, items: who is judged, on how many later clicks, among how many items. queries, each:
        10 and 50. cutoffs: candidates looked at, by name: 10, 50, 200, and 1 % and 5 % of the items; a list
        holds at most 50 a query. slices: clicks, users of each: all, warm and cold (with and without a
        training event), and popularity 1 (rarest) to 5, equally many warm items each. hit_rates: method,
        slice, hit_rate by cut-off. differences: method, against, slice, cutoff, difference, ratio and their
        95 % intervals over draws of users. pairs: held-out pairs (`geometry.held_out_pairs`), and by
        method the share whose target is among the 10 and 50 items nearest to the trigger. geometry: by
        method, alignment over those pairs and uniformity over all items.
    """
    past, later = joined(split.train, split.valid), joined(split.valid, split.test)
    asked = retrieval_task(past, split.test, item_ids)
    shown = held_out_pairs(later, pairs, item_ids, seed=seed)
    answers = pair_retrieval_task(shown, item_ids)
    cutoffs = cutoffs_of(len(item_ids))
    ranks = {name: truth_ranks(asked, by_vectors(vectors, item_ids)) for name, vectors in versions.items()}
    ranks[ITEM_KNN] = truth_ranks(asked, by_clicks(split.train, item_ids))
    ranks[POPULARITY] = truth_ranks(asked, by_popularity(split.train, item_ids), each=max(cutoffs.values()))
    rates = hit_rates(
        ranks,
        asked.user_rows,
        slices=slices_of(asked, split.train),
        cutoffs=cutoffs,
        draws=draws,
        seed=seed,
    )
    compared = [(ALIGNED, RAW), (ALIGNED, ITEM_KNN), (ALIGNED, POPULARITY)]
    compared += [(name, ALIGNED) for name in versions if name not in (RAW, ALIGNED)]
    sizes = zip(rates.slices, rates.clicks.tolist(), rates.users.tolist(), strict=True)
    recall = {name: _recall(answers, vectors) for name, vectors in versions.items()}
    return EmbeddingQuality(
        users=len(asked.users),
        clicks=len(asked.truth.values),
        items=len(item_ids),
        queries=QUERIES,
        each=EACH,
        cutoffs=cutoffs,
        slices={name: Slice(clicks=clicks, users=users) for name, clicks, users in sizes},
        hit_rates=rates.table(),
        differences=[row for one, other in compared for row in rates.differences(one, other)],
        pairs=PairRecall(count=shown.height, recall=recall),
        geometry={
            name: Geometry(alignment=alignment(vectors, shown), uniformity=uniformity(vectors, seed=seed))
            for name, vectors in versions.items()
        },
    )


def joined(first: Log, second: Log) -> Log:
    """The events of both, in a log's order."""
    frame = pl.concat([first.frame, second.frame]).sort("user_id", "time", "row")
    return replace(first, frame=frame)


def cutoffs_of(items: int) -> dict[str, int]:
    """Candidates looked at, by name: counts, and shares of the items."""
    return {str(count): count for count in CUTOFFS} | {
        f"{share}%": max(1, round(items * share / 100)) for share in SHARES
    }


def slices_of(asked: RetrievalTask, train: Log) -> dict[str, Bools]:
    """Which later clicks fall on which items."""
    group = _groups(asked.item_ids, train)[asked.truth.values]
    slices = {"all": np.ones(len(group), dtype=np.bool_), "warm": group > 0, "cold": group == 0}
    return slices | {f"popularity {number}": group == number for number in range(1, GROUPS + 1)}


def _groups(item_ids: list[str], train: Log) -> Ints:
    """0 for items without a training event, else the popularity group from 1, the rarest; int64 [items]."""
    clicks = train.frame.group_by("item_id").agg(count=pl.col("label").sum())
    return frequency_groups(item_ids, clicks, groups=GROUPS)


def _recall(answers: RetrievalTask, vectors: Embeddings) -> dict[str, float | None]:
    found = truth_ranks(answers, by_vectors(vectors, answers.item_ids), each=max(PAIR_CUTOFFS))
    return {str(cut): float(np.mean(found < cut)) if len(found) else None for cut in PAIR_CUTOFFS}
