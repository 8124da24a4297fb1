"""Summary over seeds: means, and paired differences of variants with intervals."""

from collections.abc import Sequence
from typing import Literal, get_args

import numpy as np
import numpy.typing as npt

from qarm.schemas.results import Difference, Mean, Row, Summary

__all__ = ["METRICS", "Metric", "paired_difference", "summarize"]

Metric = Literal["auc", "uauc", "gauc", "logloss"]
METRICS: tuple[Metric, ...] = get_args(Metric)
CONFIDENCE = 0.95


def summarize(rows: Sequence[Row], *, against: str = "id") -> Summary:
    """Means over seeds, and each variant's paired difference to one of them.

    Args:
        rows: of `results.json`.
        against: the variant that the others are compared with, seed by seed.

    Returns:
        `means`: one entry per variant and slice; `differences`: one per other variant, slice and
        metric with `mean`, `low` and `high`, the 95 % t-interval of the per-seed differences
        (None with fewer than two seeds, which have no spread).
    """
    cells = {(row.variant, row.slice, row.seed): row for row in rows}
    variants = list(dict.fromkeys(row.variant for row in rows))
    slices = list(dict.fromkeys(row.slice for row in rows))
    seeds = sorted({row.seed for row in rows})
    means, differences = [], []
    for variant in variants:
        for part in slices:
            runs = [cells[variant, part, seed] for seed in seeds if (variant, part, seed) in cells]
            if not runs:
                continue
            means.append(_mean(runs))
            bases = [base for row in runs if (base := cells.get((against, part, row.seed)))]
            if variant != against and len(bases) == len(runs):
                differences += [_difference(metric, runs, bases) for metric in METRICS]
    return Summary(against=against, confidence=CONFIDENCE, means=means, differences=differences)


def paired_difference(
    rows: Sequence[Row], variant: str, *, against: str, part: str, metric: Metric
) -> Difference | None:
    """Difference of two variants on a slice, seed by seed; None where one of them has no figure.

    A baseline draws nothing and stands under one seed: it is compared with every seed of the variant.
    """
    runs = [row for row in rows if (row.variant, row.slice) == (variant, part)]
    bases = {row.seed: row for row in rows if (row.variant, row.slice) == (against, part)}
    if len(bases) == 1:
        bases = dict.fromkeys((row.seed for row in runs), *bases.values())
    paired = [row for row in runs if row.seed in bases]
    if not paired:
        return None
    found = _difference(metric, paired, [bases[row.seed] for row in paired])
    return None if found.mean is None else found


def _mean(rows: Sequence[Row]) -> Mean:
    first = rows[0]
    means: dict[str, float | None] = {}
    for metric in METRICS:
        values = [value for row in rows if (value := _value(row, metric)) is not None]
        means[metric] = float(np.mean(values)) if values else None
    return Mean(
        variant=first.variant,
        slice=first.slice,
        seeds=len(rows),
        auc=means["auc"],
        uauc=means["uauc"],
        gauc=means["gauc"],
        logloss=means["logloss"],
        rows=first.rows,
        users=first.users,
    )


def _difference(metric: Metric, rows: Sequence[Row], bases: Sequence[Row]) -> Difference:
    pairs = [(_value(row, metric), _value(base, metric)) for row, base in zip(rows, bases, strict=True)]
    values = [mine - other for mine, other in pairs if mine is not None and other is not None]
    low, high = _interval(np.array(values)) if len(values) > 1 else (None, None)
    return Difference(
        variant=rows[0].variant,
        against=bases[0].variant,
        slice=rows[0].slice,
        metric=metric,
        seeds=len(values),
        mean=float(np.mean(values)) if values else None,
        low=low,
        high=high,
    )


def _value(row: Row, metric: Metric) -> float | None:
    value: float | None = getattr(row, metric)
    return value


def _interval(values: npt.NDArray[np.float64]) -> tuple[float, float]:
    from scipy.stats import t

    half = t.ppf((1 + CONFIDENCE) / 2, len(values) - 1) * values.std(ddof=1) / np.sqrt(len(values))
    return float(values.mean() - half), float(values.mean() + half)
