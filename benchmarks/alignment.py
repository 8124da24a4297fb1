"""Hit rates of later clicks by aligned vectors, against controls: `python benchmarks/alignment.py DATA`.

DATA is the folder of `movielens_mm_full`, `amazon14_beauty` or any other set with the same columns. Every
seed draws its own cold items, mines, trains and embeds anew; users are resampled over all seeds at once. The
controls have the same number of pairs and the same training: `shuffled` permutes the targets, so that each
item is a trigger and a target as often as before; `random` draws both ends among equally popular items;
`look-alike` takes the items nearest in the raw text. `--try` evaluates settings, one seed, on a split of the
events before the test part.
"""

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from qarm.data.catalog import Catalog, read_catalog
from qarm.data.embeddings import Embeddings
from qarm.data.interactions import read_log
from qarm.data.splits import Split, split_log
from qarm.encoder.alignment.align import align
from qarm.encoder.evaluation.hit_rates import hit_rates
from qarm.encoder.evaluation.quality import cutoffs_of, joined, slices_of
from qarm.encoder.evaluation.retrieval import (
    by_clicks,
    by_popularity,
    by_vectors,
    retrieval_task,
    truth_ranks,
)
from qarm.encoder.feature_cache import tower_features
from qarm.pairs.mining import mine_pairs

WAYS = ("aligned", "shuffled", "random", "look-alike")
CUTOFFS = ("10", "50", "200", "1%", "5%")


# ---- controls: as many pairs, and no behaviour in them --------------------------------------------


def shuffled(pairs: pl.DataFrame, rng: np.random.Generator) -> pl.DataFrame:
    """Targets permuted within each source: every item keeps its number of pairs on either side."""
    parts = []
    for part in pairs.partition_by("source", maintain_order=True):
        triggers, targets = part["trigger_id"].to_numpy(), rng.permutation(part["target_id"].to_numpy())
        while (same := np.flatnonzero(triggers == targets)).size:
            other = rng.integers(len(targets), size=len(same))
            for a, b in zip(same, other, strict=True):
                targets[a], targets[b] = targets[b], targets[a]
        parts.append(part.with_columns(target_id=pl.Series(targets, dtype=pl.String)))
    return pl.concat(parts)


def random_pairs(pairs: pl.DataFrame, clicks: dict[str, int], rng: np.random.Generator) -> pl.DataFrame:
    """Both ends replaced by items with within a factor of two as many clicks."""
    items = np.array(sorted(clicks))
    octave = np.array([int(np.log2(clicks[item])) for item in items])
    groups = {group: items[octave == group] for group in np.unique(octave)}
    of = dict(zip(items, octave, strict=True))

    def drawn(side: str) -> list[str]:
        return [str(rng.choice(groups[of[item]])) for item in pairs[side]]

    made = pairs.with_columns(
        trigger_id=pl.Series(drawn("trigger_id")), target_id=pl.Series(drawn("target_id"))
    )
    return made.filter(pl.col("trigger_id") != pl.col("target_id"))


def look_alikes(pairs: pl.DataFrame, vectors: Embeddings) -> pl.DataFrame:
    """Each trigger's targets replaced by as many of the items whose text is nearest to its own."""
    place = {item: row for row, item in enumerate(vectors.item_ids)}
    unit = vectors.vectors / np.linalg.norm(vectors.vectors, axis=1, keepdims=True)
    parts = []
    for (trigger,), part in pairs.group_by("trigger_id", maintain_order=True):
        scores = unit @ unit[place[trigger]]
        scores[place[trigger]] = -np.inf
        nearest = np.argsort(-scores, kind="stable")[: part.height]
        targets = pl.Series([vectors.item_ids[row] for row in nearest])
        parts.append(part[: len(targets)].with_columns(target_id=targets))
    return pl.concat(parts)


# ---- one seed ---------------------------------------------------------------------------------------


