"""Fills the README's measured parts: the proof's table, ten rows of each output, a line per file.

    make demo demo-proof && .venv/bin/python benchmarks/readme.py

What stands between `<!-- name -->` and `<!-- /name -->` is replaced. A file's line in the tree is the
first line of its docstring, or what the README said before.
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
TABLES = {
    "pairs/pairs.parquet": "pairs",
    "embeddings/embeddings.parquet": "vectors after alignment (`raw.parquet`: before)",
    "codes/codes.parquet": "codes",
    "codes/pool.parquet": "what the numbers in `vq` mean",
    "recommender/eval.parquet": "the rows that every variant is judged on",
}
SHOWN = 10
MAIN = ("id", "id+raw", "id+frozen", "id+rq+vq", "id+rq+vq+cross", "id+rq+vq@placebo", "content-kNN")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--run", type=Path, default=ROOT / "runs" / "demo")
    parser.add_argument("--proof", type=Path, default=ROOT / "runs" / "demo-proof")
    parser.add_argument(
        "--real", type=Path, nargs="*", default=[], help="runs of `qarm compare` on real data"
    )
    arguments = parser.parse_args()
    text = README.read_text(encoding="utf-8")
    if (arguments.proof / "proof.md").is_file():
        text = put(text, "proof", (arguments.proof / "proof.md").read_text(encoding="utf-8").strip())
    if arguments.run.is_dir():
        text = put(text, "rows", "\n\n".join(outputs(arguments.run)))
    if arguments.real:
        text = put(text, "real", real(arguments.real))
    README.write_text(put(text, "tree", tree(text)), encoding="utf-8")


def put(text: str, name: str, content: str) -> str:
    start, end = f"<!-- {name} -->", f"<!-- /{name} -->"
    before, rest = text.split(start)
    return f"{before}{start}\n{content}\n{end}{rest.split(end)[1]}"


def real(runs: list[Path]) -> str:
    """Of each comparison: GAUC of the main variants, and their differences to `id` with the interval."""
    lines = [
        "| data | variant | GAUC | minus `id`, 95 % interval | minus `id`, cold items |",
        "|---|---|---:|---:|---:|",
    ]
    for run in runs:
        found = json.loads((run / "compare" / "results.json").read_text())
        kind = found["means"][0]["negatives"]
        gains = {
            (d["method"], d["slice"]): f"{d['mean']:+.4f} [{d['low']:+.4f}, {d['high']:+.4f}]"
            for d in found["differences"]
            if (d["negatives"], d["measure"], d["against"]) == (kind, "gauc", "id")
        }
        means = {(m["method"], m["slice"]): m["gauc"] for m in found["means"] if m["negatives"] == kind}
        for method in MAIN:
            if (method, "all") in means:
                shown = [gains.get((method, part), "") for part in ("all", "cold")]
                lines.append(f"| {run.name} | {method} | {means[method, 'all']:.4f} | {' | '.join(shown)} |")
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


def tree(readme: str) -> str:
    known = dict(re.findall(r"^(\S+)\s{2,}(\S.*)$", readme.split("<!-- tree -->")[1], flags=re.M))
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
    found = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout
    files = sorted((name for name in found.split() if (ROOT / name).is_file()), key=place)
    width = max(map(len, files)) + 2
    return "\n".join(["```", *(f"{name.ljust(width)}{described(name, known)}" for name in files), "```"])


def place(name: str) -> tuple[bool, tuple[str, ...]]:
    """Files of the top folder first."""
    return "/" in name, Path(name).parts


def described(name: str, known: dict[str, str]) -> str:
    if not name.endswith(".py"):
        return known[name]
    docstring = ast.get_docstring(ast.parse((ROOT / name).read_text(encoding="utf-8")))
    return (docstring or known[name]).split("\n")[0].rstrip(".")


if __name__ == "__main__":
    main()
