"""Results of the comparison from the scores of all seeds: means, spreads, paired differences, Holm."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict

import numpy as np
import numpy.typing as npt

from qarm.comparison.code_sources import FREQUENCY_GROUPS, training_frequency_groups
from qarm.comparison.questions import answered
from qarm.comparison.seed_run import SeedRun
from qarm.comparison.slice_figures import Rows, SliceFigures
from qarm.comparison.two_way_intervals import TwoWayIntervals, holm
from qarm.recommender.examples import Examples
from qarm.recommender.metrics import UserAuc
from qarm.recommender.ranking.full_catalogue import FIGURES
from qarm.schemas.comparison import CatalogueFigures, CatalogueGain, Compared, Gain, Means

__all__ = ["ASKED", "LENGTHS", "compare_seeds", "history_thirds", "slices_of"]

LENGTHS = ("short", "middle", "long")
ASKED = ("all", "warm", "cold")  # slices of the questions, whose intervals are computed over items too

Bools = npt.NDArray[np.bool_]
Ints = npt.NDArray[np.int64]


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
            figures = SliceFigures(kind, part, by_method, items=part in ASKED)
            means += figures.means()
            gains += figures.gains(against)
            if part == "warm":
                ahead += figures.anchors_ahead(names, seeds[0].anchors, primary[1])
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
