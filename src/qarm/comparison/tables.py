"""Markdown tables of the comparison: means by slice, differences with intervals, answers to questions."""

from collections.abc import Sequence

from qarm.comparison.questions import answered, gains_by_key
from qarm.core.text_tables import figure_text, interval_text, markdown_table
from qarm.schemas.comparison import (
    Answered,
    CatalogueFigures,
    CatalogueGain,
    Compared,
    Estimate,
    Gain,
    Means,
    Searched,
)

__all__ = [
    "answer_lines",
    "catalogue_lines",
    "comparison_summary",
    "comparison_tables",
    "gain_text",
    "verdict",
]

MEASURES = ("auc", "logloss", "calibration")
FIRST_KINDS = ("labels", "uniform")  # negatives of the test rows that need no mention


def comparison_tables(results: Compared) -> str:
    """The primary comparison, the questions answered, means by slice, and differences in GAUC."""
    left_out = f"Anchors left out: {'; '.join(results.left_out)}." if results.left_out else ""
    parts = [verdict(results), _primary(results), _answers(results), _search(results), left_out]
    for kind in dict.fromkeys(entry.negatives for entry in results.means):
        means = [entry for entry in results.means if entry.negatives == kind]
        for part in dict.fromkeys(entry.slice for entry in means):
            rows = [entry for entry in means if entry.slice == part]
            parts += [f"### {part} ({kind})", _means(rows), _gains(results, kind, part)]
    parts += ["### The whole catalogue, at 10", markdown_table(catalogue_lines(results.catalogue))]
    parts += [_gains(results, "catalogue", part, "recall") for part in ("recall", "recall of cold items")]
    parts += _retrieval(results)
    return "\n\n".join(part for part in parts if part) + "\n"


def _retrieval(results: Compared) -> list[str]:
    """Retrieval arms: means, and differences with their intervals."""
    if results.retrieval is None:
        return []
    means, gains = results.retrieval.means, results.retrieval.differences
    names = list(means[0].figures)
    rows = [[entry.method, *(figure_text(entry.figures.get(name)) for name in names)] for entry in means]
    pairs = list(dict.fromkeys((gain.method, gain.against) for gain in gains))
    found = {(gain.figure, gain.method, gain.against): gain for gain in gains}
    differences = [
        [f"{method} minus {base}", *(gain_text(found.get((name, method, base))) for name in names)]
        for method, base in pairs
    ]
    return [
        "### Retrieval over the whole catalogue",
        markdown_table([["", *names], *rows]),
        markdown_table([["95 % over users and seeds", *names], *differences]),
    ]


def comparison_summary(results: Compared) -> str:
    """The primary comparison and the means over all items."""
    first = results.means[0]
    rows = [m for m in results.means if (m.negatives, m.slice) == (first.negatives, first.slice)]
    return "\n\n".join(part for part in (verdict(results), _primary(results), _means(rows)) if part)


def verdict(results: Compared) -> str:
    """The set cannot support the claim where an anchor is ahead of a variant; nothing where none is."""
    if not results.anchors_ahead:
        return ""
    losses = "; ".join(
        f"{gain.method} is ahead of {gain.against} by {gain_text(gain)} ({gain.negatives})"
        for gain in results.anchors_ahead
    )
    return f"**This set cannot support the claim.** On warm items, in GAUC: {losses}."


def answer_lines(results: Compared) -> list[list[str]]:
    """A header and a row per question and kind of negatives."""
    gains = gains_by_key(results.differences)
    rows = [
        [
            answer.question,
            _compared(answer),
            gain_text(gain := gains[answer.negatives, answer.method, answer.against, answer.slice]),
            _item_text(gain),
            figure_text(gain.smallest_effect),
            answer.word,
        ]
        for answer in results.answers or answered(results.differences)
    ]
    over = "users and seeds" if _two_way(results) else "users alone"
    header = [
        "question",
        "compared",
        f"GAUC, 95 % over {over}",
        "over items too",
        "smallest effect",
        "answer",
    ]
    return [header, *rows]


def catalogue_lines(entries: Sequence[CatalogueFigures], title: str = "") -> list[list[str]]:
    """A header and a row per method: recall and NDCG over the whole catalogue."""
    rows = [[e.method, *(figure_text(value) for value in e.figures().values())] for e in entries]
    return [[title, *entries[0].figures()], *rows]


