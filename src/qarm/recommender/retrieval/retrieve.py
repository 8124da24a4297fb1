"""Stage `retrieve`: retrievers fitted on the training part, figures on the test part, files."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import numpy.typing as npt
import polars as pl

from qarm.config.retriever import RetrieverConfig
from qarm.core.atomic_io import write_json
from qarm.core.item_index import ItemIndex
from qarm.data.codes import Codes
from qarm.data.embeddings import Embeddings
from qarm.data.interactions import Log
from qarm.data.log_profile import frequency_groups
from qarm.data.splits import Split
from qarm.recommender.code_embedding import joined
from qarm.recommender.retrieval.anchors import Score, anchors
from qarm.recommender.retrieval.blend import Blend
from qarm.recommender.retrieval.evaluation import CUTS, gini, ndcg_of, rank_targets, recall_of
from qarm.recommender.retrieval.fitting import FittedRetrievers, Validation, fit_retrievers, refit_retrievers
from qarm.recommender.retrieval.histories import Histories, histories_of
from qarm.recommender.retrieval.models.item_vectors import ItemContent
from qarm.recommender.retrieval.storage import StoredRetriever, write_retriever
from qarm.schemas.base import FORMAT, Figure
from qarm.schemas.retrieval import BlendShape, ListFigures, RetrievalFigures, RetrievalResults

__all__ = ["RetrievalInputs", "fit_split", "retrieval_results", "retrieve", "split_targets"]

GROUPS = 4  # of warm items by popularity
FEWEST_COLD = 20  # items drawn as cold for validation, below which none are drawn
MOST_COLD = 0.25  # largest share that is drawn unless the config asks for more


@dataclass(frozen=True)
class RetrievalInputs:
    """Split, catalogue and contents of items; vectors: float32 [items, d] or None."""

    split: Split
    index: ItemIndex
    content: ItemContent
    vectors: npt.NDArray[np.float32] | None

    @classmethod
    def of(
        cls, split: Split, item_ids: Sequence[str], *, codes: Codes | None, vectors: Embeddings | None
    ) -> "RetrievalInputs":
        """Inputs with the codes and aligned vectors of all items."""
        ids = sorted(item_ids)
        rows = None if vectors is None else vectors.rows(ids)
        content = ItemContent(vectors=rows)
        if codes is not None:
            table = joined(codes)[ItemIndex(codes.item_ids).rows(ids)]
            widths = tuple(int(top) + 1 for top in codes.rq.max(axis=0))
            pool = 0 if codes.vq is None else int(codes.vq.max()) + 1
            content = ItemContent(table, widths, pool, vectors=rows)
        return cls(split, ItemIndex(ids), content, rows)

    def histories(self, logs: Sequence[Log], users: Sequence[str]) -> Histories:
        """Histories of users in parts of the log."""
        return histories_of(logs, users, self.index)

    def validation(self, past: Histories, users: Sequence[str]) -> Validation:
        """The validation part, after some histories of the same users."""
        cold = past.counts(len(self.index)) == 0
        return Validation(past, self.histories([self.split.valid], users), cold)


def fit_split(inputs: RetrievalInputs, config: RetrieverConfig, *, seed: int) -> FittedRetrievers:
    """Retrievers of a split: chosen with some items drawn as cold, then fitted on the whole training part."""
    users = inputs.split.train.users
    train = inputs.histories([inputs.split.train], users)
    counts = train.counts(len(inputs.index))
    drawn = _drawn_cold(counts, config.cold_items, seed)
    reduced = _without(train, drawn)
    validation = inputs.validation(reduced, users)
    if len(drawn):
        validation = replace(validation, absent=counts == 0)
    chosen = fit_retrievers(reduced, inputs.content, inputs.vectors, validation, config, seed=seed)
    if not len(drawn):
        return chosen
    return refit_retrievers(chosen, train, inputs.content, inputs.vectors, config, seed=seed)


def _drawn_cold(counts: npt.NDArray[np.int64], share: float, seed: int) -> npt.NDArray[np.int64]:
    """Rows of the items that validation treats as cold, of those with training events.

    As large a share as the catalogue's own of cold items, if that is more than asked for, so that an
    intercept costs validation what it will cost later.
    """
    warm = np.flatnonzero(counts)
    if share:
        share = max(share, min(MOST_COLD, 1 - len(warm) / max(len(counts), 1)))
    count = round(share * len(warm))
    if count < FEWEST_COLD:
        return np.empty(0, np.int64)
    return np.sort(np.random.default_rng([seed, 41]).permutation(warm)[:count])


def _without(histories: Histories, items: npt.NDArray[np.int64]) -> Histories:
    kept = ~np.isin(histories.items, items)
    return Histories(histories.items[kept], np.concatenate([[0], np.cumsum(kept)])[histories.offsets])


# ---- figures ----------------------------------------------------------------------------------


def retrieval_results(
    inputs: RetrievalInputs, fitted: FittedRetrievers, config: RetrieverConfig, *, seed: int
) -> RetrievalResults:
    """Figures of retrievers, blend and anchors on the test part, after everything before it."""
    (past, targets), cold = split_targets(inputs), fitted.blend.cold
    slices = _slices(inputs, fitted.blend)
    figures: list[RetrievalFigures] = []
    lists: list[ListFigures] = []
    for name, score in _scorers(inputs, fitted.blend, config, seed).items():
        ranks = rank_targets(score, past, targets)
        for masked, values in ((True, ranks.masked), (False, ranks.unmasked)):
            for part, chosen in slices.items():
                figures += _figures(name, part, masked, values, targets, chosen[targets.items])
        among = rank_targets(partial(_only_cold, score, cold), past, targets, top=1)
        figures += _figures(name, "cold among cold", True, among.masked, targets, cold[targets.items])
        lists.append(_list_figures(name, ranks.top, cold))
    return RetrievalResults(figures=figures, lists=lists, blend=blend_shape(fitted), epochs=fitted.epochs)


def split_targets(inputs: RetrievalInputs) -> tuple[Histories, Histories]:
    """Histories before the test part of its users, and their targets: distinct items that are new to them."""
    split = inputs.split
    users = split.test.positives().users
    past = inputs.histories([split.train, split.valid], users)
    return past, _new_targets(past, inputs.histories([split.test], users))


def _scorers(inputs: RetrievalInputs, blend: Blend, config: RetrieverConfig, seed: int) -> dict[str, Score]:
    """The blend's parts one by one, the blend, and the anchors."""
    users = inputs.split.train.users
    train = inputs.histories([inputs.split.train], users)
    parts = {name: Blend(blend.parts, {name: 1.0}, blend.cold).scores for name in blend.parts}
    others = anchors(train, _recent(inputs, config), inputs.validation(train, users), seed=seed)
    return parts | {"blend": blend.scores} | others


