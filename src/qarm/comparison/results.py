"""From all seeds' scores to the comparison's figures: means, spreads, paired differences, Holm."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from qarm.comparison.bootstrap import POWER, Judge, holm
from qarm.comparison.code_sources import FREQUENCY_GROUPS, event_groups
from qarm.comparison.seed_run import UNTRAINED, Seed
from qarm.recommender.examples import Examples
from qarm.recommender.metrics import UserAuc, auc, calibration, grouped_auc, logloss
from qarm.recommender.ranking.full_catalogue import FIGURES

__all__ = ["figures", "slices_of"]

LENGTHS = ("short", "middle", "long")
MEASURES = {"gauc": True, "uauc": False}

Bools = npt.NDArray[np.bool_]
Ints = npt.NDArray[np.int64]


def slices_of(seed: Seed, rows: Examples) -> dict[str, Bools]:
    """Which rows belong to a slice: all, warm, cold, items by frequency, thirds of users by history."""
    group = event_groups(rows.item_ids, seed.windows.split.train)[rows.items]
    found = {"all": np.ones(len(rows), dtype=bool), "warm": group > 0, "cold": group == 0}
    found |= {f"L{number}": group == number for number in range(1, FREQUENCY_GROUPS + 1)}
    lengths = rows.end - rows.begin
    longest = np.zeros(len(rows.user_ids), dtype=np.int64)
    np.maximum.at(longest, rows.users, lengths)
    there = np.unique(rows.users)
    rank = np.argsort(np.argsort(longest[there], kind="stable"), kind="stable")
    third = np.zeros(len(rows.user_ids), dtype=np.int64)
    third[there] = rank * len(LENGTHS) // max(1, len(there))
    return found | {f"{name} histories": third[rows.users] == n for n, name in enumerate(LENGTHS)}


def figures(seeds: Sequence[Seed], *, primary: tuple[str, str]) -> dict[str, Any]:
    """The content of `compare/results.json`.

    Args:
        seeds: finished ones, of one comparison.
        primary: the two variants whose difference in GAUC over all items is the primary comparison.

    Returns:
        `means`: an entry for each kind of negatives, slice and method; `differences`: of each method from
        each of `against`, with intervals; `primary`: the primary one, with the smallest effect that the set
        could show; `holm`: whether each other difference in GAUC over all items stands at 5 %.
    """
    names = [variant.name for variant in seeds[0].variants]
    methods = [*names, *seeds[0].anchors]
    numbers = _numbered(seeds)
    means, differences = [], []
    for kind in seeds[0].judged.test:
        scores = [{m: seed.scores(m)[kind] for m in methods} for seed in seeds]
        rows = [seed.judged.test[kind] for seed in seeds]
        owners = [_owners(part, numbers) for part in rows]
        parts = [slices_of(seed, part) for seed, part in zip(seeds, rows, strict=True)]
        for part in parts[0]:
            chosen = [found[part] for found in parts]
            entries, gains = _slice(methods, scores, rows, owners, chosen, against=_against(names, primary))
            means += [{"negatives": kind, "slice": part, **entry} for entry in entries]
            differences += [{"negatives": kind, "slice": part, **gain} for gain in gains]
    entries, gains = _catalogue(methods, seeds, numbers, against=_against(names, primary))
    differences += gains
    return {
        "seeds": [seed.seed for seed in seeds],
        "catalogue": entries,
        "means": means,
        "differences": differences,
        **_tested(differences, primary, next(iter(seeds[0].judged.test))),
    }


def _against(names: Sequence[str], primary: tuple[str, str]) -> list[str]:
    """What every method is compared with: the primary's second, the placebo, and the main variant."""
    wanted = (primary[1], "id+frozen", f"{primary[0]}@placebo", f"{primary[0]}@raw", primary[0])
    return [name for name in dict.fromkeys(wanted) if name in names]


