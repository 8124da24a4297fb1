"""How far codes go from ids to the planted truth, on a demo world that `qarm compare` has finished.

    qarm compare examples/demo.yaml --data.root WORLD --out RUN
    python benchmarks/planted.py examples/demo.yaml --root WORLD --out RUN

On each slice: GAUC of the planted truth, and the share of the gap
between `id` and the truth that each variant recovers, with 95 % over users and seeds. With `--into NAME`
the table also takes the place of what stands between `<!-- planted-NAME -->` and `<!-- /planted-NAME -->` in
docs/results.md.
"""

import argparse
from pathlib import Path

import numpy as np

from qarm.comparison.compare import seed_run
from qarm.comparison.results import slices_of
from qarm.comparison.seed_run import SeedRun
from qarm.comparison.two_way_intervals import TwoWayIntervals
from qarm.comparison.variants import DEFAULT, parse_variant
from qarm.config import load_config
from qarm.core.atomic_io import read_model, write_text
from qarm.core.text_tables import figure_text, interval_text, markdown_table
from qarm.data.run_inputs import Run
from qarm.demo import true_scores
from qarm.recommender.examples import Examples
from qarm.recommender.metrics import grouped_auc
from qarm.schemas.comparison import Compared
from readme import put
from results import PAGE

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
    table = markdown_table(lines(arguments))
    print(table)
    if arguments.into:
        text = PAGE.read_text(encoding="utf-8")
        write_text(PAGE, put(text, f"planted-{arguments.into}", table))


def lines(arguments: argparse.Namespace) -> list[list[str]]:
    """A header, a row per method, and the GAUC of the planted truth."""
    seeds = finished(arguments.config, arguments.out, arguments.root)
    methods = [variant.name for variant in seeds[0].variants]
    table = [[f"share of the gap between `{arguments.base}` and the planted truth", *SLICES]]
    slices = [intervals(seeds, methods, part, arguments.root) for part in SLICES]
    for method in [*methods, TRUTH]:
        shares = [each.recovered(method, arguments.base, TRUTH) for each in slices]
        texts = [interval_text(share.mean, (share.low, share.high), form="+.4f") for share in shares]
        table.append([method, *texts])
    return [*table, ["GAUC of the planted truth", *(figure_text(each.mean(TRUTH)) for each in slices)]]


def finished(path: Path, out: Path, root: Path) -> list[SeedRun]:
    """The seeds of a comparison, for their rows and scores; nothing is trained."""
    config = load_config(path, flags={"data.root": str(root)})
    run, variants = Run(config, out), [parse_variant(name) for name in config.compare.variants or DEFAULT]
    seeds = read_model(out / "compare" / "results.json", Compared).seeds
    return [seed_run(run, out / "compare", variants, seed=seed) for seed in seeds]


def intervals(seeds: list[SeedRun], methods: list[str], part: str, world: Path) -> TwoWayIntervals:
    """Intervals over users and seeds of a slice's rows with uniform negatives: every method and the truth."""
    each = {method: [] for method in [*methods, TRUTH]}
    for seed in seeds:
        rows = seed.evaluation.test[KIND]
        chosen = slices_of(seed, rows)[part]
        scores = {method: seed.scores(method)[KIND] for method in methods} | {TRUTH: truth(rows, world)}
        for method, values in scores.items():
            each[method].append(grouped_auc(names(rows)[chosen], rows.labels[chosen], values[chosen]))
    return TwoWayIntervals(each, weighted=True)


def names(rows: Examples) -> np.ndarray:
    return np.asarray(rows.user_ids)[rows.users]


def truth(rows: Examples, world: Path) -> np.ndarray:
    items = [rows.item_ids[item] for item in rows.items]
    return true_scores(world, users=names(rows).tolist(), items=items).astype(np.float32)


if __name__ == "__main__":
    main()
