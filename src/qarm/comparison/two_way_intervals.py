"""Two-way intervals, over users and seeds: means, paired differences, smallest effects; Holm's correction."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.special import stdtr, stdtrit

from qarm.recommender.metrics import UserAuc

__all__ = ["Difference", "TwoWayIntervals", "holm"]

LEVEL, POWER = (
    0.975,
    0.8,
)  # quantiles of a two-sided interval of 95 %, and of the power of the smallest effect

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Difference:
    """One method's figure minus another's, averaged over seeds.

    low, high: the 95 % interval; error: standard error over users and seeds; p: two-sided, of Student's t
    with df degrees of freedom; smallest_effect: the difference that has a power of 80 % with this error.
    """

    mean: float
    low: float
    high: float
    error: float
    p: float
    df: float
    smallest_effect: float

    @classmethod
    def of(cls, mean: float, variance: float, df: float) -> "Difference":
        """Estimate of Student's t with a variance of the mean."""
        error, quantile = float(np.sqrt(variance)), float(stdtrit(df, LEVEL))
        p = float(2 * stdtr(df, -abs(mean) / error)) if error else float(mean == 0)
        least = (quantile + float(stdtrit(df, POWER))) * error
        return cls(mean, mean - quantile * error, mean + quantile * error, error, p, df, least)

    def widened(self, variance: float) -> "Difference":
        """The same mean with a further source of variance; degrees of freedom stay, so it is no narrower."""
        return Difference.of(self.mean, self.error**2 + variance, self.df)


class TwoWayIntervals:
    """Users and seeds as two crossed samples; a figure is a mean over users, averaged over seeds.

    The variance of a mean is that of clusters of users, plus that of seeds, minus that of their crossing,
    which both hold (two-way clustering: Cameron, Gelbach and Miller, Journal of Business & Economic
    Statistics 2011); what seeds add is zero at least. Few seeds have few degrees of freedom: Student's t
    takes those of Satterthwaite (Biometrics Bulletin 1946). A weighted mean enters by its linearisation.

    Args:
        figures: by method, for each seed the AUC of every user with both labels.
        weighted: by the user's rows (GAUC), or every user with weight 1 (UAUC).
    """

    def __init__(self, figures: Mapping[str, Sequence[UserAuc]], *, weighted: bool) -> None:
        users = np.unique(np.concatenate([each.users for seeds in figures.values() for each in seeds]))
        self._means: dict[str, Floats] = {}
        self._influence: dict[str, Floats] = {}
        for method, seeds in figures.items():
            values, weights = np.zeros((2, len(seeds), len(users)))
            for seed, each in enumerate(seeds):
                row = np.searchsorted(users, each.users)
                weights[seed, row] = each.impressions if weighted else 1
                values[seed, row] = each.auc
            with np.errstate(invalid="ignore", divide="ignore"):
                weights /= weights.sum(axis=1, keepdims=True)
            self._means[method] = (weights * values).sum(axis=1)
            self._influence[method] = weights * (values - self._means[method][:, None])

    def mean(self, method: str) -> float:
        """Figure of a method, averaged over seeds."""
        return float(self._means[method].mean())

    def spread(self, method: str) -> float | None:
        """Standard deviation over seeds; None for one."""
        seeds = self._means[method]
        return float(seeds.std(ddof=1)) if len(seeds) > 1 else None

    def difference(self, method: str, against: str) -> Difference:
        """Figure of a method minus another's, paired by user and seed."""
        means, influence = (part[method] - part[against] for part in (self._means, self._influence))
        return _estimate(means, influence)

    def recovered(self, method: str, base: str, best: str) -> Difference:
        """Share of the gap between a base and the best that a method closes, paired by user and seed."""
        gained, whole = self._minus(method, base), self._minus(best, base)
        gap = float(whole[0].mean())
        share = float(gained[0].mean()) / gap
        means, influence = ((part - share * of_gap) / gap for part, of_gap in zip(gained, whole, strict=True))
        return _estimate(share + means, influence)

    def _minus(self, method: str, base: str) -> tuple[Floats, Floats]:
        return self._means[method] - self._means[base], self._influence[method] - self._influence[base]


def _estimate(means: Floats, influence: Floats) -> Difference:
    """Estimate of the mean of seeds.

    Args:
        means: of each seed, [seeds]; influence: of each user on them, [seeds, users].
    """
    kept = np.isfinite(means)  # a seed may have no user on a slice
    means, influence = means[kept], influence[kept]
    seeds, users = len(means), int(np.count_nonzero(np.any(influence != 0, axis=0)))
    correction = users / (users - 1) if users > 1 else 1.0
    by_user = influence.mean(axis=0)
    of_users, many = correction * float(by_user @ by_user), max(users - 1, 1)
    if seeds == 1:
        return Difference.of(float(means[0]), of_users, many)
    of_seeds = float(means.var(ddof=1)) / seeds
    crossed = correction * float(((influence - by_user) ** 2).sum()) / (seeds * (seeds - 1))
    variance = of_users + max(0.0, of_seeds - crossed)
    spent = of_users**2 / many
    if of_seeds > crossed:
        spent += of_seeds**2 / (seeds - 1) + crossed**2 / (many * (seeds - 1))
    return Difference.of(float(means.mean()), variance, variance**2 / spent if spent else many)


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
