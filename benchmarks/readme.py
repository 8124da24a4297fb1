"""Measured parts of the README and of docs/: results, ten rows of each output, a line for each folder.

    make demo demo-proof && .venv/bin/python benchmarks/readme.py

The text between `<!-- name -->` and `<!-- /name -->` is replaced. The line of a folder is the first line
of its package's docstring, or the line that the README has already.
"""

import argparse
import ast
import json
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import polars as pl

ROOT = Path(__file__).parent.parent
README = ROOT / "README.md"
OUTPUTS = ROOT / "docs" / "outputs.md"
DEMO = ROOT / "docs" / "demo.md"
TABLES = {
    "pairs/pairs.parquet": "pairs",
    "embeddings/embeddings.parquet": "vectors after alignment (`raw.parquet`: before)",
    "codes/codes.parquet": "codes",
    "codes/pool.parquet": "item of each number in `vq`",
    "recommender/eval.parquet": "evaluation rows, the same for every variant",
}
SHOWN = 10
CODES, PLACEBO = "id+rq+vq", "id+rq+vq@placebo"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--run", type=Path, default=ROOT / "runs" / "demo")
    parser.add_argument("--proof", type=Path, default=ROOT / "runs" / "demo-proof")
    parser.add_argument(
        "--real", type=Path, nargs="*", default=[], help="runs of `qarm compare` on real data"
    )
    arguments = parser.parse_args()
    if (arguments.proof / "proof.md").is_file():
        put(DEMO, "proof", (arguments.proof / "proof.md").read_text(encoding="utf-8").strip())
    if arguments.run.is_dir():
        put(OUTPUTS, "rows", "\n\n".join(outputs(arguments.run)))
    if arguments.real:
        put(README, "real", real(arguments.real))
    put(README, "tree", tree(README.read_text(encoding="utf-8")))


def put(page: Path, name: str, content: str) -> None:
    """Replace the part `name` of the page."""
    start, end = f"<!-- {name} -->", f"<!-- /{name} -->"
    before, rest = page.read_text(encoding="utf-8").split(start)
    page.write_text(f"{before}{start}\n{content}\n{end}{rest.split(end)[1]}", encoding="utf-8")


def real(runs: list[Path]) -> str:
    """A row for each comparison: GAUC of `id`, and differences to it with their intervals."""
    lines = [
        "| data | GAUC of `id` | codes: `id+rq+vq` minus `id` | cold items | placebo minus `id` |",
        "|---|---:|---:|---:|---:|",
    ]
    for run in runs:
        results = json.loads((run / "compare" / "results.json").read_text())
        negatives = results["means"][0]["negatives"]
        gains = {
            (d["method"], d["slice"]): f"{d['mean']:+.4f} [{d['low']:+.4f}, {d['high']:+.4f}]"
            for d in results["differences"]
            if (d["negatives"], d["measure"], d["against"]) == (negatives, "gauc", "id")
        }
        means = {
            (m["method"], m["slice"]): m["gauc"] for m in results["means"] if m["negatives"] == negatives
        }
        cells = [gains[CODES, "all"], gains[CODES, "cold"], gains[PLACEBO, "all"]]
        lines.append(f"| {run.name} | {means['id', 'all']:.4f} | {' | '.join(cells)} |")
    return "\n".join(lines)


def outputs(run: Path) -> Iterator[str]:
    for name, what in TABLES.items():
        yield block(f"`{name}`: {what}", pl.read_parquet(run / name).head(SHOWN))
    rows = json.loads((run / "recommender" / "results.json").read_text())["rows"]
    yield block("`recommender/results.json`: a row per variant, seed and slice", pl.DataFrame(rows[:SHOWN]))
    levels = json.loads((run / "codes" / "quality.json").read_text())["levels"]
    yield block("`codes/quality.json`, its part on levels", pl.DataFrame(levels))


def block(title: str, frame: pl.DataFrame) -> str:
    lines = [frame.columns, *([cell(value) for value in row] for row in frame.iter_rows())]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    table = ["  ".join(c.ljust(w) for c, w in zip(line, widths, strict=True)).rstrip() for line in lines]
    return "\n".join([f"{title}\n", "```", *table, "```"])


def cell(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, list):
        rest = " ..." if len(value) > 6 else ""
        return f"[{' '.join(cell(part) for part in value[:6])}{rest}]"
    return str(value)


def folders() -> set[str]:
    """Folders with a file, but those of tests/ that mirror a folder of src/qarm/."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
    listing = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout
    names = {Path(name).parent.as_posix() for name in listing.split() if (ROOT / name).is_file()} - {"."}
    mirrored = {name.replace("src/qarm/", "tests/", 1) for name in names if name.startswith("src/qarm/")}
    return names - mirrored


def tree(readme: str) -> str:
    known = dict(re.findall(r"^(\S+)/\s{2,}(\S.*)$", readme.split("<!-- tree -->")[1], flags=re.M))
    names = sorted(folders(), key=lambda name: Path(name).parts)
    width = max(map(len, names)) + 3
    return "\n".join(["```", *(f"{name + '/':{width}}{described(name, known)}" for name in names), "```"])


def described(name: str, known: dict[str, str]) -> str:
    package = ROOT / name / "__init__.py"
    if not package.is_file():
        return known[name]
    docstring = ast.get_docstring(ast.parse(package.read_text(encoding="utf-8")))
    return (docstring or known[name]).split("\n")[0].rstrip(".")


if __name__ == "__main__":
    main()
