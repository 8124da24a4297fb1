"""Ground-truth factors explained by aligned vectors: `python benchmarks/alignment_planted.py --out FOLDER`.

Builds the demo world, aligns on its mined pairs and on the controls of `alignment.py`, and predicts each
factor of an item from its vector by ridge: R2 over five folds, a source's two factors averaged. Vectors of
items without their text, picture or sound show what each modality contributes. Measured on items that no
training saw: for the others the encoder memorises a missing modality's factors from the pairs. Minutes.
"""

import argparse
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from sklearn.linear_model import RidgeCV
from sklearn.model_selection import KFold, cross_val_predict

sys.path.insert(0, str(Path(__file__).parent))
from alignment import look_alikes, random_pairs, shuffled
from qarm.data.catalog import Catalog, read_catalog
from qarm.data.embeddings import Embeddings
from qarm.data.interactions import read_log
from qarm.data.splits import split_log
from qarm.demo.build import build_world
from qarm.encoder.alignment.align import align
from qarm.encoder.encoder import Encoder
from qarm.encoder.evaluation.modality_ablation import only_modalities
from qarm.encoder.feature_cache import tower_features
from qarm.pairs.mining import mine_pairs

SOURCES = ("text", "image", "audio")
NAMES = ("text", "picture", "sound")
PENALTIES = np.logspace(-3, 3, 13)


def explained(vectors: Embeddings, truth: pl.DataFrame, items: list[str]) -> dict[str, float]:
    """R2 of each source's ground-truth factors, from vectors by ridge over five folds of `items`."""
    rows = pl.DataFrame({"item_id": items}).join(truth, on="item_id", how="left", maintain_order="left")
    folds = KFold(5, shuffle=True, random_state=0)
    explained_variance = {}
    for source in SOURCES:
        factors = rows.select(f"{source}_0", f"{source}_1").to_numpy()
        predicted = cross_val_predict(RidgeCV(PENALTIES), vectors.rows(items), factors, cv=folds)
        spread = np.square(factors - factors.mean(axis=0)).sum(axis=0)
        explained_variance[source] = float(np.mean(1 - np.square(factors - predicted).sum(axis=0) / spread))
    return explained_variance


def ablated(encoder: Encoder, catalog: Catalog, cache: Path) -> dict[str, Embeddings]:
    """Vectors of all items: whole, and without each modality."""
    vectors = {"everything": encoder.embed(catalog, cache=cache)}
    for gone in SOURCES:
        rest = only_modalities(catalog, [m for m in SOURCES if m != gone])
        if rest is None:
            raise SystemExit(f"no item has anything but its {gone}")
        vectors[f"without {gone}"] = encoder.embed(rest, cache=cache)
    return vectors


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, required=True, help="folder of the world and of tower features")
    parser.add_argument("--size", choices=("small", "large"), default="small")
    parser.add_argument("--cold", type=float, default=0.2, help="share of items that training never sees")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    clock, seed = time.perf_counter(), options.seed
    world = build_world(options.out / "world", size=options.size, seed=seed)
    catalog = read_catalog(world.folder / "items.parquet")
    log = read_log(world.folder / "interactions.parquet", known_items=catalog.item_ids)
    split = split_log(log, kind="time", test=0.2, valid=0.1, cold_items=options.cold, seed=seed)
    train, new = split.train, split.cold_items
    known, truth = catalog.only(train.items), pl.read_parquet(world.folder / "truth.parquet")
    pairs, rng = mine_pairs(train, seed=seed), np.random.default_rng([seed, 7])
    clicks = dict(train.positives().frame.group_by("item_id").len().rows())
    cache = options.out / "cache"
    made: dict[str, Any] = {}
    ways: dict[str, Callable[[], pl.DataFrame]] = {
        "mined pairs": lambda: pairs,
        "shuffled pairs": lambda: shuffled(pairs, rng),
        "random pairs, matched for popularity": lambda: random_pairs(pairs, clicks, rng),
        "pairs of look-alikes in text": lambda: look_alikes(pairs, made["text"]),
    }
    columns = [f"{part}, {seen}" for seen in ("new items", "seen") for part in NAMES]
    print("| vectors of | " + " | ".join(columns) + " |")
    print("|---" * (1 + len(columns)) + "|")

    def show(name: str, vectors: Embeddings) -> None:
        parts = [explained(vectors, truth, items) for items in (new, known.item_ids)]
        figures = [part[source] for part in parts for source in SOURCES]
        print(f"| {name} | " + " | ".join(f"{figure:.2f}" for figure in figures) + " |", flush=True)

    for name, way in ways.items():
        encoder = align(known, way(), seed=seed, cache=cache)
        if name == "mined pairs":
            text = tower_features(known, {"text": encoder.towers["text"]}, cache=cache)
            made["text"] = Embeddings(text.item_ids, text.values["text"])
            show("the raw encoder", encoder.raw(catalog, cache=cache))
        for part, vectors in ablated(encoder, catalog, cache).items():
            show(f"{name}, {part}", vectors)
    spent = time.perf_counter() - clock
    print(
        f"\n{world.items:,} items, {len(train):,} events, {pairs.height:,} pairs, "
        f"{len(new):,} new items, {spent:.0f} s"
    )


if __name__ == "__main__":
    main()
