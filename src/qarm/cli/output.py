"""What commands print: a line for each stage, figures, results, and the message before a bad exit."""

import json
import logging
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from qarm.core.parallel.ranks import rank

if TYPE_CHECKING:
    from qarm.cli.arguments import Output
    from qarm.pipeline import Done
    from qarm.schemas.check import PlannedStage

__all__ = [
    "PRINTED",
    "duration",
    "fail",
    "figure",
    "print_figures",
    "print_results",
    "show_plan",
    "show_stages",
]

PRINTED = "qarm.printed"  # logger of lines that standard output has already
MINUTE, HOUR = 60.0, 3600.0


def fail(message: str, code: int) -> NoReturn:
    """The message on standard error, and the end of the process with the exit code."""
    print(f"qarm: {message}", file=sys.stderr)
    sys.exit(code)


def show_stages(stages: Iterable["Done"], output: "Output") -> None:
    """A line for each stage as it finishes; also to the log of the run."""
    fresh, first = True, rank() == 0  # of torchrun's processes the first one tells
    for done in stages:
        fresh &= done.fresh
        figures = "  ".join(f"{key}={figure(value)}" for key, value in done.rows.items())
        took = "fresh" if done.fresh else f"{done.seconds:.1f} s"
        line = f"{done.stage:<9} {done.path}  {figures}  {took}"
        logging.getLogger(PRINTED).info("%s", line)
        if first and not output.quiet:
            print(json.dumps({**vars(done), "path": str(done.path)}) if output.as_json else line, flush=True)
    if fresh and first and not (output.as_json or output.quiet):
        print("nothing to do: every stage is fresh")


def show_plan(stages: Iterable["PlannedStage"], *, as_json: bool) -> None:
    """A line for each stage: its state, the expected time, and why it would be made."""
    total, made = 0.0, False
    for plan in stages:
        total, made = total + (plan.seconds or 0.0), made or plan.state != "fresh"
        if as_json:
            print(json.dumps(plan.model_dump(mode="json")))
            continue
        about = "" if plan.seconds is None else f"about {duration(plan.seconds)}"
        print(f"{plan.stage:<9} {plan.state:<8} {about:<14} {'; '.join(plan.reasons)}".rstrip())
    if not as_json:
        print(f"expected on 2 cores, roughly: {duration(total)}" if made else "nothing to do")


def duration(seconds: float) -> str:
    """Seconds as text, in hours or minutes where it is long."""
    for unit, length in (("h", HOUR), ("min", MINUTE)):
        if seconds >= length:
            return f"{seconds / length:.1f} {unit}"
    return f"{max(seconds, 1):.0f} s"


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
    from qarm.core.atomic_io import read_model
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