def read(data: Path) -> tuple[Catalog, Any, dict[str, Any]]:
    table = pl.read_parquet(data / "interactions.parquet")
    ordered = "order" in table.columns and table["timestamp"].equals(table["order"])
    catalog = read_catalog(data / "items.parquet", **_columns(data / "items.parquet"))
    log = read_log(
        data / "interactions.parquet",
        order="order" if ordered else None,
        label="label" if "label" in table.columns else None,
        known_items=catalog.item_ids,
    )
    kind = {"kind": "last_out"} if ordered else {"kind": "user_tail", "test": 0.2, "valid": 0.1}
    return catalog, log, kind


def _columns(path: Path) -> dict[str, Any]:
    names = pl.read_parquet_schema(path).keys()
    text = [name for name in ("title", "description") if name in names]
    media = {kind: f"{kind}_path" if f"{kind}_path" in names else None for kind in ("image", "audio")}
    return {"text": text, **media}


def plain_vectors(known: Catalog, encoder: Any, catalog: Catalog, cache: Path | None) -> Embeddings:
    """The towers' vectors, each of length 1, concatenated, without standardisation."""
    towers = {m: t for m, t in encoder.towers.items() if m != "audio"}
    features = tower_features(catalog, towers, cache=cache)
    parts = []
    for modality, values in features.values.items():
        part = np.zeros((len(features), values.shape[1]), dtype=np.float32)
        part[features.present[modality]] = values / np.linalg.norm(values, axis=1, keepdims=True)
        parts.append(part)
    return Embeddings(features.item_ids, np.concatenate(parts, axis=1))


def versions(
    catalog: Catalog, split: Split, settings: dict[str, Any], seed: int, options: Any
) -> dict[str, Embeddings]:
    """Vectors of all items by method."""
    known = catalog.only(split.train.items)
    pairs = mine_pairs(split.train, **json.loads(options.pairs), seed=seed).filter(
        pl.col("trigger_id").is_in(known.item_ids) & pl.col("target_id").is_in(known.item_ids)
    )
    rng = np.random.default_rng([seed, 7])
    made: dict[str, Embeddings] = {}
    clicks = dict(split.train.positives().frame.group_by("item_id").len().rows())
    ways: dict[str, Callable[[], pl.DataFrame]] = {
        "aligned": lambda: pairs,
        "shuffled": lambda: shuffled(pairs, rng),
        "random": lambda: random_pairs(pairs, clicks, rng),
        "look-alike": lambda: look_alikes(pairs, made["text"]),
    }
    for name in options.ways if not options.settings else ["aligned"]:
        clock = time.perf_counter()
        encoder = align(known, ways[name](), seed=seed, cache=options.cache, **settings)
        if name == "aligned":
            made["raw"] = encoder.raw(catalog, cache=options.cache)
            made["plain"] = plain_vectors(known, encoder, catalog, options.cache)
            text = {"text": encoder.towers["text"]}
            found = tower_features(known, text, cache=options.cache)
            made["text"] = Embeddings(found.item_ids, found.values["text"])
        made[name] = encoder.embed(catalog, cache=options.cache)
        print(f"  {name}: {pairs.height:,} pairs, {time.perf_counter() - clock:.0f} s", flush=True)
    del made["text"]
    return made


def one_seed(data: Path, seed: int, options: Any, settings: dict[str, Any]) -> dict[str, Any]:
    """Rank of every later click's item by method, the user of the click, and its slices."""
    catalog, log, kind = read(data)
    if options.settings:  # as if the test part had not happened yet
        earlier = split_log(log, **kind, seed=seed)
        log = joined(earlier.train, earlier.valid)
    split = split_log(log, **kind, cold_items=options.cold, seed=seed)
    made = versions(catalog, split, settings, seed, options)
    asked = retrieval_task(joined(split.train, split.valid), split.test, catalog.item_ids)
    found = {f"places {m}": truth_ranks(asked, by_vectors(v, catalog.item_ids)) for m, v in made.items()}
    if not options.settings:
        found["places item-kNN"] = truth_ranks(asked, by_clicks(split.train, catalog.item_ids))
        deepest = max(cutoffs_of(len(catalog)).values())
        popular = by_popularity(split.train, catalog.item_ids)
        found["places popularity"] = truth_ranks(asked, popular, each=deepest)
    slices = slices_of(asked, split.train)
    found |= {f"slice {name}": slices[name] for name in ("all", "warm", "cold")}
    return found | {"users": np.array([asked.users[k] for k in asked.user_rows]), "items": len(catalog)}


