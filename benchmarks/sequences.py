"""Published leave-last-out protocol on sequences: our retrievers, counting, SASRec and decoded codes.

A folder has `interactions.parquet` (user_id, item_id, order) and `items.parquet` (item_id, title or null,
attributes: list). Each user's last item is the test target, the one before it the validation target; the
whole catalogue is ranked; everything is chosen on validation. Codes come from titles where there are any, by
the packaged text encoder, and otherwise from attributes and co-occurrence.

    python benchmarks/sequences.py FOLDER [--seeds 0 1 2] [--methods short|all] [--json FILE]
"""

import argparse
import json
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import polars as pl
from scipy.sparse import csr_matrix
from sklearn.decomposition import TruncatedSVD

from qarm.config.retriever import RetrieverConfig
from qarm.core.item_index import ItemIndex
from qarm.core.text_tables import aligned_table
from qarm.data.embeddings import Embeddings
from qarm.quantizer.knn_codes import NearestCodes
from qarm.quantizer.residual_kmeans import ResidualKMeans
from qarm.recommender.retrieval.blend import Blend
from qarm.recommender.retrieval.evaluation import ndcg_of, rank_targets, recall_of
from qarm.recommender.retrieval.fitting import Validation, counting_parts, fit_retrievers, tune_counting
from qarm.recommender.retrieval.histories import Histories, leave_last_out
from qarm.recommender.retrieval.models.generative import CodeDecoder, ParallelCodes
from qarm.recommender.retrieval.models.item_vectors import ItemContent
from qarm.recommender.retrieval.models.training import new_sequence_model, train_model

# recall@10 and NDCG@10 that papers report on the sequences of S3-Rec's Beauty
PUBLISHED = {
    "SASRec, sampled softmax (published)": {"masked": (0.0921, 0.0531)},
    "eSASRec (published)": {"masked": (0.0928, 0.0523)},
    "RPG (published)": {"unmasked": (0.0809, 0.0464)},
}
METRICS = ("recall@5", "ndcg@5", "recall@10", "ndcg@10")
CUTS = (5, 10)
SASREC = RetrieverConfig(
    fields=["id"],
    reader="attention",
    similarity="dot",
    blocks=1,
    heads=1,
    history=50,
    dropout=0.2,
    id_dropout=0.0,
    negatives=256,
    log_q=1.0,
    lr=1e-3,
    weight_decay=0.0,
    epochs=60,
    patience=5,
)
ATTRIBUTE_DIM = 64
FEWEST = 3  # events of a user: training, validation, test
ALLOWED_COST = 0.0  # the protocol has no cold items to be fair to


@dataclass(frozen=True)
class Data:
    """Sequences and contents of items; vectors: float32 [items, d]."""

    histories: Histories
    items: int
    vectors: npt.NDArray[np.float32]
    content: ItemContent

    def part(self, left_out: int) -> tuple[Histories, Histories]:
        """Histories without the last events, and the target after each."""
        past, targets = leave_last_out(self.histories, left_out)
        return past, Histories.of([[target] for target in targets])


def read(folder: Path, *, vectors: Path | None, seed: int = 0) -> Data:
    """Sequences, and codes of the items' vectors."""
    items = pl.read_parquet(folder / "items.parquet").sort("item_id")
    log = pl.read_parquet(folder / "interactions.parquet").sort("user_id", "order")
    kept = log.filter(pl.len().over("user_id") >= FEWEST)
    if len(kept) < len(log):
        print(f"{len(log) - len(kept):,} events of users with fewer than {FEWEST} are left out")
    index = ItemIndex(items["item_id"].cast(pl.String).to_list())
    users = kept["user_id"].rle_id().to_numpy()
    offsets = np.searchsorted(users, np.arange(int(users[-1]) + 2))
    histories = Histories(index.rows(kept["item_id"].cast(pl.String).to_list()).astype(np.int32), offsets)
    past, _ = leave_last_out(histories, 2)
    rows = np.load(vectors) if vectors is not None else content_vectors(items, past, seed=seed)
    named = Embeddings(list(index), rows)
    books = ResidualKMeans(levels=3, width=min(256, len(items)), seed=seed).fit(named)
    nearest = NearestCodes(25).fit(named)
    codes = np.concatenate([books.transform(named), nearest.codes(named)], axis=1).astype(np.int64)
    widths = tuple(int(top) + 1 for top in codes[:, :3].max(axis=0))
    content = ItemContent(codes, widths, len(items), attributes(items), rows)
    return Data(histories, len(items), rows, content)