def blend_shape(fitted: FittedRetrievers) -> BlendShape:
    """Weights, intercept and settings of fitted retrievers."""
    weights = {name: float(weight) for name, weight in fitted.blend.weights.items()}
    return BlendShape(
        format=FORMAT, weights=weights, intercept=float(fitted.blend.intercept), counting=fitted.counting
    )


def _only_cold(score: Score, cold: npt.NDArray[np.bool_], block: Histories) -> npt.NDArray[np.float32]:
    scores = score(block)
    scores[:, ~cold] = -np.inf
    return scores


def _new_targets(past: Histories, targets: Histories) -> Histories:
    """Distinct targets that are not in the user's history."""
    lists = [np.setdiff1d(targets[user], past[user]) for user in range(len(past))]
    return Histories.of(lists)


def _slices(inputs: RetrievalInputs, blend: Blend) -> dict[str, npt.NDArray[np.bool_]]:
    """Which items each slice of targets holds, bool [items] by name."""
    counts = inputs.split.train.positives().frame.group_by("item_id").agg(count=pl.len())
    groups = frequency_groups(list(inputs.index), counts, groups=GROUPS)
    parts = {"all": np.ones(len(blend.cold), bool), "warm": ~blend.cold, "cold": blend.cold}
    return parts | {f"group-{group}": groups == group for group in range(1, GROUPS + 1)}


