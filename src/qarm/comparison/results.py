"""Results of the comparison from the scores of all seeds: means, spreads, paired differences, Holm."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict
from typing import Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from qarm.comparison.code_sources import FREQUENCY_GROUPS, training_frequency_groups
from qarm.comparison.item_clusters import ItemClusters
from qarm.comparison.questions import answered
from qarm.comparison.seed_run import UNTRAINED, SeedRun
from qarm.comparison.two_way_intervals import TwoWayIntervals, holm
from qarm.recommender.examples import Examples
from qarm.recommender.metrics import UserAuc, auc, calibration, grouped_auc, logloss
from qarm.recommender.ranking.full_catalogue import FIGURES
from qarm.schemas.comparison import CatalogueFigures, CatalogueGain, Compared, Gain, GainKey, Means

__all__ = ["ASKED", "LENGTHS", "compare_seeds", "history_thirds", "slices_of"]

LENGTHS = ("short", "middle", "long")
ASKED = ("all", "warm", "cold")  # slices of the questions, whose intervals are computed over items too

Bools = npt.NDArray[np.bool_]
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


def slices_of(seed: SeedRun, rows: Examples) -> dict[str, Bools]:
    """Which rows belong to a slice: all, warm, cold, items by frequency, thirds of users by history."""
    group = training_frequency_groups(rows.item_ids, seed.windows.split.train)[rows.items]
    slices = {"all": np.ones(len(rows), dtype=bool), "warm": group > 0, "cold": group == 0}
    slices |= {f"L{number}": group == number for number in range(1, FREQUENCY_GROUPS + 1)}
    third = history_thirds(rows)
    return slices | {f"{name} histories": third == n for n, name in enumerate(LENGTHS)}


def history_thirds(rows: Examples) -> Ints:
    """Third of each row's user by the length of the longest history, int64 [n]."""
    longest = np.zeros(len(rows.user_ids), dtype=np.int64)
    np.maximum.at(longest, rows.users, rows.end - rows.begin)
    present = np.unique(rows.users)
    rank = np.argsort(np.argsort(longest[present], kind="stable"), kind="stable")
    third = np.zeros(len(rows.user_ids), dtype=np.int64)
    third[present] = rank * len(LENGTHS) // max(1, len(present))
    return third[rows.users]


def compare_seeds(seeds: Sequence[SeedRun], *, primary: tuple[str, str]) -> Compared:
    """Results of finished seeds, as in `compare/results.json`.

    Args:
        seeds: of one comparison.
        primary: the two variants whose difference in GAUC over all items is the primary comparison.
    """
    names = [variant.name for variant in seeds[0].variants]
    methods, against = [*names, *seeds[0].anchors], _against(names, primary)
    numbers = _user_numbers(seeds)
    means: list[Means] = []
    gains: list[Gain] = []
    ahead: list[Gain] = []
    for kind in seeds[0].evaluation.test:
        for part, by_method in _slices(seeds, methods, kind, numbers):
            judged = _slice(kind, part, by_method, against)
            means += judged.means
            gains += judged.gains
            if part == "warm":
                ahead += _anchors_ahead(judged, names, seeds[0].anchors, primary[1])
    catalogue, catalogue_gains = _catalogue(methods, seeds, numbers, against)
    main, tested = _tests(gains, primary, next(iter(seeds[0].evaluation.test)))
    return Compared(
        seeds=[seed.seed for seed in seeds],
        catalogue=catalogue,
        means=means,
        differences=[*gains, *catalogue_gains],
        primary=main,
        holm=tested,
        edition=seeds[0].config.compare.edition,
        answers=answered(gains),
        anchors_ahead=ahead,
        left_out=list(seeds[0].left_out),
    )


def _slices(
    seeds: Sequence[SeedRun], methods: Sequence[str], kind: str, numbers: Mapping[str, int]
) -> Iterator[tuple[str, dict[str, list[Rows]]]]:
    """Rows of every slice, by method, for each seed."""
    scores = [{method: seed.scores(method)[kind] for method in methods} for seed in seeds]
    rows = [seed.evaluation.test[kind] for seed in seeds]
    users = [_users_of(examples, numbers) for examples in rows]
    slices = [slices_of(seed, examples) for seed, examples in zip(seeds, rows, strict=True)]
    for part in slices[0]:
        each = list(zip(users, rows, [found[part] for found in slices], scores, strict=True))
        yield (
            part,
            {
                method: [
                    Rows(user[own], examples.items[own], examples.labels[own], score[method][own])
                    for user, examples, own, score in each
                ]
                for method in methods
            },
        )


def _against(names: Sequence[str], primary: tuple[str, str]) -> list[str]:
    """Bases of the differences: the second of the primary pair, the placebo, and the main variant."""
    wanted = (primary[1], "id+frozen", f"{primary[0]}@placebo", f"{primary[0]}@raw", primary[0])
    return [name for name in dict.fromkeys(wanted) if name in names]


class Judged(NamedTuple):
    """Means and differences of all methods on one slice, and the intervals that they come from."""

    means: list[Means]
    gains: list[Gain]
    difference: Callable[[str, str], Gain]