def judged(data: Path, seeds: list[int], options: Any, settings: dict[str, Any]) -> Any:
    """Hit rates over all seeds; a seed with a file in the folder of cells is not computed again."""
    cells = []
    for seed in seeds:
        file = None if options.cells is None else options.cells / f"{data.resolve().name}-{seed}.npz"
        if file is None or not file.is_file():
            cell = one_seed(data, seed, options, settings)
            if file is not None:
                file.parent.mkdir(parents=True, exist_ok=True)
                np.savez_compressed(file, **cell)
        else:
            cell = dict(np.load(file))
        cells.append(cell)

    def merged(kind: str) -> dict[str, Any]:
        names = [name for name in cells[0] if name.startswith(kind)]
        return {n.removeprefix(kind): np.concatenate([cell[n] for cell in cells]) for n in names}

    users = np.concatenate([cell["users"] for cell in cells])
    return hit_rates(
        merged("places "),
        np.unique(users, return_inverse=True)[1],
        slices=merged("slice "),
        cutoffs=cutoffs_of(int(cells[0]["items"])),
    )


# ---- tables -----------------------------------------------------------------------------------------


def show(result: Any) -> None:
    for k, part in enumerate(result.slices):
        print(f"\n{part}: {result.clicks[k]:,} later clicks of {result.users[k]:,} users, all seeds\n")
        print("| | " + " | ".join(CUTOFFS) + " |\n|---|" + "---|" * len(CUTOFFS))
        rows = {entry["method"]: entry["hit_rate"] for entry in result.table() if entry["slice"] == part}
        for method, rates in rows.items():
            print(f"| {method} | " + " | ".join(f"{rates[c]:.4f}" for c in CUTOFFS) + " |")
        for against in [m for m in ("raw", "plain", "shuffled", "random", "look-alike") if m in rows]:
            entries = [e for e in result.differences("aligned", against) if e["slice"] == part]
            cells = []
            for cut in CUTOFFS:
                entry = next(e for e in entries if e["cutoff"] == cut)
                low, high = entry["ratio_interval"] or (float("nan"), float("nan"))
                ratio = entry["ratio"]
                cells.append(f"{ratio:.2f} [{low:.2f}, {high:.2f}]" if ratio is not None else "-")
            print(f"| aligned over {against} | " + " | ".join(cells) + " |")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data", type=Path)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    parser.add_argument("--cold", type=float, default=0.1, help="share of items that training never sees")
    parser.add_argument("--encoder", default="{}", help="encoder settings, JSON")
    parser.add_argument("--pairs", default="{}", help="mining settings, JSON")
    parser.add_argument("--try", dest="settings", nargs="+", default=[], help="settings to judge, JSON each")
    parser.add_argument("--cache", type=Path, help="folder of tower features")
    parser.add_argument("--cells", type=Path, help="folder where finished seeds are kept")
    parser.add_argument("--ways", nargs="+", default=WAYS, help="aligned, and the controls to train")
    options = parser.parse_args()
    base = json.loads(options.encoder)
    if options.settings:
        for text in options.settings:
            result = judged(options.data, options.seeds[:1], options, base | json.loads(text))
            rates = {(e["method"], e["slice"]): e["hit_rate"] for e in result.table()}
            line = "  ".join(
                f"{part}@{cut} {rates['aligned', part][cut]:.4f}, "
                f"{rates['aligned', part][cut] / rates['raw', part][cut]:.2f} x raw"
                for part in ("all", "cold")
                for cut in ("50", "200")
            )
            print(f"{text}: {line}", flush=True)
        return
    clock = time.perf_counter()
    show(judged(options.data, options.seeds, options, base))
    print(f"\n{time.perf_counter() - clock:.0f} s")


if __name__ == "__main__":
    main()
