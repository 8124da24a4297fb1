"""Results of the comparison from the scores of all seeds: means, spreads, paired differences, Holm."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from qarm.comparison.bootstrap import POWER, UserBootstrap, holm
from qarm.comparison.code_sources import FREQUENCY_GROUPS, training_frequency_groups
from qarm.comparison.seed_run import UNTRAINED, SeedRun
from qarm.recommender.examples import Examples
from qarm.recommender.metrics import UserAuc, auc, calibration, grouped_auc, logloss
from qarm.recommender.ranking.full_catalogue import FIGURES
from qarm.schemas.comparison import CatalogueFigures, CatalogueGain, Compared, Gain, Means, Primary

__all__ = ["compare_seeds", "slices_of"]

LENGTHS = ("short", "middle", "long")

Bools = npt.NDArray[np.bool_]
Floats = npt.NDArray[np.float32]
Ints = npt.NDArray[np.int64]


class Rows(NamedTuple):
    """Test rows of one seed on one slice: user numbers, labels and a method's scores, [n] each."""

    users: Ints
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
    lengths = rows.end - rows.begin
    longest = np.zeros(len(rows.user_ids), dtype=np.int64)
    np.maximum.at(longest, rows.users, lengths)
    present = np.unique(rows.users)
    rank = np.argsort(np.argsort(longest[present], kind="stable"), kind="stable")
    third = np.zeros(len(rows.user_ids), dtype=np.int64)
    third[present] = rank * len(LENGTHS) // max(1, len(present))
    return slices | {f"{name} histories": third[rows.users] == n for n, name in enumerate(LENGTHS)}


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
    for kind in seeds[0].evaluation.test:
        scores = [{m: seed.scores(m)[kind] for m in methods} for seed in seeds]
        rows = [seed.evaluation.test[kind] for seed in seeds]
        users = [_users_of(examples, numbers) for examples in rows]
        slices = [slices_of(seed, examples) for seed, examples in zip(seeds, rows, strict=True)]
        for part in slices[0]:
            by_method = {
                method: [
                    Rows(user[found[part]], examples.labels[found[part]], score[method][found[part]])
                    for user, examples, found, score in zip(users, rows, slices, scores, strict=True)
                ]
                for method in methods
            }
            part_means, part_gains = _slice(kind, part, by_method, against)
            means += part_means
            gains += part_gains
    catalogue, catalogue_gains = _catalogue(methods, seeds, numbers, against)
    main, tested = _tests(gains, primary, next(iter(seeds[0].evaluation.test)))
    return Compared(
        seeds=[seed.seed for seed in seeds],
        catalogue=catalogue,
        means=means,
        differences=[*gains, *catalogue_gains],
        primary=main,
        holm=tested,
    )


def _against(names: Sequence[str], primary: tuple[str, str]) -> list[str]:
    """Bases of the differences: the second of the primary pair, the placebo, and the main variant."""
    wanted = (primary[1], "id+frozen", f"{primary[0]}@placebo", f"{primary[0]}@raw", primary[0])
    return [name for name in dict.fromkeys(wanted) if name in names]


def _slice(
    kind: str, part: str, rows: Mapping[str, Sequence[Rows]], against: Sequence[str]
) -> tuple[list[Means], list[Gain]]:
    """Means and gains of all methods on one slice; none where no user has both labels."""
    aucs = {method: [grouped_auc(*each) for each in seeds] for method, seeds in rows.items()}
    pooled = {method: _pooled(seeds, logits=method not in UNTRAINED) for method, seeds in rows.items()}
    if not any(len(seed) for seeds in aucs.values() for seed in seeds):
        return [], []
    by_rows = UserBootstrap(aucs, weighted=True)
    by_user = UserBootstrap(aucs, weighted=False)
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
    measures: tuple[tuple[Literal["gauc", "uauc"], UserBootstrap], ...]
    measures = ("gauc", by_rows), ("uauc", by_user)
    gains = [
        Gain(
            negatives=kind,
            slice=part,
            method=method,
            against=base,
            measure=measure,
            **asdict(bootstrap.difference(method, base)),
        )
        for measure, bootstrap in measures
        for method in rows
        for base in against
        if base != method
    ]
    return means, gains


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
        bootstrap = UserBootstrap(each, weighted=False)
        for method in methods:
            figures[method][name] = bootstrap.mean(method)
        if name.startswith("recall"):
            gains += [
                CatalogueGain(
                    negatives="catalogue",
                    slice=name,
                    measure="recall",
                    method=method,
                    against=base,
                    **asdict(bootstrap.difference(method, base)),
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
    for _, labels, scores in seeds:
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


def _tests(
    gains: Sequence[Gain], primary: tuple[str, str], kind: str
) -> tuple[Primary | None, dict[str, bool]]:
    """The primary comparison, and Holm's decision on each other difference in GAUC over all items."""
    overall = [g for g in gains if (g.slice, g.measure, g.negatives) == ("all", "gauc", kind)]
    main = next((g for g in overall if (g.method, g.against) == primary), None)
    others: dict[str, float] = {}
    pairs = {frozenset(primary)}
    for gain in overall:
        if (pair := frozenset((gain.method, gain.against))) not in pairs:  # each pair once
            pairs.add(pair)
            others[f"{gain.method} minus {gain.against}"] = gain.p
    if main is None:
        return None, holm(others)
    return Primary(**dict(main), smallest_effect=POWER * main.error), holm(others)
