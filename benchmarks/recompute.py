"""Recomputes the figures of a comparison from its evidence, with scikit-learn and scipy alone.

    python benchmarks/recompute.py RUN [--methods id id+rq+vq] [--negatives uniform]

Reads `RUN/compare/evidence/*.parquet`, nothing of qarm: AUC of each user and of all rows by
`sklearn.metrics.roc_auc_score`, intervals over users and seeds by `scipy.stats.t`. Prints a table of GAUC and
differences beside those of `RUN/compare/results.json`, and exits with 1 where one differs by more than 1e-6.
"""

import argparse
import json
import sys
from itertools import product
from pathlib import Path

import numpy as np
import polars as pl
from scipy.stats import t
from sklearn.metrics import roc_auc_score

SLICES = {"all": None, "warm": pl.col("frequency_group") > 0, "cold": pl.col("frequency_group") == 0}
SCORE, TOLERANCE = "score ", 1e-6

Users = dict[str, tuple[float, int]]  # AUC and rows by user


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("run", type=Path)
    parser.add_argument("--methods", nargs="*", help="default: all")
    parser.add_argument("--negatives", help="default: every kind")
    arguments = parser.parse_args()
    compare = arguments.run / "compare"
    results = json.loads((compare / "results.json").read_text(encoding="utf-8"))
    worst = 0.0
    for kind in dict.fromkeys(entry["negatives"] for entry in results["means"]):
        if arguments.negatives in (None, kind):
            frames = [
                pl.read_parquet(compare / "evidence" / f"seed-{seed}-{kind}.parquet")
                for seed in results["seeds"]
            ]
            worst = max(worst, check(results, frames, kind, arguments.methods))
    print(f"largest difference from results.json: {worst:.1e}")
    return int(worst > TOLERANCE)


def check(results: dict, frames: list[pl.DataFrame], kind: str, chosen: list[str] | None) -> float:
    """Print the figures of one kind of negatives; the largest difference from the file's."""
    methods = [name.removeprefix(SCORE) for name in frames[0].columns if name.startswith(SCORE)]
    methods = [method for method in methods if chosen is None or method in chosen]
    worst = 0.0
    for part, condition in SLICES.items():
        rows = frames if condition is None else [frame.filter(condition) for frame in frames]
        users = {method: [user_aucs(frame, method) for frame in rows] for method in methods}
        for entry in results["means"]:
            if (entry["negatives"], entry["slice"]) == (kind, part) and entry["method"] in methods:
                method = entry["method"]
                gauc = float(np.mean([weighted(each) for each in users[method]]))
                auc = float(np.mean([whole_auc(frame, method) for frame in rows]))
                print(f"{kind}  {part}  {method}  GAUC {gauc:.6f}  AUC {auc:.6f}")
                worst = max(worst, abs(gauc - entry["gauc"]), abs(auc - entry["auc"]))
        for gain in results["differences"]:
            key = (gain["negatives"], gain["slice"], gain["measure"])
            if key == (kind, part, "gauc") and {gain["method"], gain["against"]} <= set(methods):
                found = interval(users[gain["method"]], users[gain["against"]])
                text = "{:+.6f} [{:+.6f}, {:+.6f}]".format(*found)
                print(f"{kind}  {part}  {gain['method']} minus {gain['against']}  {text}")
                stored = (gain["mean"], gain["low"], gain["high"])
                worst = max(worst, *(abs(a - b) for a, b in zip(found, stored, strict=True)))
    return worst


def user_aucs(rows: pl.DataFrame, method: str) -> Users:
    found = {}
    for (user,), part in rows.group_by("user_id"):
        labels = part["label"].to_numpy()
        if 0 < labels.sum() < len(labels):
            found[user] = roc_auc_score(labels, part[SCORE + method].to_numpy()), len(labels)
    return found


def whole_auc(rows: pl.DataFrame, method: str) -> float:
    return float(roc_auc_score(rows["label"].to_numpy(), rows[SCORE + method].to_numpy()))


def weighted(users: Users) -> float:
    aucs, rows = zip(*users.values(), strict=True)
    return float(np.average(aucs, weights=rows))


def interval(method: list[Users], against: list[Users]) -> tuple[float, float, float]:
    """Mean and 95 % interval: users plus seeds minus their crossing, t with Satterthwaite's df."""
    seeds = len(method)
    influence: dict[tuple[str, int], float] = {}
    means = []
    for seed, (one, other) in enumerate(zip(method, against, strict=True)):
        whole = sum(rows for _, rows in one.values())
        gain = {user: one[user][0] - other[user][0] for user in one}
        means.append(sum(gain[user] * one[user][1] for user in one) / whole)
        influence |= {(u, seed): one[u][1] / whole * (gain[u] - means[-1]) for u in one}
    names = {user for (user, _), value in influence.items() if value}
    by_user = {u: sum(influence.get((u, s), 0.0) for s in range(seeds)) / seeds for u in names}
    correction = len(names) / (len(names) - 1)
    of_users, many = correction * sum(value**2 for value in by_user.values()), len(names) - 1
    crossed = of_seeds = 0.0
    if seeds > 1:
        around = (influence.get((u, s), 0.0) - by_user[u] for u, s in product(names, range(seeds)))
        crossed = correction * sum(value**2 for value in around) / (seeds * (seeds - 1))
        of_seeds = float(np.var(means, ddof=1)) / seeds
    variance = of_users + max(0.0, of_seeds - crossed)
    spent = of_users**2 / many
    if of_seeds > crossed:
        spent += of_seeds**2 / (seeds - 1) + crossed**2 / (many * (seeds - 1))
    half = float(t.ppf(0.975, variance**2 / spent) * np.sqrt(variance)) if variance else 0.0
    mean = float(np.mean(means))
    return mean, mean - half, mean + half


if __name__ == "__main__":
    sys.exit(main())
