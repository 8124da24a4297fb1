"""Vectors before and after alignment as lines of tables, from `embeddings/quality.json`."""

from typing import Any

__all__ = ["gain_lines", "gallery", "geometry_lines", "hit_lines"]


def hit_lines(quality: dict[str, Any]) -> list[list[str]]:
    """A header and a line per slice and method; versions with hidden modalities for all clicks only."""
    cutoffs = list(quality["cutoffs"])
    lines = [["slice", "method", "clicks", *(f"HitRate@{cutoff}" for cutoff in cutoffs)]]
    for name, counts in quality["slices"].items():
        for row in quality["hit_rates"]:
            if row["slice"] != name or not counts["clicks"] or (name != "all" and "," in row["method"]):
                continue
            rates = [_percent(row["hit_rate"][cutoff]) for cutoff in cutoffs]
            lines.append([name, row["method"], f"{counts['clicks']:,}", *rates])
    return lines


def gain_lines(quality: dict[str, Any]) -> list[list[str]]:
    """A header and a line per difference that has one."""
    lines = [["method", "against", "slice", "cut-off", "difference", "ratio"]]
    for row in quality["differences"]:
        if row["difference"] is None or ("," in row["method"] and row["slice"] != "all"):
            continue
        gap = _with_interval(row["difference"], row["difference_interval"], scale=100.0, shape="{:+.2f}")
        ratio = _with_interval(row["ratio"], row["ratio_interval"], scale=1.0, shape="{:.2f}")
        lines.append([row["method"], row["against"], row["slice"], row["cutoff"], gap, ratio])
    return lines


def geometry_lines(quality: dict[str, Any]) -> list[list[str]]:
    """A header and a line per version: recall of held-out pairs, alignment, uniformity."""
    recall = quality["pairs"]["recall"]
    cutoffs = list(next(iter(recall.values())))
    lines = [["version", *(f"pair recall@{cutoff}" for cutoff in cutoffs), "alignment", "uniformity"]]
    for name, figures in quality["geometry"].items():
        shares = [_percent(recall[name][cutoff]) for cutoff in cutoffs]
        spread = [
            "-" if figures[key] is None else f"{figures[key]:.3f}" for key in ("alignment", "uniformity")
        ]
        lines.append([name, *shares, *spread])
    return lines


def gallery(neighbours: dict[str, Any]) -> list[dict[str, Any]]:
    """Items with their neighbours' cards in place of ids."""
    cards = {item: {"item": item, **card} for item, card in neighbours["cards"].items()}
    return [
        {
            "item": cards[entry["item"]],
            **{side: [cards[near] for near in entry[side]] for side in ("raw", "aligned")},
        }
        for entry in neighbours["items"]
    ]


def _percent(share: float | None) -> str:
    return "-" if share is None else f"{100 * share:.2f}"


def _with_interval(value: float | None, interval: list[float] | None, *, scale: float, shape: str) -> str:
    if value is None:
        return "-"
    text = shape.format(scale * value)
    if interval is None:
        return text
    return f"{text} [{shape.format(scale * interval[0])}, {shape.format(scale * interval[1])}]"