def gain_text(gain: Estimate | None) -> str:
    """A difference with its interval; nothing where there is none."""
    return "" if gain is None else interval_text(gain.mean, gain.interval, form="+.4f")


def _compared(answer: Answered) -> str:
    part = "" if answer.slice == "all" else f", {answer.slice} items"
    kind = "" if answer.negatives in FIRST_KINDS else f", {answer.negatives} negatives"
    return f"{answer.method} minus {answer.against}{part}{kind}"


def _item_text(gain: Gain) -> str:
    if gain.item_low is None or gain.item_high is None:
        return ""
    return f"[{gain.item_low:+.4f}, {gain.item_high:+.4f}]"


def _two_way(results: Compared) -> bool:
    """Whether the intervals are over users and seeds; an earlier qarm resampled users alone."""
    return any(gain.df is not None for gain in results.differences)


def _primary(results: Compared) -> str:
    primary = results.primary
    if primary is None:
        return ""
    falls = [name for name, significant in results.holm.items() if not significant]
    stand = len(results.holm) - len(falls)
    return (
        f"Primary: {primary.method} minus {primary.against}, GAUC, all items: {gain_text(primary)}; "
        f"the smallest effect that this set could show is {figure_text(primary.smallest_effect)}. "
        f"{len(results.seeds)} seeds, protocol edition {results.edition}, intervals over "
        f"{'users and seeds' if _two_way(results) else 'users alone'}.\n\n"
        f"Of {len(results.holm)} other differences in GAUC over all items {stand} stand at 5 % after "
        f"Holm's correction; these do not: {'; '.join(falls) or 'none'}."
    )


def _answers(results: Compared) -> str:
    lines = answer_lines(results)
    if len(lines) == 1:
        return ""
    note = f"yes, no: at 5 % after Holm's correction over these {len(lines) - 1} questions"
    return f"{markdown_table(lines)}\n\n{note}"


def _search(results: Compared) -> str:
    """What was searched, for all variants or for each family, with its budget."""
    if results.search is not None:
        return _searched("all variants", results.search)
    return "\n\n".join(_searched(f"`{family}`", search) for family, search in results.searches.items())


def _searched(family: str, search: Searched) -> str:
    chosen = ", ".join(f"{name} {value:g}" for name, value in search.chosen.items())
    grid = "; ".join(f"{name} {', '.join(f'{v:g}' for v in values)}" for name, values in search.grid.items())
    return (
        f"Ranker settings of {family}, searched on validation of the first seed"
        f"{''.join(f' for {name}' for name in search.variants)}: {chosen}; "
        f"{len(search.rounds[0])} settings of the grid ({grid}), {search.variant_epochs} epochs trained in "
        f"{len(search.rounds)} rounds of successive halving."
        f"{f' On an edge of the grid: {edges}.' if (edges := ', '.join(search.edges)) else ''}"
    )


def _means(entries: Sequence[Means]) -> str:
    size = f"{entries[0].rows:,} rows, {entries[0].users:,} users"
    lines = [[size, "GAUC (spread over seeds)", "uauc", *MEASURES]]
    for entry in entries:
        spread = "" if entry.gauc_spread is None else f" ({entry.gauc_spread:.4f})"
        rest = (entry.uauc, entry.auc, entry.logloss, entry.calibration)
        lines.append([entry.method, f"{entry.gauc:.4f}{spread}", *(figure_text(value) for value in rest)])
    return markdown_table(lines)


def _gains(results: Compared, kind: str, part: str, measure: str = "gauc") -> str:
    gains: list[Gain | CatalogueGain] = [
        gain
        for gain in results.differences
        if (gain.negatives, gain.slice, gain.measure) == (kind, part, measure)
    ]
    if not gains:
        return ""
    bases = list(dict.fromkeys(gain.against for gain in gains))
    lines = [[f"{'GAUC' if measure == 'gauc' else part} minus that of", *bases]]
    for method in dict.fromkeys(gain.method for gain in gains):
        cells = {gain.against: gain_text(gain) for gain in gains if gain.method == method}
        lines.append([method, *(cells.get(base, "") for base in bases)])
    return markdown_table(lines)
