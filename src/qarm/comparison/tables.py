"""The comparison's figures as Markdown tables."""

from collections.abc import Mapping
from typing import Any

from qarm.comparison.answers import answers

__all__ = ["summary", "tables"]

MEASURES = ("gauc", "uauc", "auc", "logloss", "calibration")


def tables(results: Mapping[str, Any]) -> str:
    """The primary comparison, the questions answered, means by slice, and differences in GAUC."""
    parts = [_primary(results), _answers(results), _search(results)]
    kinds = dict.fromkeys(entry["negatives"] for entry in results["means"])
    for kind in kinds:
        means = [entry for entry in results["means"] if entry["negatives"] == kind]
        for part in dict.fromkeys(entry["slice"] for entry in means):
            own = [entry for entry in means if entry["slice"] == part]
            parts += [f"### {part} ({kind})", _means(own), _gains(results, kind, part)]
    parts += ["### The whole catalogue, at 10", _tops(results["catalogue"])]
    parts += [_gains(results, "catalogue", part, "recall") for part in ("recall", "recall of cold items")]
    return "\n\n".join(part for part in parts if part) + "\n"


def summary(results: Mapping[str, Any]) -> str:
    """The primary comparison and the means over all items."""
    first = results["means"][0]
    place = first["negatives"], first["slice"]
    own = [entry for entry in results["means"] if (entry["negatives"], entry["slice"]) == place]
    return f"{_primary(results)}\n\n{_means(own)}"


def _primary(results: Mapping[str, Any]) -> str:
    found = results["primary"]
    if found is None:
        return ""
    falls = [name for name, stood in results["holm"].items() if not stood]
    stand = len(results["holm"]) - len(falls)
    return (
        f"Primary: {found['method']} minus {found['against']}, GAUC, all items: {_gain(found)}; the smallest "
        f"effect that this set could show is {found['smallest_effect']:.4f}. "
        f"{len(results['seeds'])} seeds.\n\n"
        f"Of {len(results['holm'])} other differences in GAUC over all items {stand} stand at 5 % after "
        f"Holm's correction; these do not: {'; '.join(falls) or 'none'}."
    )


def _answers(results: Mapping[str, Any]) -> str:
    lines = ["| question | compared | GAUC, 95 % interval | answer |", "|---|---|---|---|"]
    lines += [f"| {a.text} | {a.compared} | {_gain(a.difference)} | {a.word} |" for a in answers(results)]
    return "\n".join(lines) if len(lines) > 2 else ""


def _search(results: Mapping[str, Any]) -> str:
    found = results.get("search")
    if found is None:
        return ""
    first = found["rounds"][0]
    chosen = ", ".join(f"{name} {value:g}" for name, value in found["chosen"].items())
    grid = "; ".join(
        f"{name} {', '.join(f'{v:g}' for v in values)}" for name, values in found["grid"].items()
    )
    return (
        f"Ranker settings of all variants, searched on validation of the first seed: {chosen}; "
        f"{len(first)} settings of the grid ({grid}), {found['variant_epochs']} epochs trained in "
        f"{len(found['rounds'])} rounds of successive halving."
    )


def _means(entries: list[dict[str, Any]]) -> str:
    size = f"{entries[0]['rows']:,} rows, {entries[0]['users']:,} users"
    lines = [
        f"| {size} | GAUC (spread over seeds) | {' | '.join(MEASURES[1:])} |",
        "|---|---|---|---|---|---|",
    ]
    for entry in entries:
        spread = "" if entry["gauc_spread"] is None else f" ({entry['gauc_spread']:.4f})"
        rest = " | ".join("-" if entry[m] is None else f"{entry[m]:.4f}" for m in MEASURES[1:])
        lines.append(f"| {entry['method']} | {entry['gauc']:.4f}{spread} | {rest} |")
    return "\n".join(lines)


def _tops(entries: list[dict[str, Any]]) -> str:
    figures = [name for name in entries[0] if name != "method"]
    lines = ["| | " + " | ".join(figures) + " |", "|---" * (1 + len(figures)) + "|"]
    lines += [
        f"| {e['method']} | " + " | ".join(f"{e[name]:.4f}" for name in figures) + " |" for e in entries
    ]
    return "\n".join(lines)


def _gains(results: Mapping[str, Any], kind: str, part: str, measure: str = "gauc") -> str:
    own = [
        d
        for d in results["differences"]
        if (d["negatives"], d["slice"], d["measure"]) == (kind, part, measure)
    ]
    if not own:
        return ""
    bases = list(dict.fromkeys(d["against"] for d in own))
    what = "GAUC" if measure == "gauc" else part
    lines = [f"| {what} minus that of | " + " | ".join(bases) + " |", "|---|" + "---|" * len(bases)]
    for method in dict.fromkeys(d["method"] for d in own):
        cells = {d["against"]: _gain(d) for d in own if d["method"] == method}
        lines.append(f"| {method} | " + " | ".join(cells.get(base, "") for base in bases) + " |")
    return "\n".join(lines)


def _gain(found: Mapping[str, Any]) -> str:
    return f"{found['mean']:+.4f} [{found['low']:+.4f}, {found['high']:+.4f}]"
