"""Paired intervals: per-user figures averaged over seeds, users resampled; Holm's correction."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from qarm.recommender.metrics import UserAuc

__all__ = ["POWER", "Difference", "Judge", "holm"]

DRAWS = 2000
POWER = 2.8  # standard errors: 1.96 for 5 % two-sided and .84 for 80 % power

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Difference:
    """One method's figure minus another's, averaged over seeds.

    low, high: the 95 % percentile interval; error: standard error; p: two-sided, of a normal
    estimate with that error.
    """

    mean: float
    low: float
    high: float
    error: float
    p: float

    @property
    def smallest_effect(self) -> float:
        """What a set of this size could show with 80 % power."""
        return POWER * self.error


class Judge:
    """Resamples users once, for all methods and seeds of a slice alike.

    Args:
        figures: of each method, for each seed the AUC of every user with both labels.
        weighted: by the user's rows (GAUC), or each user alike (UAUC).
        seed: of the resamples.
    """

    def __init__(
        self, figures: Mapping[str, Sequence[UserAuc]], *, weighted: bool, draws: int = DRAWS, seed: int = 0
    ) -> None:
        users = np.unique(np.concatenate([each.users for seeds in figures.values() for each in seeds]))
        random = np.random.default_rng(seed)
        drawn = random.multinomial(len(users), np.full(len(users), 1 / len(users)), size=draws)
        itself = np.ones((1, len(users)), dtype=np.float32)
        self._draws = np.concatenate([itself, drawn.astype(np.float32)])
        self._means = dict(
            zip(figures, self._resampled(list(figures.values()), users, weighted), strict=True)
        )

    def _resampled(
        self, figures: Sequence[Sequence[UserAuc]], users: npt.NDArray[np.generic], weighted: bool
    ) -> Floats:
        """Each method's and seed's figure in every resample, [methods, seeds, 1 + draws].

        A seed's methods share one product, since reading the resamples is what takes the time.
        """
        found = np.empty((len(figures), len(figures[0]), len(self._draws)))
        for seed in range(found.shape[1]):
            weights = np.zeros((len(users), len(figures), 2), dtype=np.float32)
            for method, seeds in enumerate(figures):
                each = seeds[seed]
                place = np.searchsorted(users, each.users)
                weights[place, method, 1] = each.impressions if weighted else 1
                weights[place, method, 0] = weights[place, method, 1] * each.auc
            sums = (self._draws @ weights.reshape(len(users), -1)).astype(np.float64)
            sums[0] = weights.astype(np.float64).sum(axis=0).ravel()  # the sample itself, without rounding
            with np.errstate(invalid="ignore", divide="ignore"):
                found[:, seed] = (sums[:, 0::2] / sums[:, 1::2]).T
        return found

    def mean(self, method: str) -> float:
        """A method's figure, averaged over seeds."""
        return float(self._means[method][:, 0].mean())

    def spread(self, method: str) -> float | None:
        """Standard deviation over seeds; None for one."""
        own = self._means[method][:, 0]
        return float(own.std(ddof=1)) if len(own) > 1 else None

    def recovered(self, method: str, base: str, best: str) -> Difference:
        """The share of the way from a base to the best that a method goes, paired by user and seed."""
        own, low, high = (self._means[name].mean(axis=0) for name in (method, base, best))
        with np.errstate(invalid="ignore", divide="ignore"):
            return _estimate((own - low) / (high - low))

    def difference(self, method: str, against: str) -> Difference:
        """Paired by user and seed."""
        return _estimate((self._means[method] - self._means[against]).mean(axis=0))


def _estimate(values: Floats) -> Difference:
    """Of the sample itself, which stands first, and its resamples."""
    drawn = values[1:][np.isfinite(values[1:])]
    low, high = np.quantile(drawn, [0.025, 0.975])
    mean, error = float(values[0]), float(drawn.std(ddof=1))
    return Difference(mean, float(low), float(high), error, _two_sided(mean, error))


def _two_sided(mean: float, error: float) -> float:
    """Of a normal estimate: counting resamples could not go below one in `DRAWS`, too coarse for Holm."""
    if error == 0:
        return float(mean == 0)
    return math.erfc(abs(mean) / error / math.sqrt(2))


def holm(p_values: Mapping[str, float], *, level: float = 0.05) -> dict[str, bool]:
    """Which hypotheses Holm's step-down procedure (1979) rejects at a family-wise level."""
    rejected = dict.fromkeys(p_values, False)
    for rank, (name, p) in enumerate(sorted(p_values.items(), key=lambda entry: entry[1])):
        if p > level / (len(p_values) - rank):
            break
        rejected[name] = True
    return rejected
