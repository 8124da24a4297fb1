"""Writes the tables of docs/results.md and docs/results/ from finished comparisons; types nothing in.

    python benchmarks/results.py movielens=runs/movielens beauty=runs/beauty office=runs/office

Each run folder comes from `qarm compare`. What stands between `<!-- name -->` and `<!-- /name -->` in
docs/results.md is replaced, and docs/results/<name>.md holds every table of that run.
"""

import argparse
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from qarm.comparison.answers import answers
from qarm.comparison.tables import tables
from qarm.core.atomic_io import read_json, write_text
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
        results = read_json(Path(run) / "compare" / "results.json")
        timing = read_json(Path(run) / "compare" / "timing.json")
        text = put(text, name, "\n\n".join(section(name, results, timing)))
        write_text(FULL / f"{name}.md", f"# {name}: every table\n\n{tables(results)}")
    write_text(PAGE, text)


def section(name: str, results: dict[str, Any], timing: dict[str, Any]) -> Iterator[str]:
    """What a reader wants of one data set, and where the rest stands."""
    found = results["primary"]
    yield (
        f"{len(results['seeds'])} seeds, {timing['seconds'] / 60:.0f} minutes, threads: {timing['threads']}, "
        f"{timing['processor']}. The smallest effect that this set could show: "
        f"{found['smallest_effect']:.4f} of GAUC. **Primary: {found['method']} minus {found['against']}, "
        f"{gain(found)}.** Every slice and variant: [results/{name}.md](results/{name}.md)."
    )
    yield "\n".join(
        [
            "| question | compared | GAUC, 95 % interval | answer |",
            "|---|---|---|---|",
            *(f"| {a.text} | {a.compared} | {gain(a.difference)} | {a.word} |" for a in answers(results)),
        ]
    )
    for negatives in dict.fromkeys(entry["negatives"] for entry in results["means"]):
        yield slices(results, negatives, found["against"])
    yield catalogue(results["catalogue"])


def slices(results: dict[str, Any], negatives: str, base: str) -> str:
    """GAUC of every method and slice; over all items also the difference from the base."""
    means = [entry for entry in results["means"] if entry["negatives"] == negatives]
    parts = list(dict.fromkeys(entry["slice"] for entry in means))
    value = {(entry["method"], entry["slice"]): entry["gauc"] for entry in means}
    gains = {
        d["method"]: d
        for d in results["differences"]
        if (d["negatives"], d["slice"], d["measure"], d["against"]) == (negatives, "all", "gauc", base)
    }
    lines = [
        f"| GAUC ({negatives}) | {' | '.join(parts)} | all minus `{base}` |",
        "|---|" + "---:|" * len(parts) + "---|",
    ]
    for method in dict.fromkeys(entry["method"] for entry in means):
        cells = [cell(value.get((method, part))) for part in parts]
        lines.append(f"| {method} | {' | '.join(cells)} | {gain(gains.get(method))} |")
    return "\n".join(lines)


def catalogue(entries: Sequence[dict[str, Any]]) -> str:
    figures = [name for name in entries[0] if name != "method"]
    lines = [f"| whole catalogue, at 10 | {' | '.join(figures)} |", "|---|" + "---:|" * len(figures)]
    lines += [f"| {e['method']} | {' | '.join(cell(e[name]) for name in figures)} |" for e in entries]
    return "\n".join(lines)


def cell(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"


def gain(found: Any) -> str:
    return "" if found is None else f"{found['mean']:+.4f} [{found['low']:+.4f}, {found['high']:+.4f}]"


if __name__ == "__main__":
    main()
