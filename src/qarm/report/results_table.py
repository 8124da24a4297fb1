"""The results as a table for the terminal and for Markdown."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from qarm.core.atomic_io import read_json

__all__ = ["result_lines", "results_table"]

COLUMNS = (
    ("AUC", "all", "auc"),
    ("UAUC", "all", "uauc"),
    ("GAUC", "all", "gauc"),
    ("logloss", "all", "logloss"),
    ("AUC warm", "warm", "auc"),
    ("AUC cold", "cold", "auc"),
)


def results_table(run: Path) -> str:
    """The table of a finished run, from `report/summary.json`."""
    summary = read_json(run / "report" / "summary.json")
    lines = result_lines(summary)
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join(
        "  ".join(
            cell.ljust(w) if i == 0 else cell.rjust(w)
            for i, (cell, w) in enumerate(zip(line, widths, strict=True))
        )
        for line in lines
    )


def result_lines(summary: dict[str, Any]) -> list[list[str]]:
    """A header and a line per variant; a column is there when any variant has a figure for it."""
    means = {(m["variant"], m["slice"]): m for m in summary["means"]}
    variants = list(dict.fromkeys(m["variant"] for m in summary["means"]))
    columns = [c for c in COLUMNS if any(_value(means, v, c) is not None for v in variants)]
    header = ["variant", *(name for name, _, _ in columns)]
    return [header, *([v, *(_text(_value(means, v, c)) for c in columns)] for v in variants)]


def _value(means: dict[Any, Any], variant: str, column: Sequence[str]) -> float | None:
    entry = means.get((variant, column[1]), {})
    value: float | None = entry.get(column[2])
    return value


def _text(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"
