"""What commands print: a line for each stage, figures, results, and the message before a bad exit."""

import json
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from qarm.core.atomic_io import read_model
from qarm.core.parallel.ranks import rank

if TYPE_CHECKING:
    from qarm.pipeline import Done

__all__ = ["fail", "figure", "print_figures", "print_results", "show_stages"]


def fail(message: str, code: int) -> NoReturn:
    """The message on standard error, and the end of the process with the exit code."""
    print(f"qarm: {message}", file=sys.stderr)
    sys.exit(code)


def show_stages(stages: Iterable["Done"], *, as_json: bool) -> None:
    """A line for each stage as it finishes."""
    fresh, quiet = True, rank() != 0  # of torchrun's processes the first one tells
    for done in stages:
        fresh &= done.fresh
        if quiet:
            continue
        if as_json:
            print(json.dumps({**vars(done), "path": str(done.path)}), flush=True)
            continue
        figures = "  ".join(f"{key}={figure(value)}" for key, value in done.rows.items())
        took = "fresh" if done.fresh else f"{done.seconds:.1f} s"
        print(f"{done.stage:<9} {done.path}  {figures}  {took}", flush=True)
    if fresh and not as_json and not quiet:
        print("nothing to do: every stage is fresh")


def figure(value: object) -> str:
    """A figure as text: thousands apart, four digits of a float."""
    if isinstance(value, int):
        return f"{value:,}"
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def print_figures(step: str, path: Path, figures: Mapping[str, object], *, as_json: bool) -> None:
    """One line: step, path and figures."""
    if as_json:
        print(json.dumps({"path": str(path), **figures}))
    else:
        print(f"{step:<9} {path}  {'  '.join(f'{key}={figure(value)}' for key, value in figures.items())}")


def print_results(out: Path) -> None:
    """Table of the results of a run, the verdict, a user's list, and where the report is."""
    from qarm.core.text_tables import aligned_table
    from qarm.report.recommendations import EXAMPLES, example_text
    from qarm.report.tables import result_lines
    from qarm.report.verdict import run_verdict, verdict_lines
    from qarm.schemas.recommendations import RecommendationExamples
    from qarm.schemas.results import Summary

    summary = read_model(out / "report" / "summary.json", Summary)
    verdict = "\n".join(verdict_lines(run_verdict(summary, out)))
    parts = [aligned_table(result_lines(summary)), verdict]
    if (path := out / "report" / EXAMPLES).is_file():  # a fresh report of an earlier version has none
        parts.append(example_text(read_model(path, RecommendationExamples)))
    print("\n" + "\n\n".join([*filter(None, parts), f"report: {out / 'report' / 'index.html'}"]))