def _figures(
    name: str,
    part: str,
    masked: bool,
    ranks: npt.NDArray[np.int64],
    targets: Histories,
    kept: npt.NDArray[np.bool_],
) -> list[RetrievalFigures]:
    """Recall and NDCG at every cut over the kept targets."""
    offsets = np.concatenate([[0], np.cumsum(kept)])[targets.offsets]
    users = int((np.diff(offsets) > 0).sum())
    return [
        RetrievalFigures(
            retriever=name,
            slice=part,
            masked=masked,
            cut=cut,
            recall=float(np.nanmean(recall_of(ranks[kept], offsets, cut))) if users else None,
            ndcg=float(np.nanmean(ndcg_of(ranks[kept], offsets, cut))) if users else None,
            users=users,
        )
        for cut in CUTS
    ]


def _list_figures(name: str, top: npt.NDArray[np.int32], cold: npt.NDArray[np.bool_]) -> ListFigures:
    shown = top[top >= 0]
    counts = np.bincount(shown, minlength=len(cold))
    return ListFigures(
        retriever=name,
        coverage=float((counts > 0).mean()),
        gini=gini(counts),
        cold=float(cold[shown].mean()) if len(shown) else 0.0,
    )


# ---- stage --------------------------------------------------------------------------------------


def retrieve(
    split: Split,
    item_ids: Sequence[str],
    *,
    codes: Codes,
    vectors: Embeddings,
    config: RetrieverConfig,
    folder: Path,
    seed: int,
) -> Mapping[str, Figure]:
    """Figures of a run's retrievers, which are fitted, evaluated and written.

    Args:
        split: of the log. item_ids: the catalogue. codes, vectors: of all items, vectors the aligned ones.
        folder: gets `results.json` and what `read_retriever` reads.
    """
    inputs = RetrievalInputs.of(split, item_ids, codes=codes, vectors=vectors)
    fitted = fit_split(inputs, config, seed=seed)
    results = retrieval_results(inputs, fitted, config, seed=seed)
    write_json(folder / "results.json", results)
    write_retriever(folder, _stored(inputs, fitted, config))
    recalls = {
        row.retriever: row.recall
        for row in results.figures
        if row.masked and row.cut == 10 and row.slice == "all"
    }
    return {"items": len(inputs.index), **{f"recall@10 {name}": value for name, value in recalls.items()}}


def _recent(inputs: RetrievalInputs, config: RetrieverConfig) -> npt.NDArray[np.int64]:
    """Number of each item's events among the latest of the training part, int64 [items]."""
    log = inputs.split.train.positives().frame.sort("time", "row")
    latest = log.tail(max(1, round(config.recent * len(log))))["item_id"].to_list()
    return np.bincount(inputs.index.find(latest), minlength=len(inputs.index))


def _stored(inputs: RetrievalInputs, fitted: FittedRetrievers, config: RetrieverConfig) -> StoredRetriever:
    split, items = inputs.split, list(inputs.index)
    parts = [split.train, split.valid, split.test, split.left_out]
    users = pl.concat([part.positives().frame["user_id"] for part in parts]).unique().sort().to_list()
    train = inputs.histories([split.train], split.train.users)
    return StoredRetriever(
        blend=fitted.blend,
        item_ids=items,
        events=train.counts(len(items)),
        recent=_recent(inputs, config),
        user_ids=users,
        histories=inputs.histories(parts, users),
        counting=fitted.counting,
    )
