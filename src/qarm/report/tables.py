"""Tables of the report as lines of texts: results by variant, pairs, codes, vectors, and figures by name."""

from collections.abc import Sequence

from qarm.core.text_tables import figure_text, interval_text, percent_text
from qarm.report.labels import label
from qarm.schemas.codes import CodeQuality
from qarm.schemas.encoder import Card, EmbeddingQuality, Neighbours
from qarm.schemas.pairs import PairQuality
from qarm.schemas.results import Mean, Summary

__all__ = [
    "agreement_lines",
    "collision_lines",
    "gain_lines",
    "geometry_lines",
    "hit_lines",
    "leaves",
    "level_lines",
    "named_figures",
    "neighbour_cards",
    "pair_lines",
    "result_lines",
]

COLUMNS = (
    ("AUC", "all", "auc"),
    ("UAUC", "all", "uauc"),
    ("GAUC", "all", "gauc"),
    ("logloss", "all", "logloss"),
    ("AUC warm", "warm", "auc"),
    ("AUC cold", "cold", "auc"),
)
LEVELS = ("level", "width", "used", "utilisation", "entropy", "perplexity", "gini", "energy_left")

Lines = list[list[str]]


# ---- results ------------------------------------------------------------------------------------


def result_lines(summary: Summary) -> Lines:
    """A header and a row per variant; a column is shown when any variant has a figure for it."""
    means = {(mean.variant, mean.slice): mean for mean in summary.means}
    variants = list(dict.fromkeys(mean.variant for mean in summary.means))
    columns = [c for c in COLUMNS if any(_value(means.get((v, c[1])), c[2]) is not None for v in variants)]
    rows = [
        [v, *(figure_text(_value(means.get((v, part)), metric)) for _, part, metric in columns)]
        for v in variants
    ]
    return [["variant", *(name for name, _, _ in columns)], *rows]


def _value(mean: Mean | None, metric: str) -> float | None:
    value: float | None = getattr(mean, metric, None)
    return value


# ---- pairs and codes ----------------------------------------------------------------------------


def pair_lines(quality: PairQuality) -> Lines:
    """A header and a row per source of pairs."""
    lines = [["source", "pairs", "items", "share of items", "lift", "lift, equally popular", "same category"]]
    for name, source in quality.sources.items():
        lift, category = source.lift, source.category
        lines.append(
            [
                label(name),
                _text(source.pairs),
                _text(source.items),
                percent_text(source.items_share),
                interval_text(lift.lift, lift.lift_interval, form=".2f") if lift else "-",
                interval_text(lift.matched_lift, lift.matched_lift_interval, form=".2f") if lift else "-",
                percent_text(category.same) if category else "-",
            ]
        )
    return lines


def level_lines(quality: CodeQuality) -> Lines:
    """A header and a row per level of codes."""
    rows = [[_text(getattr(level, name)) for name in LEVELS] for level in quality.levels]
    return [[label(name) for name in LEVELS], *rows]


def collision_lines(quality: CodeQuality) -> Lines:
    """A header and a row per number of items that share a full code."""
    histogram = quality.full_codes.items_per_code.histogram
    return [["items with one full code", "full codes"], *([n, _text(c)] for n, c in histogram.items())]


def agreement_lines(quality: CodeQuality) -> Lines:
    """A header and a row per number of levels on which the items of a pair may have equal codes."""
    agreement = quality.pairs.agreement if quality.pairs else []
    rows = [[f"first {a.levels}", percent_text(a.share), percent_text(a.chance)] for a in agreement]
    return [["same codes on the", "pairs", "by chance"], *rows]


# ---- vectors before and after alignment ---------------------------------------------------------


def hit_lines(quality: EmbeddingQuality) -> Lines:
    """A header and a row per slice and method; vectors without a modality for all clicks only."""
    lines = [["slice", "method", "clicks", *(f"HitRate@{cutoff}" for cutoff in quality.cutoffs)]]
    for name, counts in quality.slices.items():
        for row in quality.hit_rates:
            if row.slice != name or not counts.clicks or (name != "all" and "," in row.method):
                continue
            rates = [percent_text(row.hit_rate[cutoff], unit="") for cutoff in quality.cutoffs]
            lines.append([name, row.method, f"{counts.clicks:,}", *rates])
    return lines


def gain_lines(quality: EmbeddingQuality) -> Lines:
    """A header and a row per difference that was measured."""
    lines = [["method", "against", "slice", "cut-off", "difference", "ratio"]]
    for row in quality.differences:
        if row.difference is None or ("," in row.method and row.slice != "all"):
            continue
        interval = row.difference_interval and [100.0 * end for end in row.difference_interval]
        gap = interval_text(100.0 * row.difference, interval, form="+.2f")
        ratio = interval_text(row.ratio, row.ratio_interval, form=".2f")
        lines.append([row.method, row.against, row.slice, row.cutoff, gap, ratio])
    return lines


def geometry_lines(quality: EmbeddingQuality) -> Lines:
    """A header and a row per version of the vectors: recall of held-out pairs, alignment, uniformity."""
    recall = quality.pairs.recall
    cutoffs = list(next(iter(recall.values())))
    lines = [["version", *(f"pair recall@{cutoff}" for cutoff in cutoffs), "alignment", "uniformity"]]
    for name, geometry in quality.geometry.items():
        shares = [percent_text(recall[name][cutoff], unit="") for cutoff in cutoffs]
        figures = [figure_text(value, form=".3f") for value in (geometry.alignment, geometry.uniformity)]
        lines.append([name, *shares, *figures])
    return lines


def neighbour_cards(neighbours: Neighbours) -> list[dict[str, list[tuple[str, Card]]]]:
    """For each example item its id and card, and those of its nearest items before and after alignment."""
    return [
        {
            side: [(item, neighbours.cards[item]) for item in items]
            for side, items in (("item", [entry.item]), ("raw", entry.raw), ("aligned", entry.aligned))
        }
        for entry in neighbours.items
    ]


# ---- any JSON -----------------------------------------------------------------------------------


def named_figures(content: object) -> list[tuple[str, str]]:
    """Numbers and short texts of nested JSON, each with its name in words."""
    return [(label(key), text) for key, text in leaves(content)]


def leaves(content: object, prefix: str = "") -> list[tuple[str, str]]:
    """Numbers and short texts of nested JSON as (dotted name, text) lines."""
    if isinstance(content, dict):
        return [
            line for key, value in content.items() for line in leaves(value, f"{prefix}.{key}".strip("."))
        ]
    if isinstance(content, list):
        return [(prefix, ", ".join(_text(value) for value in content))] if _is_short(content) else []
    return [(prefix, _text(content))]


def _is_short(values: Sequence[object]) -> bool:
    return len(values) <= 12 and not any(isinstance(value, dict | list) for value in values)


def _text(value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    return figure_text(value, form=".4g") if value is None or isinstance(value, float) else str(value)