def content_vectors(items: pl.DataFrame, past: Histories, *, seed: int) -> npt.NDArray[np.float32]:
    """Vectors of titles by the packaged text encoder and of attributes by SVD, side by side.

    Where there are neither, of co-occurrence in the training part, by SVD.
    """
    parts = []
    if "title" in items.columns and items["title"].null_count() < len(items):
        from qarm.encoder.towers.text import TextTower

        titles = TextTower("all-minilm-l6-v2").encode(items["title"].fill_null("").to_list())
        titles[items["title"].is_null().to_numpy()] = 0.0
        parts.append(_unit(titles))
    offsets, values = attributes(items) or (np.zeros(len(items) + 1, np.int64), np.empty(0, np.int64))
    if len(values):
        table = csr_matrix((np.ones(len(values), np.float32), values, offsets))
        parts.append((0.5 if parts else 1.0) * _reduced(table, seed))
    if not parts:
        parts.append(_reduced(past.distinct().matrix(len(items)).T.tocsr(), seed))
    return np.hstack(parts).astype(np.float32)


def _reduced(table: csr_matrix, seed: int) -> npt.NDArray[np.float32]:
    """Unit vectors of the rows of a sparse table by SVD, columns weighted by rarity."""
    weights = np.log(table.shape[0] / np.maximum(np.asarray(table.sum(axis=0)), 1))
    size = min(ATTRIBUTE_DIM, min(table.shape) - 1)
    return _unit(TruncatedSVD(size, random_state=seed).fit_transform(table.multiply(weights).tocsr()))


def attributes(items: pl.DataFrame) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]] | None:
    """Offsets [items + 1] and numbers of the attribute values; None where there are none."""
    if "attributes" not in items.columns:
        return None
    lists = items["attributes"].cast(pl.List(pl.String)).fill_null([])
    offsets = np.concatenate([[0], np.cumsum(lists.list.len().to_numpy().astype(np.int64))])
    values = lists.explode(empty_as_null=False)
    return offsets, values.rank("dense").to_numpy().astype(np.int64) - 1


def _unit(vectors: npt.NDArray[np.floating]) -> npt.NDArray[np.float32]:
    return (vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)).astype(np.float32)


# ---- methods: each gives a scorer that was chosen on validation -----------------------------------

Score = Callable[[Histories], npt.NDArray[np.float32]]


def methods(data: Data, seed: int, *, short: bool) -> Iterator[tuple[str, Score]]:
    """Every method by name, trained on all but the last two events of each user."""
    past, targets = data.part(2)
    cold = past.counts(data.items) == 0
    validation = Validation(past, targets, cold)
    names = ("popularity", "item-knn", "sequential-knn", "content-knn")
    settings = tune_counting(past, data.vectors, validation, seed=seed)
    for name, part in counting_parts(names, past, data.vectors, settings, data.items).items():
        yield name, Blend({name: part}, {name: 1.0}, cold).scores
    for name, config in configs(short=short).items():
        fitted = fit_retrievers(
            past, data.content, data.vectors, validation, config, seed=seed, settings=settings
        )
        print(f"  {name}: best epoch {fitted.best}, weights {dict(fitted.blend.weights)}", flush=True)
        if name == "blend":
            yield "sequence model", fitted.blend.parts["model"].scores
        yield name, fitted.blend.scores
    if short:
        return
    permuted = _permuted(data.content, seed)
    alone = configs(short=True)["blend"].model_copy(update={"blend": ["model"]})
    placebo = fit_retrievers(past, permuted, None, validation, alone, seed=seed, settings=settings)
    yield "placebo codes", placebo.blend.parts["model"].scores
    yield from generated(data, past, validation, seed)


