"""Findings on the ranker: gains of the codes over ids, the fixed vector and baselines, and over chance."""

from collections.abc import Iterable, Sequence

import numpy as np

from qarm.core.text_tables import interval_text
from qarm.report.seed_summary import paired_difference
from qarm.report.verdict_figures import CHECK, MORE_SEEDS, RUN, RunFigures, judged, missing, worst
from qarm.schemas.verdict import Finding, Gain, Outcome

__all__ = ["codes_over_ids", "codes_over_untrained", "codes_over_vector", "scores_above_chance"]

IDS, VECTOR = "id", "id+frozen"
UNTRAINED = ("content-knn", "popularity", "item-knn")
PARTS = ("warm", "cold")
CHANCE = 0.5
# two standard errors of a paired difference in AUC, where that of single users varies by about 0.05
SPREAD = 0.1
TRAIN_BOTH = f"{RUN} --ranker.variants '[id, id+frozen, id+rq+vq]'"
TOO_COARSE = "the codes keep too little of the vectors, so that different items look alike to the ranker"


def codes_over_ids(figures: RunFigures) -> Finding:
    """Gain in AUC of ids with codes over ids alone, on warm and on cold items."""
    return _over(figures, IDS, "codes over ids")


def codes_over_vector(figures: RunFigures) -> Finding:
    """Gain in AUC of ids with codes over ids with the fixed item vector."""
    return _over(figures, VECTOR, "codes over the fixed vector")


def _over(figures: RunFigures, variant: str, name: str) -> Finding:
    gains = _gains(figures, [variant])
    if not gains:
        return missing(name, TRAIN_BOTH)
    return _finding(figures, name, gains, figures.few_events or (TOO_COARSE, figures.one_more_level))


def codes_over_untrained(figures: RunFigures) -> Finding:
    """Gain in AUC of ids with codes over the baselines that are not trained."""
    name, gains = "codes over untrained baselines", _gains(figures, UNTRAINED)
    if not gains:
        return missing(name)
    lowest = min(gains, key=lambda gain: gain.mean)
    if lowest.against == "content-knn":
        cause = "content decides what is chosen, and the codes lose it or the ranker does not use it yet"
        remedy = (cause, figures.one_more_level)
    else:
        cause = f"choices follow {lowest.against}, and the ranker stopped before it learned more than that"
        remedy = (cause, f"{RUN} --ranker.patience 6 --ranker.epochs 40")
    finding = _finding(figures, name, gains, figures.few_events or remedy)
    if lowest.mean >= 0:
        return finding
    ahead = f"{lowest.against}, which is not trained, is ahead on {lowest.slice} items; {finding.sentence}"
    return finding.model_copy(update={"sentence": ahead})


def scores_above_chance(figures: RunFigures) -> Finding:
    """AUC of ids, and of ids with codes, against 0.5, that of random scores."""
    name, gains = "scores above chance", list(_over_chance(figures))
    if not gains:
        return missing(name)
    below = [gain for gain in gains if gain.mean < -_margin(figures, gain.slice)]
    cold_ids = all((gain.method, gain.slice) == (IDS, "cold") for gain in below)
    cause = (
        "an id without training events says nothing of its item; measure gains on cold items from 0.5"
        if cold_ids
        else "labels are turned round, or what was popular in training is no longer chosen in the test part"
    )
    listed = ", ".join(f"{gain.method} {CHANCE + gain.mean:.4f} on {gain.slice}" for gain in below or gains)
    sentence = f"AUC {'below' if below else 'not below'} 0.5: {listed} items."
    outcome: Outcome = "pass" if not below else "warn" if cold_ids else "fail"
    return judged(name, outcome, listed, sentence, gains, (cause, CHECK))


def _over_chance(figures: RunFigures) -> Iterable[Gain]:
    """Mean AUC over seeds less 0.5, of ids and of ids with codes, on warm and cold items."""
    for name in dict.fromkeys(name for name in (IDS, figures.coded) if name is not None):
        for part in PARTS:
            rows = [row for row in figures.rows if (row.variant, row.slice) == (name, part)]
            values = [row.auc for row in rows if row.auc is not None]
            if values:
                mean = float(np.mean(values)) - CHANCE
                yield Gain(method=name, against="chance", slice=part, metric="auc", mean=mean)


def _gains(figures: RunFigures, against: Iterable[str]) -> list[Gain]:
    """Gains in AUC of the codes over some variants on warm and cold items, as far as both have figures."""
    if figures.coded is None:
        return []
    found = (
        paired_difference(figures.rows, figures.coded, against=other, part=part, metric="auc")
        for other in against
        for part in PARTS
    )
    names = ("against", "slice", "metric", "low", "high")
    return [
        Gain(method=row.variant, mean=row.mean, **{name: getattr(row, name) for name in names})
        for row in found
        if row is not None and row.mean is not None
    ]


def _margin(figures: RunFigures, part: str) -> float:
    """Difference in AUC that so few users may show by chance."""
    users = max((row.users for row in figures.rows if row.slice == part), default=0)
    return SPREAD / float(np.sqrt(max(users, 1)))


def _outcome(gain: Gain, figures: RunFigures) -> Outcome:
    """Whether a gain's interval is above 0, or without one the gain by more than few users show by chance."""
    margin = _margin(figures, gain.slice)
    low = gain.mean - margin if gain.low is None else gain.low
    high = gain.mean + margin if gain.high is None else gain.high
    return "pass" if low > 0 else "fail" if high < 0 else "warn"


def _finding(figures: RunFigures, name: str, gains: Sequence[Gain], remedy: tuple[str, str]) -> Finding:
    """Finding on gains; where one seed leaves it open, the remedy is more seeds."""
    outcome = worst(_outcome(gain, figures) for gain in gains)
    if outcome == "warn" and figures.seeds == 1:
        users = max(row.users for row in figures.rows)
        remedy = (f"the difference is smaller than one seed and {users:,} users can show", MORE_SEEDS)
    texts: dict[str, list[str]] = {}
    for gain in gains:
        interval = None if gain.low is None or gain.high is None else [gain.low, gain.high]
        text = f"{interval_text(gain.mean, interval, form='+.4f')} on {gain.slice} items"
        texts.setdefault(gain.against, []).append(text)
    each = "; ".join(f"over {rival} {', '.join(own)}" for rival, own in texts.items())
    figure = each if len(texts) > 1 else ", ".join(*texts.values())
    return judged(name, outcome, figure, f"AUC of {gains[0].method} {each}.", gains, remedy)
