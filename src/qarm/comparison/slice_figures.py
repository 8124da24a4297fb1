"""Figures of all methods on one slice of the test rows: means, paired differences, anchors that are ahead."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from qarm.comparison.item_clusters import ItemClusters
from qarm.comparison.seed_run import UNTRAINED
from qarm.comparison.two_way_intervals import TwoWayIntervals
from qarm.recommender.metrics import auc, calibration, grouped_auc, logloss
from qarm.schemas.comparison import Gain, GainKey, Means

__all__ = ["Rows", "SliceFigures"]

Measure = Literal["gauc", "uauc"]
Floats = npt.NDArray[np.float32]
Ints = npt.NDArray[np.int64]


class Rows(NamedTuple):
    """Test rows of one seed on one slice: user numbers, items, labels and a method's scores, [n] each."""

    users: Ints
    items: npt.NDArray[np.int32]
    labels: npt.NDArray[np.generic]
    scores: Floats


class Pooled(NamedTuple):
    """Figures over all rows of a slice, averaged over seeds; rows and users are those of all seeds."""

    auc: float | None
    logloss: float | None
    calibration: float | None
    rows: int
    users: int


class SliceFigures:
    """Means and differences of all methods on a slice; there is none where no user has both labels.

    Args:
        negatives: kind of the rows; part: name of the slice.
        rows: by method, for each seed.
        items: whether intervals are computed over items too.
    """

    def __init__(self, negatives: str, part: str, rows: Mapping[str, Sequence[Rows]], *, items: bool) -> None:
        self.negatives, self.part, self.rows = negatives, part, rows
        aucs = {
            method: [grouped_auc(each.users, each.labels, each.scores) for each in seeds]
            for method, seeds in rows.items()
        }
        self._intervals: dict[Measure, TwoWayIntervals] = {}
        if any(len(seed) for seeds in aucs.values() for seed in seeds):
            self._intervals["gauc"] = TwoWayIntervals(aucs, weighted=True)
            self._intervals["uauc"] = TwoWayIntervals(aucs, weighted=False)
        self._items = ItemClusters(rows) if items and self._intervals else None

    def means(self) -> list[Means]:
        """Figures of each method, averaged over seeds."""
        if not self._intervals:
            return []
        by_rows, by_user = self._intervals["gauc"], self._intervals["uauc"]
        return [
            Means(
                negatives=self.negatives,
                slice=self.part,
                method=method,
                **_pooled(seeds, logits=method not in UNTRAINED)._asdict(),
                gauc=by_rows.mean(method),
                gauc_spread=by_rows.spread(method),
                uauc=by_user.mean(method),
                uauc_spread=by_user.spread(method),
            )
            for method, seeds in self.rows.items()
        ]

    def gains(self, against: Sequence[str]) -> list[Gain]:
        """Differences of each method from each base."""
        return [
            self.difference(method, base, measure)
            for measure in self._intervals
            for method in self.rows
            for base in against
            if base != method
        ]

    def difference(self, method: str, base: str, measure: Measure = "gauc") -> Gain:
        """Difference of two methods, paired by user and seed."""
        found = self._intervals[measure].difference(method, base)
        estimate = asdict(found)
        if self._items is not None and measure == "gauc":
            wide = found.widened(self._items.added(method, base))
            estimate |= {"item_low": wide.low, "item_high": wide.high}
        key = GainKey(negatives=self.negatives, slice=self.part, method=method, against=base, measure=measure)
        return Gain(**key.model_dump(), **estimate)

    def anchors_ahead(self, variants: Sequence[str], anchors: Sequence[str], base: str) -> list[Gain]:
        """Anchors minus the base, and minus the best variant, where the interval lies above zero."""
        if not self._intervals:
            return []
        best = max(variants, key=self._intervals["gauc"].mean)
        bases = [name for name in dict.fromkeys((base, best)) if name in variants]
        gains = (self.difference(anchor, name) for name in bases for anchor in anchors)
        return [gain for gain in gains if gain.low > 0]


def _pooled(seeds: Sequence[Rows], *, logits: bool) -> Pooled:
    """AUC over all rows, and logloss and calibration where the scores are logits, averaged over seeds."""
    values: dict[str, list[float]] = {"auc": [], "logloss": [], "calibration": []}
    for _, _, labels, scores in seeds:
        exact = scores.astype(np.float64)
        measured = {"auc": auc(labels, scores)}
        if logits:
            measured |= {"logloss": logloss(labels, exact), "calibration": calibration(labels, exact)}
        for name, value in measured.items():
            if value is not None:
                values[name].append(value)
    means = {name: float(np.mean(each)) if each else None for name, each in values.items()}
    return Pooled(
        **means,
        rows=sum(len(rows.labels) for rows in seeds),
        users=len(np.unique(np.concatenate([rows.users for rows in seeds]))),
    )
