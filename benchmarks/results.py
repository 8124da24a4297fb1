"""Writes the tables of docs/results.md and docs/results/ from finished comparisons; types nothing in.

    python benchmarks/results.py movielens=runs/movielens beauty=runs/beauty office=runs/office

Each run folder comes from `qarm compare`. What stands between `<!-- name -->` and `<!-- /name -->` in
docs/results.md is replaced, and docs/results/<name>.md holds every table of that run.
"""

import argparse
from collections.abc import Iterator
from pathlib import Path

from qarm.comparison.tables import answer_lines, catalogue_lines, comparison_tables, gain_text, verdict
from qarm.core.atomic_io import read_model, write_text
from qarm.core.text_tables import figure_text, markdown_table
from qarm.errors import InputError
from qarm.schemas.comparison import Compared, ComparedTiming
from readme import ROOT, put

PAGE = ROOT / "docs" / "results.md"
FULL = ROOT / "docs" / "results"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("runs", nargs="+", metavar="NAME=RUN")
    text = PAGE.read_text(encoding="utf-8")
    for name, _, run in (entry.partition("=") for entry in parser.parse_args().runs):
        results = read_model(Path(run) / "compare" / "results.json", Compared)
        timing = read_model(Path(run) / "compare" / "timing.json", ComparedTiming)
        text = put(text, name, "\n\n".join(section(name, results, timing)))
        write_text(FULL / f"{name}.md", f"# {name}: every table\n\n{comparison_tables(results)}")
    write_text(PAGE, text)


def section(name: str, results: Compared, timing: ComparedTiming) -> Iterator[str]:
    """Main figures of one data set, and where the rest stands."""
    primary = results.primary
    if primary is None:
        raise InputError(f"{name} has no primary comparison; put compare.primary among its variants")
    yield (
        f"{len(results.seeds)} seeds, {timing.seconds / 60:.0f} minutes, threads: {timing.threads}, "
        f"{timing.processor}. The smallest effect that this set could show: "
        f"{figure_text(primary.smallest_effect)} of GAUC. "
        f"**Primary: {primary.method} minus {primary.against}, "
        f"{gain_text(primary)}.** Every slice and variant: [results/{name}.md](results/{name}.md)."
    )
    yield from filter(None, [verdict(results)])
    yield markdown_table(answer_lines(results))
    for negatives in dict.fromkeys(entry.negatives for entry in results.means):
        yield slices(results, negatives, primary.against)
    table = catalogue_lines(results.catalogue, "whole catalogue, at 10")
    yield markdown_table(table, alignment=["---", *["---:"] * (len(table[0]) - 1)])


def slices(results: Compared, negatives: str, base: str) -> str:
    """GAUC of every method and slice; over all items also the difference from the base."""
    means = [entry for entry in results.means if entry.negatives == negatives]
    parts = list(dict.fromkeys(entry.slice for entry in means))
    gauc = {(entry.method, entry.slice): entry.gauc for entry in means}
    gains = {
        gain.method: gain
        for gain in results.differences
        if (gain.negatives, gain.slice, gain.measure, gain.against) == (negatives, "all", "gauc", base)
    }
    lines = [[f"GAUC ({negatives})", *parts, f"all minus `{base}`"]]
    for method in dict.fromkeys(entry.method for entry in means):
        figures = [figure_text(gauc.get((method, part))) for part in parts]
        lines.append([method, *figures, gain_text(gains.get(method))])
    return markdown_table(lines, alignment=["---", *["---:"] * len(parts), "---"])


if __name__ == "__main__":
    main()