def _slice(kind: str, part: str, rows: Mapping[str, Sequence[Rows]], against: Sequence[str]) -> Judged:
    """Means and gains of all methods on one slice; none where no user has both labels."""
    aucs = {
        method: [grouped_auc(each.users, each.labels, each.scores) for each in seeds]
        for method, seeds in rows.items()
    }
    pooled = {method: _pooled(seeds, logits=method not in UNTRAINED) for method, seeds in rows.items()}
    intervals: dict[Literal["gauc", "uauc"], TwoWayIntervals] = {}
    items = ItemClusters(rows) if part in ASKED else None

    def difference(method: str, base: str, measure: Literal["gauc", "uauc"] = "gauc") -> Gain:
        found = intervals[measure].difference(method, base)
        estimate = asdict(found)
        if items is not None and measure == "gauc":
            wide = found.widened(items.added(method, base))
            estimate |= {"item_low": wide.low, "item_high": wide.high}
        key = GainKey(negatives=kind, slice=part, method=method, against=base, measure=measure)
        return Gain(**key.model_dump(), **estimate)

    if not any(len(seed) for seeds in aucs.values() for seed in seeds):
        return Judged([], [], difference)
    intervals |= {"gauc": TwoWayIntervals(aucs, weighted=True), "uauc": TwoWayIntervals(aucs, weighted=False)}
    by_rows, by_user = intervals["gauc"], intervals["uauc"]
    means = [
        Means(
            negatives=kind,
            slice=part,
            method=method,
            **figures._asdict(),
            gauc=by_rows.mean(method),
            gauc_spread=by_rows.spread(method),
            uauc=by_user.mean(method),
            uauc_spread=by_user.spread(method),
        )
        for method, figures in pooled.items()
    ]
    gains = [
        difference(method, base, measure)
        for measure in intervals
        for method in rows
        for base in against
        if base != method
    ]
    return Judged(means, gains, difference)


def _anchors_ahead(judged: Judged, names: Sequence[str], anchors: Sequence[str], base: str) -> list[Gain]:
    """Anchors minus the base, and minus the best variant, where the interval lies above zero."""
    variants = {entry.method: entry.gauc for entry in judged.means if entry.method in names}
    if not variants:
        return []
    best = max(variants, key=lambda name: variants[name])
    pairs = [(anchor, name) for name in dict.fromkeys((base, best)) if name in names for anchor in anchors]
    gains = (judged.difference(anchor, name) for anchor, name in pairs)
    return [gain for gain in gains if gain.low > 0]


def _catalogue(
    methods: Sequence[str], seeds: Sequence[SeedRun], numbers: Mapping[str, int], against: Sequence[str]
) -> tuple[list[CatalogueFigures], list[CatalogueGain]]:
    """Recall and NDCG at 10 over the catalogue: means, and differences in recall."""
    figures: dict[str, dict[str, float]] = {method: {} for method in methods}
    gains = []
    for column, name in enumerate(FIGURES):
        each = {m: [_catalogue_figure(seed, m, column, numbers) for seed in seeds] for m in methods}
        if not any(len(seed) for seed in each[methods[0]]):
            continue
        intervals = TwoWayIntervals(each, weighted=False)
        for method in methods:
            figures[method][name] = intervals.mean(method)
        if name.startswith("recall"):
            gains += [
                CatalogueGain(
                    negatives="catalogue",
                    slice=name,
                    measure="recall",
                    method=method,
                    against=base,
                    **asdict(intervals.difference(method, base)),
                )
                for base in against
                for method in methods
                if base != method
            ]
    entries = [CatalogueFigures.model_validate({"method": method, **figures[method]}) for method in methods]
    return entries, gains


def _catalogue_figure(seed: SeedRun, method: str, column: int, numbers: Mapping[str, int]) -> UserAuc:
    """One figure over the catalogue in place of the AUC, of the users who have it, each with weight 1."""
    rows, figure = seed.evaluation.catalogue, seed.catalogue_figures(method)[:, column]
    measured = np.isfinite(figure)
    users = _users_of(rows, numbers)[rows.groups()[:-1]][measured]
    return UserAuc(users, figure[measured], np.ones(len(users), dtype=np.int64))


def _user_numbers(seeds: Sequence[SeedRun]) -> dict[str, int]:
    """A number for every user, the same in all seeds; numbers sort faster than ids."""
    rows = [part for seed in seeds for part in (*seed.evaluation.test.values(), seed.evaluation.catalogue)]
    return {user: number for number, user in enumerate(sorted({u for part in rows for u in part.user_ids}))}


def _users_of(rows: Examples, numbers: Mapping[str, int]) -> Ints:
    """Each row's user by number."""
    return np.fromiter((numbers[user] for user in rows.user_ids), dtype=np.int64)[rows.users]


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


def _tests(gains: Sequence[Gain], primary: tuple[str, str], kind: str) -> tuple[Gain | None, dict[str, bool]]:
    """The primary comparison, and Holm's decision on each other difference in GAUC over all items."""
    overall = [g for g in gains if (g.slice, g.measure, g.negatives) == ("all", "gauc", kind)]
    main = next((g for g in overall if (g.method, g.against) == primary), None)
    others: dict[str, float] = {}
    pairs = {frozenset(primary)}
    for gain in overall:
        if (pair := frozenset((gain.method, gain.against))) not in pairs:  # each pair once
            pairs.add(pair)
            others[f"{gain.method} minus {gain.against}"] = gain.p
    return main, holm(others)
