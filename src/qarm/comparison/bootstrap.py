"""Bootstrap over users of figures averaged over seeds: means, paired intervals, and Holm's correction."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from qarm.core.statistics import percentile_interval
from qarm.recommender.metrics import UserAuc

__all__ = ["POWER", "Difference", "UserBootstrap", "holm"]

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
        """Smallest difference that a set of this size shows with 80 % power."""
        return POWER * self.error


class UserBootstrap:
    """Resamples of users, the same for all methods and seeds of a slice.

    Args:
        figures: by method, for each seed the AUC of every user with both labels.
        weighted: by the user's rows (GAUC), or every user with weight 1 (UAUC).
        seed: of the resamples.
    """

    def __init__(
        self, figures: Mapping[str, Sequence[UserAuc]], *, weighted: bool, draws: int = DRAWS, seed: int = 0
    ) -> None:
        users = np.unique(np.concatenate([each.users for seeds in figures.values() for each in seeds]))
        random = np.random.default_rng(seed)
        counts = random.multinomial(len(users), np.full(len(users), 1 / len(users)), size=draws)
        sample = np.ones((1, len(users)), dtype=np.float32)
        self._draws = np.concatenate([sample, counts.astype(np.float32)])
        self._means = dict(
            zip(figures, self._resampled(list(figures.values()), users, weighted), strict=True)
        )

    def _resampled(
        self, figures: Sequence[Sequence[UserAuc]], users: npt.NDArray[np.generic], weighted: bool
    ) -> Floats:
        """Figure of each method and seed in the sample and every resample, [methods, seeds, 1 + draws].

        The methods of a seed share one product, since most of the time is spent in reading the resamples.
        """
        values = np.empty((len(figures), len(figures[0]), len(self._draws)))
        for seed in range(values.shape[1]):
            weights = np.zeros((len(users), len(figures), 2), dtype=np.float32)
            for method, seeds in enumerate(figures):
                each = seeds[seed]
                row = np.searchsorted(users, each.users)
                weights[row, method, 1] = each.impressions if weighted else 1
                weights[row, method, 0] = weights[row, method, 1] * each.auc
            sums = (self._draws @ weights.reshape(len(users), -1)).astype(np.float64)
            sums[0] = weights.astype(np.float64).sum(axis=0).ravel()  # the sample itself, without rounding
            with np.errstate(invalid="ignore", divide="ignore"):
                values[:, seed] = (sums[:, 0::2] / sums[:, 1::2]).T
        return values

    def mean(self, method: str) -> float:
        """Figure of a method, averaged over seeds."""
        return float(self._means[method][:, 0].mean())

    def spread(self, method: str) -> float | None:
        """Standard deviation over seeds; None for one."""
        seeds = self._means[method][:, 0]
        return float(seeds.std(ddof=1)) if len(seeds) > 1 else None

    def recovered(self, method: str, base: str, best: str) -> Difference:
        """Share of the gap between a base and the best that a method closes, paired by user and seed."""
        value, low, high = (self._means[name].mean(axis=0) for name in (method, base, best))
        with np.errstate(invalid="ignore", divide="ignore"):
            return _estimate((value - low) / (high - low))

    def difference(self, method: str, against: str) -> Difference:
        """Figure of a method minus another's, paired by user and seed."""
        return _estimate((self._means[method] - self._means[against]).mean(axis=0))


def _estimate(values: Floats) -> Difference:
    """Estimate from the sample's value, which stands first, and those of the resamples."""
    drawn = values[1:][np.isfinite(values[1:])]
    low, high = percentile_interval(drawn)
    mean, error = float(values[0]), float(drawn.std(ddof=1))
    return Difference(mean, low, high, error, _two_sided(mean, error))


def _two_sided(mean: float, error: float) -> float:
    """Two-sided p of a normal estimate; a share of resamples has too coarse steps for Holm."""
    if error == 0:
        return float(mean == 0)
    return math.erfc(abs(mean) / error / math.sqrt(2))


def holm(p_values: Mapping[str, float], *, level: float = 0.05) -> dict[str, bool]:
    """Hypotheses that Holm's step-down procedure (1979) rejects at a family-wise level.

    Six lines here, since scipy has no Holm procedure and statsmodels would be a dependency for these alone.
    """
    rejected = dict.fromkeys(p_values, False)
    for rank, (name, p) in enumerate(sorted(p_values.items(), key=lambda entry: entry[1])):
        if p > level / (len(p_values) - rank):
            break
        rejected[name] = True
    return rejected
