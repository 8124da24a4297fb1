"""Evaluation of rankers on the same rows, by slice."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from qarm.core.text_tables import aligned_table
from qarm.data.interactions import Log
from qarm.errors import InputError
from qarm.recommender.examples import EVAL_NEGATIVES, Examples, evaluation_rows, read_examples
from qarm.recommender.metrics import measure, prior_of
from qarm.recommender.ranking.model import Ranker, score_examples
from qarm.schemas.results import Figures

__all__ = ["SLICES", "Comparison", "compare", "evaluate", "evaluate_ranker"]

SLICES = ("all", "warm", "cold")
FIGURES = ("auc", "uauc", "gauc", "logloss")


@dataclass(frozen=True)
class Comparison:
    """Figures of one or more rankers on the same rows.

    frame: ranker str, slice str ("all", "warm", "cold"), auc, uauc, gauc, logloss f64 (null where a
    slice has one label only), rows i64, users i64 (those with both labels, whom uauc and gauc keep).
    """

    frame: pl.DataFrame

    def __str__(self) -> str:
        lines = [self.frame.columns, *([_text(value) for value in row] for row in self.frame.iter_rows())]
        return aligned_table(lines, left=2)


def compare(
    rankers: Ranker | Mapping[str, Ranker],
    future: Log,
    *,
    past: Log | None = None,
    negatives: int = EVAL_NEGATIVES,
    seed: int = 0,
) -> Comparison:
    """Comparison of rankers on events after their training.

    Where the log has positives only, each gets `negatives` items, uniform over the vocabulary, that its
    user touched neither before nor in `future`. A history is everything before the row. The label that
    decides the ranking is evaluated; `evaluate_ranker` evaluates a further one.

    Args:
        rankers: one, or several by name, with one vocabulary and one training log.
        future: the events to foretell.
        past: what came before; by default the log that the first ranker was trained on.

    Raises:
        InputError: no ranker, a ranker from a file without `past`, unequal vocabularies or unknown items.
    """
    named = {"ranker": rankers} if isinstance(rankers, Ranker) else dict(rankers)
    if not named:
        raise InputError("got no ranker to compare, need at least one")
    first = next(iter(named.values()))
    past = past or first.past
    if past is None:
        raise InputError(
            "the ranker was read from a folder and holds no log; give past=, the log it learned from"
        )
    if any(r.item_ids != first.item_ids for r in named.values()):
        raise InputError("the rankers have different items; compare those of one catalogue")
    known = first.item.known.cpu().numpy() > 0
    trained = [item for item, own in zip(first.item_ids, known, strict=True) if own]
    frame = evaluation_rows(
        {"future": future},
        past,
        item_ids=first.item_ids,
        trained_items=trained,
        negatives=negatives,
        seed=seed,
    )
    drawn = not (past.explicit or future.explicit)
    rows = []
    for name, ranker in named.items():
        examples = read_examples(frame, [past, future], item_ids=first.item_ids, history=ranker.shape.history)
        rows += [
            {"ranker": name, **figures.content()}
            for figures in evaluate_ranker(ranker, examples, drawn=drawn)
        ]
    figures = dict.fromkeys(FIGURES, pl.Float64)  # a column may be all null
    return Comparison(pl.DataFrame(rows, schema_overrides=figures, infer_schema_length=None))


def evaluate_ranker(
    ranker: Ranker, examples: Examples, *, drawn: bool, label: str | None = None
) -> list[Figures]:
    """Figures of a ranker by slice.

    label: an auxiliary label, judged on the rows where it is known, none of which was drawn.

    drawn: the rows hold drawn negatives, perhaps more of them per positive than in training; logits
    then move by the difference of the log-odds, which changes the logloss and no ranking.
    """
    if label is not None:
        known = examples.of_label(label)
        return evaluate(known, score_examples(ranker, known, label=label))
    logits = score_examples(ranker, examples).astype(np.float64)
    if drawn and len(examples):
        logits += prior_of(examples.labels) - float(ranker.prior)
    return evaluate(examples, logits)


def evaluate(
    examples: Examples, scores: npt.NDArray[np.floating[Any]], *, logits: bool = True
) -> list[Figures]:
    """Figures by slice.

    Cold rows are those whose candidate has no training event: cold positives against cold negatives.
    logits: False for scores that are not log-odds; their logloss is None.

    Raises:
        InputError: a score is NaN.
    """
    everything = np.ones(len(examples), dtype=bool)
    chosen = {"all": everything, "warm": ~examples.cold, "cold": examples.cold}
    figures = []
    for name in SLICES:
        rows = chosen[name]
        metrics = measure(examples.users[rows], examples.labels[rows], scores[rows], logits=logits)
        figures.append(Figures(slice=name, **asdict(metrics)))
    return figures


def _text(value: object) -> str:
    if value is None:
        return "-"
    if isinstance(value, float):
        return f"{value:.4f}"
    return f"{value:,}" if isinstance(value, int) else str(value)
