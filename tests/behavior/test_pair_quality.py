"""Figures about pairs, on logs small enough to count by hand."""

import json
from collections.abc import Callable

import polars as pl
import pytest

from qarm.behavior.log import Log
from qarm.behavior.pairs import mine_pairs
from qarm.behavior.quality import pair_quality

MakeLog = Callable[..., Log]


def table(*rows: tuple[str, str, str]) -> pl.DataFrame:
    """Pairs from (trigger, target, source), the n-th with score and count n."""
    frame = pl.DataFrame(rows, schema=["trigger_id", "target_id", "source"], orient="row")
    number = pl.int_range(1, pl.len() + 1)
    return frame.with_columns(
        score=number.cast(pl.Float32), weight=pl.lit(1.0, pl.Float32), count=number.cast(pl.Int32)
    )


PAIRS = table(("a", "b", "item2item"), ("a", "c", "item2item"), ("b", "a", "user2item"))


@pytest.fixture(scope="module")
def log(make_log: MakeLog) -> Log:
    clicks = {"u": "aabc", "v": "ad", "w": "d", "x": "e"}
    return make_log([(user, item, time) for user, items in clicks.items() for time, item in enumerate(items)])


def test_counts_and_coverage(log: Log) -> None:
    quality = pair_quality(PAIRS, log)
    assert (quality["pairs"], quality["items"], quality["users"]) == (3, 5, 4)
    assert quality["sources"]["item2item"] == {
        "pairs": 2,
        "items": 3,
        "items_share": 3 / 5,
        "users_share": 2 / 4,
        "score": {"min": 1.0, "median": 1.5, "max": 2.0},
        "count": {"mean": 1.5, "max": 2},
        "per_item": {"mean": 4 / 3, "max": 2},
    }
    assert quality["per_item"] == {"mean": 2.0, "max": 3}


def test_overlap_forgets_the_direction(log: Log) -> None:
    assert pair_quality(PAIRS, log)["overlap"] == {"pairs": 1, "share": {"item2item": 0.5, "user2item": 1.0}}
    alone = pair_quality(PAIRS.head(2), log)["overlap"]
    assert alone == {"pairs": 0, "share": {"item2item": 0.0}}


def test_popularity_groups_go_from_rare_to_frequent(log: Log) -> None:
    # By clicks, then id: b 1, c 1, e 1, d 2, a 3.
    assert pair_quality(PAIRS, log, groups=2)["popularity"] == [
        {"items": 3, "log": 3 / 8, "item2item": 2 / 4, "user2item": 1 / 2},
        {"items": 2, "log": 5 / 8, "item2item": 2 / 4, "user2item": 1 / 2},
    ]


def test_lift_counts_later_users_of_both(log: Log, make_log: MakeLog) -> None:
    later = {"u": "abn", "v": "abc", "w": "aac", "x": "e"}
    future = make_log(
        [(user, item, 9) for user, items in later.items() for item in items] + [("y", "b", 9, 0)]
    )
    lift = pair_quality(PAIRS, log, future=future)["sources"]
    # Pairs of known items that later users have: ab; ab, ac, bc; ac. In all 5, over the 10 pairs of 5 items.
    assert lift["item2item"]["lift"] == {
        "users_per_pair": (2 + 2) / 2,
        "users_per_random_pair": 5 / 10,
        "lift": pytest.approx(4.0),
    }
    assert lift["user2item"]["lift"]["users_per_pair"] == 2.0


def test_no_later_pair_is_no_lift(log: Log, make_log: MakeLog) -> None:
    quality = pair_quality(PAIRS, log, future=make_log([("u", "a", 9), ("v", "n", 9)]))
    assert quality["sources"]["item2item"]["lift"] == {
        "users_per_pair": 0.0,
        "users_per_random_pair": 0.0,
        "lift": None,
    }


def test_mined_pairs_follow_planted_tastes_later_too(make_log: MakeLog) -> None:
    """Users with one taste each: pairs found early are chosen together later, random ones are not."""
    events = [(u, f"{u % 5}{(u * 3 + t * t * (1 + u % 4)) % 9}", t) for u in range(80) for t in range(12)]
    past, future = make_log(events).split_at(6)
    pairs = mine_pairs(past, user2item={"epochs": 3})
    quality = pair_quality(pairs, past, future=future)
    assert json.loads(json.dumps(quality, allow_nan=False)) == quality
    for source in ("item2item", "user2item"):
        assert quality["sources"][source]["lift"]["lift"] > 3.0
    assert quality["per_item"]["max"] <= 40
