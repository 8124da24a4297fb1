"""From a row per variant, seed and slice to means, and to paired differences with intervals."""

from collections.abc import Sequence
from typing import Any

import numpy as np

__all__ = ["METRICS", "summarize"]

METRICS = ("auc", "uauc", "gauc", "logloss")
CONFIDENCE = 0.95


def summarize(rows: Sequence[dict[str, Any]], *, against: str = "id") -> dict[str, Any]:
    """Means over seeds, and each variant's paired difference to one of them.

    Args:
        rows: `results.json` rows: variant, seed, slice, auc, uauc, gauc, logloss, rows, users.
        against: the variant that the others are compared with, seed by seed.

    Returns:
        `means`: one entry per variant and slice; `differences`: one per other variant, slice and
        metric with `mean`, `low` and `high`, the 95 % t-interval of the per-seed differences
        (None with fewer than two seeds, where a spread cannot be known).
    """
    cells = {(row["variant"], row["slice"], row["seed"]): row for row in rows}
    variants = list(dict.fromkeys(row["variant"] for row in rows))
    slices = list(dict.fromkeys(row["slice"] for row in rows))
    seeds = sorted({row["seed"] for row in rows})
    means, differences = [], []
    for variant in variants:
        for part in slices:
            own = [cells[variant, part, seed] for seed in seeds if (variant, part, seed) in cells]
            if not own:
                continue
            means.append(_mean_row(variant, part, own))
            base = [cells.get((against, part, row["seed"])) for row in own]
            if variant != against and all(base):
                differences += [_difference(variant, against, part, m, own, base) for m in METRICS]
    return {"against": against, "confidence": CONFIDENCE, "means": means, "differences": differences}


def _mean_row(variant: str, part: str, rows: list[dict[str, Any]]) -> dict[str, Any]:
    entry: dict[str, Any] = {"variant": variant, "slice": part, "seeds": len(rows)}
    for metric in METRICS:
        values = [row[metric] for row in rows if row[metric] is not None]
        entry[metric] = float(np.mean(values)) if values else None
    return entry | {"rows": rows[0]["rows"], "users": rows[0]["users"]}


def _difference(
    variant: str, against: str, part: str, metric: str, own: list[Any], base: list[Any]
) -> dict[str, Any]:
    values = [
        a[metric] - b[metric] for a, b in zip(own, base, strict=True) if None not in (a[metric], b[metric])
    ]
    mean = float(np.mean(values)) if values else None
    low, high = _interval(np.array(values)) if len(values) > 1 else (None, None)
    return {
        "variant": variant,
        "against": against,
        "slice": part,
        "metric": metric,
        "seeds": len(values),
        "mean": mean,
        "low": low,
        "high": high,
    }


def _interval(values: Any) -> tuple[float, float]:
    from scipy.stats import t

    half = t.ppf((1 + CONFIDENCE) / 2, len(values) - 1) * values.std(ddof=1) / np.sqrt(len(values))
    return float(values.mean() - half), float(values.mean() + half)
