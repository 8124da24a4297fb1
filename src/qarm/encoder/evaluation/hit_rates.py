"""Hit rates by slice and cut-off, with paired intervals over draws of users."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import islice

import numpy as np
import numpy.typing as npt
from scipy.sparse import csr_matrix

from qarm.core.statistics import finite_interval, user_draws
from qarm.schemas.encoder import HitDifference, HitRate

__all__ = ["HitRates", "hit_rates"]

DRAWS_AT_ONCE = 50
Bools = npt.NDArray[np.bool_]
Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]


@dataclass(frozen=True)
class HitRates:
    """Hit rates of several methods on the same later clicks.

    methods, slices, cutoffs: names of the axes; rates: float64 [1 + draws, methods, slices, cutoffs], first
    over all users, then over each draw of users, NaN where a slice has no click; clicks, users: int64
    [slices], later clicks and the users who made them.
    """

    methods: list[str]
    slices: list[str]
    cutoffs: list[str]
    rates: Floats
    clicks: Ints
    users: Ints

    def table(self) -> list[HitRate]:
        """Hit rates by method, slice and cut-off, None where there is no click."""
        return [
            HitRate(
                method=method,
                slice=part,
                hit_rate={c: _number(self.rates[0, m, s, k]) for k, c in enumerate(self.cutoffs)},
            )
            for m, method in enumerate(self.methods)
            for s, part in enumerate(self.slices)
        ]

    def differences(self, method: str, against: str) -> Iterator[HitDifference]:
        """Differences and ratios of two methods for each slice and cut-off, with 95 % intervals.

        The 2.5 and 97.5 percentiles over the draws; the same users are drawn for both (Efron 1979).
        None without a draw, or where some draw has nothing to divide by.
        """
        own, base = (self.rates[:, self.methods.index(name)] for name in (method, against))
        with np.errstate(divide="ignore", invalid="ignore"):
            difference, ratio = own - base, own / base
        for s, part in enumerate(self.slices):
            for k, cutoff in enumerate(self.cutoffs):
                yield HitDifference(
                    method=method,
                    against=against,
                    slice=part,
                    cutoff=cutoff,
                    difference=_number(difference[0, s, k]),
                    difference_interval=finite_interval(difference[1:, s, k]),
                    ratio=_number(ratio[0, s, k]),
                    ratio_interval=finite_interval(ratio[1:, s, k]),
                )


def hit_rates(
    ranks: Mapping[str, Ints],
    users: Ints,
    *,
    slices: Mapping[str, Bools],
    cutoffs: Mapping[str, int],
    draws: int = 1000,
    seed: int = 0,
) -> HitRates:
    """Share of later clicks whose item stands above a cut-off, over all clicks of a slice.

    Args:
        ranks: of each method, the rank of every later click's item, from 0, int64 [clicks].
        users: number of each click's user, int64 [clicks].
        slices: by name, which clicks belong to it, bool [clicks].
        cutoffs: by name, how many candidates are looked at.
        draws: resamples of the users, with replacement, for the intervals.
        seed: of the draws.
    """
    total = int(users.max(initial=-1)) + 1
    columns = [
        part & (of_method < cut)
        for of_method in ranks.values()
        for part in slices.values()
        for cut in cutoffs.values()
    ]
    counts = _per_user([*slices.values(), *columns], users, total)
    sums = np.stack([np.asarray(counts.sum(axis=1)).ravel(), *_drawn(counts, total, draws, seed)])
    clicks, hits = sums[:, : len(slices)], sums[:, len(slices) :]
    shape = (len(sums), len(ranks), len(slices), len(cutoffs))
    with np.errstate(divide="ignore", invalid="ignore"):
        rates = hits.reshape(shape) / clicks[:, None, :, None]
    whose = np.diff(counts[: len(slices)].indptr)
    return HitRates(
        [*ranks], [*slices], [*cutoffs], rates, clicks[0].astype(np.int64), whose.astype(np.int64)
    )


def _per_user(columns: list[Bools], users: Ints, total: int) -> csr_matrix:
    """How many clicks of each user are in each column, sparse [columns, users]; whole numbers, so exact."""
    rows = [np.bincount(users[column], minlength=total) for column in columns]
    return csr_matrix(np.stack(rows).astype(np.float64))


def _drawn(counts: csr_matrix, users: int, draws: int, seed: int) -> Iterator[Floats]:
    """Column sums over each draw of as many users, float64 [columns]."""
    every_draw = user_draws(users, draws, seed=seed)
    while at_once := [*islice(every_draw, DRAWS_AT_ONCE)]:
        weights = [np.bincount(drawn, minlength=users) for drawn in at_once]
        yield from (counts @ np.stack(weights, axis=1).astype(np.float64)).T


def _number(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None