def configs(*, short: bool) -> Mapping[str, RetrieverConfig]:
    """Settings of the trained methods."""
    ours = RetrieverConfig(cold_cost=ALLOWED_COST)
    alone = {"blend": ["model"]}
    if short:
        return {"blend": ours}
    return {
        "blend": ours,
        "ids only": ours.model_copy(update={"fields": ["id"], **alone}),
        "codes without ids": ours.model_copy(update={"fields": ["rq", "vq"], **alone}),
        "attention": ours.model_copy(update={"reader": "attention", **alone}),
        "SASRec (ids, our training)": SASREC.model_copy(update=alone),
    }


def _permuted(content: ItemContent, seed: int) -> ItemContent:
    """The same codes, given to other items."""
    codes = np.random.default_rng([seed, 47]).permutation(content.codes)
    return ItemContent(codes, content.widths, content.pool)


def generated(data: Data, past: Histories, validation: Validation, seed: int) -> Iterator[tuple[str, Score]]:
    """Decoded codes: all levels side by side, and a beam of 50 along the trie."""
    config = RetrieverConfig(fields=["rq"], epochs=16)
    codes = data.content.codes[:, : len(data.content.widths)]
    sample = validation.sample(500, seed=seed)
    for name, kind in (("parallel codes", ParallelCodes), ("generative, beam 50", CodeDecoder)):
        history = new_sequence_model(data.content, past.counts(data.items), config, seed=seed)
        model = kind(history, codes)

        def scores(block: Histories, model=model, name=name) -> npt.NDArray[np.float32]:
            return model.scores(block) if name == "parallel codes" else model.scores(block, width=50)

        def reached(_: object, scores=scores) -> float:
            ranks = rank_targets(scores, sample.histories, sample.targets, top=1)
            return float(np.nanmean(ndcg_of(ranks.masked, ranks.offsets, 10)))

        train_model(model, model.loss, past, config, seed=seed, validate=reached)
        yield name, scores


# ---- figures ----------------------------------------------------------------------------------


def figures(score: Score, data: Data) -> dict[str, dict[str, float]]:
    """Masked and unmasked recall and NDCG of the test targets."""
    past, targets = data.part(1)
    ranks = rank_targets(score, past, targets)
    return {
        kind: {
            f"{metric}@{cut}": float(np.mean(of(values, ranks.offsets, cut)))
            for cut in CUTS
            for metric, of in (("recall", recall_of), ("ndcg", ndcg_of))
        }
        for kind, values in (("masked", ranks.masked), ("unmasked", ranks.unmasked))
    }


def printed(rows: list[dict]) -> str:
    """Table of the means over seeds, and of what papers report."""
    lines = [["method", "seeds", *(f"{kind} {name}" for kind in ("masked", "unmasked") for name in METRICS)]]
    for method in dict.fromkeys(row["method"] for row in rows):
        own = [row for row in rows if row["method"] == method]
        means = [
            np.mean([row[kind][name] for row in own]) for kind in ("masked", "unmasked") for name in METRICS
        ]
        lines.append([method, str(len(own)), *(f"{mean:.4f}" for mean in means)])
    for method, known in PUBLISHED.items():
        cells = [known.get(kind) for kind in ("masked", "unmasked")]
        texts = [["", "", *([f"{value:.4f}" for value in cell] if cell else ["", ""])] for cell in cells]
        lines.append([method, "", *texts[0], *texts[1]])
    return aligned_table(lines)


def main() -> None:
    """Run the methods for each seed; print and write the figures."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--methods", choices=("short", "all"), default="short")
    parser.add_argument(
        "--vectors", type=Path, help="item vectors .npy, rows by item_id, in place of our own"
    )
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    started, rows = time.perf_counter(), []
    data = read(arguments.folder, vectors=arguments.vectors)
    took = time.perf_counter() - started
    print(f"{len(data.histories):,} users, {data.items:,} items; vectors and codes took {took:.0f} s")
    for seed in arguments.seeds:
        begun = time.perf_counter()
        for method, score in methods(data, seed, short=arguments.methods == "short"):
            fitted = time.perf_counter() - begun
            row = {"method": method, "seed": seed, **figures(score, data)}
            rows.append(row)
            if arguments.json is not None:
                arguments.json.write_text(json.dumps(rows, indent=2), encoding="utf-8")
            print(f"{method}, seed {seed}: {row['masked']} {fitted:.0f} s", flush=True)
            begun = time.perf_counter()
    print(printed(rows))


if __name__ == "__main__":
    main()