def _slice(
    methods: Sequence[str],
    scores: Sequence[Mapping[str, npt.NDArray[np.float32]]],
    rows: Sequence[Examples],
    owners: Sequence[Ints],
    chosen: Sequence[Bools],
    *,
    against: Sequence[str],
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    each: dict[str, list[UserAuc]] = {}
    entries = []
    for method in methods:
        own = [
            (owner[keep], part.labels[keep], score[method][keep])
            for part, owner, keep, score in zip(rows, owners, chosen, scores, strict=True)
        ]
        each[method] = [grouped_auc(*part) for part in own]
        entries.append({"method": method, **_pooled(own, logits=method not in UNTRAINED)})
    if not any(len(part) for parts in each.values() for part in parts):
        return [], []
    gains = []
    for measure, weighted in MEASURES.items():
        judge = Judge(each, weighted=weighted)
        for entry in entries:
            method = entry["method"]
            entry |= {measure: judge.mean(method), f"{measure}_spread": judge.spread(method)}
            for base in against:
                if base != method:
                    found = judge.difference(method, base)
                    gains.append({"method": method, "against": base, "measure": measure, **vars(found)})
    return entries, gains


def _catalogue(
    methods: Sequence[str], seeds: Sequence[Seed], numbers: Mapping[str, int], *, against: Sequence[str]
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Recall and NDCG at 10 over the catalogue: means, and differences in recall."""
    entries: list[dict[str, Any]] = [{"method": method} for method in methods]
    gains = []
    for column, figure in enumerate(FIGURES):
        each: dict[str, list[UserAuc]] = {}
        for method in methods:
            each[method] = [_of_users(seed, method, column, numbers) for seed in seeds]
        if not any(len(part) for part in each[methods[0]]):
            continue
        judge = Judge(each, weighted=False)
        for entry in entries:
            entry[figure] = judge.mean(entry["method"])
        for base in against:
            for method in methods:
                if base != method and figure.startswith("recall"):
                    found = judge.difference(method, base)
                    place = {"negatives": "catalogue", "slice": figure, "measure": "recall"}
                    gains.append({**place, "method": method, "against": base, **vars(found)})
    return entries, gains


def _of_users(seed: Seed, method: str, column: int, numbers: Mapping[str, int]) -> UserAuc:
    rows, found = seed.judged.catalogue, seed.tops(method)[:, column]
    there = np.isfinite(found)
    users = _owners(rows, numbers)[rows.groups()[:-1]][there]
    return UserAuc(users, found[there], np.ones(len(users), dtype=np.int64))


def _numbered(seeds: Sequence[Seed]) -> dict[str, int]:
    """A number for every user, by which seeds with other users are joined; numbers sort faster than ids."""
    rows = [part for seed in seeds for part in (*seed.judged.test.values(), seed.judged.catalogue)]
    return {user: number for number, user in enumerate(sorted({u for part in rows for u in part.user_ids}))}


def _owners(rows: Examples, numbers: Mapping[str, int]) -> Ints:
    """Each row's user by number."""
    return np.fromiter((numbers[user] for user in rows.user_ids), dtype=np.int64)[rows.users]


def _pooled(parts: Sequence[tuple[Any, Any, Any]], *, logits: bool) -> dict[str, Any]:
    """AUC, logloss and calibration over all rows of a slice, averaged over seeds, and its size."""
    found: dict[str, list[float]] = {"auc": [], "logloss": [], "calibration": []}
    for _, labels, scores in parts:
        moved = scores.astype(np.float64)
        measured = {"auc": auc(labels, scores)}
        if logits:
            measured |= {"logloss": logloss(labels, moved), "calibration": calibration(labels, moved)}
        for name, value in measured.items():
            if value is not None:
                found[name].append(value)
    means = {name: float(np.mean(values)) if values else None for name, values in found.items()}
    return means | {
        "rows": sum(len(labels) for _, labels, _ in parts),
        "users": len(np.unique(np.concatenate([users for users, _, _ in parts]))),
    }


def _tested(differences: Sequence[Mapping[str, Any]], primary: tuple[str, str], kind: str) -> dict[str, Any]:
    overall = [
        d for d in differences if d["slice"] == "all" and d["measure"] == "gauc" and d["negatives"] == kind
    ]
    main = next((d for d in overall if (d["method"], d["against"]) == primary), None)
    others: dict[str, float] = {}
    pairs = {frozenset(primary)}
    for d in overall:
        if (pair := frozenset((d["method"], d["against"]))) not in pairs:  # each pair once
            pairs.add(pair)
            others[f"{d['method']} minus {d['against']}"] = d["p"]
    smallest = None if main is None else POWER * main["error"]
    return {
        "primary": None if main is None else {**main, "smallest_effect": smallest},
        "holm": holm(others),
    }
