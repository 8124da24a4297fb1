"""How far codes go from ids to the planted truth, on a demo world that `qarm compare` has finished.

    qarm compare examples/demo.yaml --data.root WORLD --out RUN
    python benchmarks/planted.py examples/demo.yaml --root WORLD --out RUN

On each slice: GAUC of the planted truth, and the share of the gap
between `id` and the truth that each variant recovers, users resampled (95 %). With `--into NAME` the table
also takes the place of what stands between `<!-- planted-NAME -->` and `<!-- /planted-NAME -->` in
docs/results.md.
"""

import argparse
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from qarm.comparison.bootstrap import Judge
from qarm.comparison.code_sources import Sources
from qarm.comparison.results import slices_of
from qarm.comparison.seed_run import Seed
from qarm.comparison.variants import DEFAULT, parse_variant
from qarm.comparison.windows import cut
from qarm.config import load_config
from qarm.core.atomic_io import read_json, write_text
from qarm.data.run_inputs import Run
from qarm.demo import true_scores
from qarm.recommender.examples import Examples
from qarm.recommender.metrics import grouped_auc
from readme import put
from results import PAGE, cell, gain

TRUTH, KIND = "planted truth", "uniform"
SLICES = ("all", "warm", "cold")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("config", type=Path)
    parser.add_argument("--out", type=Path, required=True, help="the comparison's run folder")
    parser.add_argument("--root", type=Path, required=True, help="the world's folder")
    parser.add_argument("--base", default="id")
    parser.add_argument("--into", metavar="NAME", help="a place in docs/results.md")
    arguments = parser.parse_args()
    table = "\n".join(lines(arguments))
    print(table)
    if arguments.into:
        text = PAGE.read_text(encoding="utf-8")
        write_text(PAGE, put(text, f"planted-{arguments.into}", table))


def lines(arguments: argparse.Namespace) -> Iterator[str]:
    seeds = finished(arguments.config, arguments.out, arguments.root)
    methods = [variant.name for variant in seeds[0].variants]
    yield f"| share of the gap between `{arguments.base}` and the planted truth | {' | '.join(SLICES)} |"
    yield "|---|" + "---|" * len(SLICES)
    judges = [judge(seeds, methods, part, arguments.root) for part in SLICES]
    for method in [*methods, TRUTH]:
        shares = (gain(vars(each.recovered(method, arguments.base, TRUTH))) for each in judges)
        yield f"| {method} | {' | '.join(shares)} |"
    yield f"| GAUC of the planted truth | {' | '.join(cell(each.mean(TRUTH)) for each in judges)} |"


def finished(path: Path, out: Path, root: Path) -> list[Seed]:
    """The seeds of a comparison, for their rows and scores; nothing is trained."""
    config = load_config(path, flags={"data.root": str(root)})
    catalog, log = Run(config, out).tables
    settings = config.split.model_dump(include={"kind", "test", "valid"})
    variants = [parse_variant(name) for name in config.compare.variants or DEFAULT]
    seeds = []
    for number in read_json(out / "compare" / "results.json")["seeds"]:
        kept = {"windows": config.compare.windows, "cold_items": config.compare.cold_items}
        windows = cut(log, settings, **kept, seed=number)
        sources = Sources(catalog, windows, config, cache=None, seed=number)
        seeds.append(Seed(sources, config, out / "compare" / f"seed-{number}", variants=variants))
    return seeds


def judge(seeds: list[Seed], methods: list[str], part: str, world: Path) -> Judge:
    """Of a slice's rows with uniform negatives: every method and the truth, by user."""
    each = {method: [] for method in [*methods, TRUTH]}
    for seed in seeds:
        rows = seed.judged.test[KIND]
        chosen = slices_of(seed, rows)[part]
        scores = {method: seed.scores(method)[KIND] for method in methods} | {TRUTH: truth(rows, world)}
        for method, values in scores.items():
            each[method].append(grouped_auc(names(rows)[chosen], rows.labels[chosen], values[chosen]))
    return Judge(each, weighted=True)


def names(rows: Examples) -> np.ndarray:
    return np.asarray(rows.user_ids)[rows.users]


def truth(rows: Examples, world: Path) -> np.ndarray:
    items = [rows.item_ids[item] for item in rows.items]
    return true_scores(world, users=names(rows).tolist(), items=items).astype(np.float32)


if __name__ == "__main__":
    main()
