"""Lift of pairs on later behaviour, over random pairs and over pairs of equally popular items."""

import numpy as np
import numpy.typing as npt
import polars as pl

from qarm.core.parallel.numba_jit import compiled
from qarm.core.statistics import finite_interval, user_draws
from qarm.data.interaction_matrix import Lists, click_matrix
from qarm.data.interactions import Log
from qarm.schemas.pairs import PairLift

__all__ = ["pair_lift"]

Longs = npt.NDArray[np.int64]
Ints = npt.NDArray[np.int32]
Floats = npt.NDArray[np.float64]
LEAST_ITEMS = 10


def pair_lift(
    pairs: pl.DataFrame, log: Log, future: Log, *, resamples: int = 1000, seed: int = 0
) -> PairLift:
    """Ratio of later users who choose both items of a pair to those who choose both of another pair.

    Compared with two means over all pairs of the log's items, both exact, not drawn: over every pair
    (random), and over the pairs whose items are in the same two popularity groups as the pair's
    (popularity-matched). The numbers of users in `log` of a group's items differ by less than a factor of
    two; a group of fewer than 10 items is joined to the next rarer one. Intervals: the 2.5
    and 97.5 percentiles of `resamples` draws of the later users, with replacement (Efron 1979).

    Args:
        pairs: trigger_id, target_id; direction and repetition do not count.
        log: the events that the pairs were mined from.
        future: later events; only the log's items count, each once per user.
        resamples: draws of users; 0 gives no interval.
        seed: of the draws.

    Returns:
        Means and ratios, with their intervals; None where the divisor is 0, in the ratio or in a draw.
    """
    earlier = click_matrix(log)
    later = click_matrix(future.only_items(earlier.item_ids.to_list()))
    numbers = pl.Series(earlier.item_ids.search_sorted(later.item_ids)).to_numpy().astype(np.int32)
    groups = _groups(earlier.by_item.sizes)
    ends = _ends(pairs, earlier.item_ids)
    if not len(ends) or not len(later.by_user):
        return _lift(np.zeros((1, 3)))
    sums = _per_user(
        Lists(later.by_user.starts, numbers[later.by_user.values]),
        _partners(ends, len(earlier.item_ids)),
        groups,
        _cell_rates(ends, groups),
    )
    sums[:, 0] /= len(ends)
    sums[:, 1] /= len(groups) * (len(groups) - 1) / 2
    return _lift(_resampled(sums, resamples, seed))


def _ends(pairs: pl.DataFrame, item_ids: pl.Series) -> Ints:
    """Item numbers of each distinct unordered pair, the lower first, int32 [pairs, 2]."""
    numbers = pairs.select(
        pl.col("trigger_id", "target_id").cast(pl.Enum(item_ids)).to_physical().cast(pl.Int32)
    ).to_numpy()
    distinct: Ints = np.unique(np.sort(numbers, axis=1), axis=0)
    return distinct


def _partners(ends: Ints, items: int) -> Lists:
    """The higher partners of each item, ascending: `ends` comes sorted."""
    starts = np.searchsorted(ends[:, 0], np.arange(items + 1)).astype(np.int64)
    return Lists(starts, np.ascontiguousarray(ends[:, 1]))


def _groups(users: Longs) -> Longs:
    """Popularity group of each item, 0 the rarest."""
    octave = np.floor(np.log2(users)).astype(np.int64)
    sizes = np.bincount(octave)
    for group in range(len(sizes) - 1, 0, -1):
        if sizes[group] < LEAST_ITEMS:
            octave[octave == group] -= 1
            sizes[group - 1] += sizes[group]
    return np.unique(octave, return_inverse=True)[1].astype(np.int64)


def _cell_rates(ends: Ints, groups: Longs) -> Floats:
    """Weight of a later pair in the popularity-matched mean, by the groups of its items, float64 [g, g]."""
    sizes = np.bincount(groups)
    mined = np.zeros((len(sizes), len(sizes)))
    np.add.at(mined, (groups[ends[:, 0]], groups[ends[:, 1]]), 1.0)
    possible = np.outer(sizes, sizes).astype(np.float64)
    np.fill_diagonal(possible, sizes * (sizes - 1) / 2)
    mined = mined + mined.T - np.diag(np.diag(mined))
    rates: Floats = np.divide(mined, possible, out=np.zeros_like(mined), where=possible > 0) / len(ends)
    return rates


def _per_user(items: Lists, partners: Lists, groups: Longs, rates: Floats) -> Floats:
    """Sums of each user, as `_add_users` writes them, float64 [users, 3]."""
    out = np.zeros((len(items), 3))
    _add_users(items.starts, items.values, partners.starts, partners.values, groups, rates, out)
    return out


@compiled()
def _add_users(
    starts: Longs,
    items: Ints,
    partner_starts: Longs,
    partners: Ints,
    groups: Longs,
    rates: Floats,
    out: Floats,
) -> None:
    """Sums over each user's pairs of items: mined pairs, all pairs, weights of popularity-matched pairs."""
    has, counts = np.zeros(len(groups), np.bool_), np.zeros(len(rates), np.float64)
    for user in range(len(starts) - 1):
        clicked = items[starts[user] : starts[user + 1]]
        has[clicked] = True
        counts[:] = 0.0
        mined = 0
        for item in clicked:
            counts[groups[item]] += 1.0
            for partner in partners[partner_starts[item] : partner_starts[item + 1]]:
                mined += has[partner]
        matched = 0.0
        for g in range(len(counts)):
            matched += rates[g, g] * counts[g] * (counts[g] - 1.0) / 2.0
            for h in range(g):
                matched += rates[g, h] * counts[g] * counts[h]
        out[user, 0], out[user, 1], out[user, 2] = mined, len(clicked) * (len(clicked) - 1) / 2, matched
        has[clicked] = False


def _resampled(sums: Floats, resamples: int, seed: int) -> Floats:
    """Column sums over all users, then over each draw of as many users, float64 [1 + resamples, 3]."""
    totals = np.empty((1 + resamples, sums.shape[1]))
    totals[0] = _added(sums, np.arange(len(sums)))
    for draw, users in enumerate(user_draws(len(sums), resamples, seed=seed), start=1):
        totals[draw] = _added(sums, users)
    return totals


@compiled()
def _added(sums: Floats, users: Longs) -> Floats:
    """Column sums over the rows of `users`, in that order."""
    total = np.zeros(sums.shape[1])
    for user in users:
        for column in range(sums.shape[1]):
            total[column] += sums[user, column]
    return total


def _lift(totals: Floats) -> PairLift:
    """Figures from the column sums of all users, row 0, and of their draws, the other rows."""
    every, draws = totals[0], totals[1:]
    lift, lift_interval = _ratio(every, draws, 1)
    matched_lift, matched_interval = _ratio(every, draws, 2)
    return PairLift(
        users_per_pair=float(every[0]),
        users_per_random_pair=float(every[1]),
        users_per_matched_pair=float(every[2]),
        lift=lift,
        lift_interval=lift_interval,
        matched_lift=matched_lift,
        matched_lift_interval=matched_interval,
    )


def _ratio(every: Floats, draws: Floats, column: int) -> tuple[float | None, list[float] | None]:
    """Column 0 over another one, and the 95 % interval of that ratio."""
    ratio = float(every[0] / every[column]) if every[column] else None
    with np.errstate(divide="ignore", invalid="ignore"):
        return ratio, finite_interval(draws[:, 0] / draws[:, column])
