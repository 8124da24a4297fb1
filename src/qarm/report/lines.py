"""JSON as lines of tables: pairs by source, codes by level, collisions, and any other figures by name."""

from collections.abc import Mapping
from typing import Any

__all__ = ["agreement_lines", "collision_lines", "leaves", "level_lines", "pair_lines"]

LEVELS = ("level", "width", "used", "utilisation", "entropy", "perplexity", "gini", "energy_left")


def pair_lines(quality: Mapping[str, Any]) -> list[list[str]]:
    """A header and a line per source of pairs."""
    lines = [["source", "pairs", "items", "share of items", "lift", "lift, equally popular", "same category"]]
    for name, found in quality["sources"].items():
        lift, category = found.get("lift") or {}, found.get("category") or {}
        lines.append(
            [
                name,
                _text(found["pairs"]),
                _text(found["items"]),
                _percent(found["items_share"]),
                _spread(lift.get("lift"), lift.get("lift_interval")),
                _spread(lift.get("matched_lift"), lift.get("matched_lift_interval")),
                _percent(category.get("same")),
            ]
        )
    return lines


def level_lines(quality: Mapping[str, Any]) -> list[list[str]]:
    """A header and a line per level of codes."""
    rows = [[_text(level[key]) for key in LEVELS] for level in quality["levels"]]
    return [[key.replace("_", " ") for key in LEVELS], *rows]


def collision_lines(quality: Mapping[str, Any]) -> list[list[str]]:
    """A header and a line per number of items that share a full code."""
    histogram = quality["full_codes"]["items_per_code"]["histogram"]
    return [["items with one full code", "full codes"], *([n, _text(c)] for n, c in histogram.items())]


def agreement_lines(quality: Mapping[str, Any]) -> list[list[str]]:
    """A header and a line per number of levels on which the items of a pair may agree."""
    agreement = (quality.get("pairs") or {}).get("agreement", [])
    rows = [[f"first {a['levels']}", _percent(a["share"]), _percent(a["chance"])] for a in agreement]
    return [["same codes on the", "pairs", "by chance"], *rows]


def leaves(content: Any, prefix: str = "") -> list[tuple[str, str]]:
    """Numbers and short texts of nested JSON as (dotted name, text) lines."""
    if isinstance(content, dict):
        return [
            line for key, value in content.items() for line in leaves(value, f"{prefix}.{key}".strip("."))
        ]
    if isinstance(content, list):
        return [(prefix, ", ".join(_text(value) for value in content))] if _flat(content) else []
    return [(prefix, _text(content))]


def _flat(values: list[Any]) -> bool:
    return len(values) <= 12 and not any(isinstance(value, dict | list) for value in values)


def _text(value: Any) -> str:
    if isinstance(value, bool) or value is None:
        return {True: "yes", False: "no", None: "-"}[value]
    if isinstance(value, float):
        return f"{value:.4g}"
    return f"{value:,}" if isinstance(value, int) else str(value)


def _percent(share: float | None) -> str:
    return "-" if share is None else f"{100 * share:.2f} %"


def _spread(value: float | None, interval: list[float] | None) -> str:
    if value is None:
        return "-"
    return f"{value:.2f}" if interval is None else f"{value:.2f} [{interval[0]:.2f}, {interval[1]:.2f}]"
