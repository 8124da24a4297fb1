"""Markdown tables of the comparison: means by slice, differences with intervals, answers to questions."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from qarm.core.text_tables import figure_text, interval_text, markdown_table
from qarm.schemas.comparison import CatalogueFigures, CatalogueGain, Compared, Estimate, Gain, Means

__all__ = [
    "Answer",
    "answer_lines",
    "answers",
    "catalogue_lines",
    "comparison_summary",
    "comparison_tables",
    "gain_text",
]

MEASURES = ("auc", "logloss", "calibration")


class Question(NamedTuple):
    """Whether `method` minus `against`, on a slice, is above zero."""

    text: str
    method: str
    against: str
    part: str = "all"


class Answer(NamedTuple):
    """A question, the methods compared, the difference, and yes, no or unclear.

    yes: the interval lies above zero; no: below; unclear: it contains zero.
    """

    text: str
    compared: str
    difference: Gain
    word: str


def comparison_tables(results: Compared) -> str:
    """The primary comparison, the questions answered, means by slice, and differences in GAUC."""
    parts = [_primary(results), _answers(results), _search(results)]
    for kind in dict.fromkeys(entry.negatives for entry in results.means):
        means = [entry for entry in results.means if entry.negatives == kind]
        for part in dict.fromkeys(entry.slice for entry in means):
            rows = [entry for entry in means if entry.slice == part]
            parts += [f"### {part} ({kind})", _means(rows), _gains(results, kind, part)]
    parts += ["### The whole catalogue, at 10", markdown_table(catalogue_lines(results.catalogue))]
    parts += [_gains(results, "catalogue", part, "recall") for part in ("recall", "recall of cold items")]
    return "\n\n".join(part for part in parts if part) + "\n"


def comparison_summary(results: Compared) -> str:
    """The primary comparison and the means over all items."""
    first = results.means[0]
    rows = [m for m in results.means if (m.negatives, m.slice) == (first.negatives, first.slice)]
    return f"{_primary(results)}\n\n{_means(rows)}"


def answers(results: Compared, *, negatives: str | None = None) -> list[Answer]:
    """Answers by the intervals of differences in GAUC; a question is left out where a method is missing.

    negatives: kind of negatives of the test rows; default: the first, which is the primary one.
    """
    kind = negatives or results.means[0].negatives
    gains = {
        (gain.method, gain.against, gain.slice): gain
        for gain in results.differences
        if isinstance(gain, Gain) and gain.measure == "gauc" and gain.negatives == kind
    }
    return [
        Answer(question.text, _compared(question), gain, _word(gain))
        for question in _questions()
        if (gain := gains.get((question.method, question.against, question.part)))
    ]


def answer_lines(results: Compared) -> list[list[str]]:
    """A header and a row per question."""
    rows = [[a.text, a.compared, gain_text(a.difference), a.word] for a in answers(results)]
    return [["question", "compared", "GAUC, 95 % interval", "answer"], *rows]


def catalogue_lines(entries: Sequence[CatalogueFigures], title: str = "") -> list[list[str]]:
    """A header and a row per method: recall and NDCG over the whole catalogue."""
    rows = [[e.method, *(figure_text(value) for value in e.figures().values())] for e in entries]
    return [[title, *entries[0].figures()], *rows]


def gain_text(gain: Estimate | None) -> str:
    """A difference with its interval; nothing where there is none."""
    return "" if gain is None else interval_text(gain.mean, gain.interval, form="+.4f")


def _questions(main: str = "id+rq+vq") -> Iterator[Question]:
    yield Question("Do the codes say something, beyond further parameters?", main, f"{main}@placebo")
    yield Question("Do codes beside ids beat ids alone?", main, "id")
    yield Question("Do they beat the aligned vector as a fixed input?", main, "id+frozen")
    yield Question("Do they with a search of the history by code?", f"{main}+cross", "id+frozen")
    yield Question("Do codes of aligned vectors beat those of unaligned ones?", main, f"{main}@raw")
    yield Question("Do cold items gain?", main, "id", "cold")
    yield Question("Do warm items gain?", main, "id", "warm")
    yield Question("Do codes without ids beat ids?", "rq+vq", "id")
    yield Question("Do codes lose nothing without ids?", "rq+vq", main)


def _compared(question: Question) -> str:
    part = "" if question.part == "all" else f", {question.part} items"
    return f"{question.method} minus {question.against}{part}"


def _word(gain: Gain) -> str:
    if gain.low > 0:
        return "yes"
    return "no" if gain.high < 0 else "unclear"


def _primary(results: Compared) -> str:
    primary = results.primary
    if primary is None:
        return ""
    falls = [name for name, significant in results.holm.items() if not significant]
    stand = len(results.holm) - len(falls)
    return (
        f"Primary: {primary.method} minus {primary.against}, GAUC, all items: {gain_text(primary)}; "
        f"the smallest effect that this set could show is {primary.smallest_effect:.4f}. "
        f"{len(results.seeds)} seeds.\n\n"
        f"Of {len(results.holm)} other differences in GAUC over all items {stand} stand at 5 % after "
        f"Holm's correction; these do not: {'; '.join(falls) or 'none'}."
    )


def _answers(results: Compared) -> str:
    lines = answer_lines(results)
    return markdown_table(lines) if len(lines) > 1 else ""


def _search(results: Compared) -> str:
    search = results.search
    if search is None:
        return ""
    chosen = ", ".join(f"{name} {value:g}" for name, value in search.chosen.items())
    grid = "; ".join(f"{name} {', '.join(f'{v:g}' for v in values)}" for name, values in search.grid.items())
    return (
        f"Ranker settings of all variants, searched on validation of the first seed: {chosen}; "
        f"{len(search.rounds[0])} settings of the grid ({grid}), {search.variant_epochs} epochs trained in "
        f"{len(search.rounds)} rounds of successive halving."
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
