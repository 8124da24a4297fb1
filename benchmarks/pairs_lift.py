"""Lift of pairs on later behaviour by cap and threshold: `python benchmarks/pairs_lift.py DATA`.

DATA is the folder of `movielens_mm_full` (ratings of 4 and more are positive, cut at one moment) or of
`amazon14_beauty` (the last 40 % of each user's events are later ones). Prints the rows of docs/pairs.md.
The extra `als` adds two of them. Minutes.
"""

import argparse
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import polars as pl

from qarm.data.interactions import Log, read_log
from qarm.data.splits import split_log
from qarm.pairs.lift import pair_lift
from qarm.pairs.mining import mine_pairs

SETTINGS: dict[str, dict[str, Any]] = {
    "defaults": {},
    "`per_item` 10": {"per_item": 10},
    "`per_item` 20": {"per_item": 20},
    "`per_item` 100": {"per_item": 100},
    "no cap": {"per_item": 1_000_000},
    "`min_count` 2 in both": {"min_count": {"item2item": 2, "user2item": 2}},
    "`min_count` 3 in both": {"min_count": {"item2item": 3, "user2item": 3}},
    "`min_count` 5 in both": {"min_count": {"item2item": 5, "user2item": 5}},
    "`min_score` 0.5 in user2item": {"min_score": {"user2item": 0.5}},
    "`min_score` 0.7 in user2item": {"min_score": {"user2item": 0.7}},
    "`popularity` 0.5": {"popularity": 0.5},
    "`popularity` 1": {"popularity": 1.0},
    "`per_item` 10, `popularity` 0.5": {"per_item": 10, "popularity": 0.5},
    "`user2item.model` als": {"user2item": {"model": "als"}},
    "`user2item.model` bpr": {"user2item": {"model": "bpr", "epochs": 100, "lr": 0.05}},
}
SOURCES = ("item2item", "user2item")


def halves(data: Path) -> tuple[Log, Log]:
    """Earlier and later positive events."""
    table = data / "interactions.parquet"
    times = pl.read_parquet(table, columns=["timestamp", "order"])
    ordered = times["timestamp"].equals(times["order"])  # no clock, an order alone
    log = read_log(table, order="order" if ordered else None, label="label")
    split = split_log(log.positives(), kind="user_tail", test=0.4, valid=0.0) if ordered else None
    if split is None:
        split = split_log(log.positives(), kind="time", test=0.3, valid=0.0)
    return split.train, split.test


def shown(figure: dict[str, Any], name: str, digits: int) -> str:
    low, high = figure[f"{name}_interval"]
    return f"{figure[name]:.{digits}f} [{low:.{digits}f}, {high:.{digits}f}]"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data", type=Path)
    past, future = halves(parser.parse_args().data)
    print(f"{len(past):,} earlier events of {len(past.users):,} users on {len(past.items):,} items,")
    print(f"{len(future):,} later ones of {len(future.users):,} users\n")
    for name, settings in SETTINGS.items():
        if "user2item.model" in name and find_spec("implicit") is None:
            continue
        pairs = mine_pairs(past, **settings)
        cells = [name]
        for source in SOURCES:
            part = pairs.filter(pl.col("source") == source)
            covered = pl.concat([part["trigger_id"], part["target_id"].alias("trigger_id")]).n_unique()
            lift = pair_lift(part, past, future).content()
            cells += [f"{part.height:,}", f"{covered / len(past.items):.2f}"]
            cells += [shown(lift, "lift", 1), shown(lift, "matched_lift", 2)]
        print("| " + " | ".join(cells) + " |", flush=True)


if __name__ == "__main__":
    main()
