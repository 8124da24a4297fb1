"""Figures about pairs, on logs small enough to count by hand."""

import json
from collections.abc import Callable

import polars as pl
import pytest

from qarm.data.interactions import Log
from qarm.pairs.mining import mine_pairs
from qarm.pairs.quality import pair_quality

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
    quality = pair_quality(PAIRS, log).content()
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
    assert pair_quality(PAIRS, log).content()["overlap"] == {
        "pairs": 1,
        "share": {"item2item": 0.5, "user2item": 1.0},
    }
    alone = pair_quality(PAIRS.head(2), log).content()["overlap"]
    assert alone == {"pairs": 0, "share": {"item2item": 0.0}}


def test_popularity_groups_go_from_rare_to_frequent(log: Log) -> None:
    # By clicks, then id: b 1, c 1, e 1, d 2, a 3.
    rare, frequent = pair_quality(PAIRS, log, groups=2).content()["popularity"]
    assert isinstance(rare["items"], int)  # written as 3, not as 3.0
    assert rare == {
        "items": 3,
        "log": 3 / 8,
        "item2item": 2 / 4,
        "item2item_items": 2 / 3,  # b and c
        "item2item_users": 1 / 2,  # u; x has e alone
        "user2item": 1 / 2,
        "user2item_items": 1 / 3,
        "user2item_users": 1 / 2,
    }
    assert frequent == {
        "items": 2,
        "log": 5 / 8,
        "item2item": 2 / 4,
        "item2item_items": 1 / 2,
        "item2item_users": 2 / 3,  # u and v; w has d alone
        "user2item": 1 / 2,
        "user2item_items": 1 / 2,
        "user2item_users": 2 / 3,
    }


def test_categories_of_pairs_against_those_of_all_items(log: Log) -> None:
    categories = {"a": "red", "b": "red", "c": "blue", "d": "red", "zz": "blue"}
    figures = pair_quality(PAIRS, log, categories=categories).content()["sources"]
    # Of ab, ac one is of one category; of the pairs of a, b, c, d: ab, ad, bd.
    assert figures["item2item"]["category"] == {"same": 1 / 2, "random": 3 / 6, "known": 1.0}
    assert pair_quality(PAIRS, log, categories={"a": "red"}).content()["sources"]["user2item"][
        "category"
    ] == {
        "same": None,
        "random": None,
        "known": 0.0,
    }


def test_what_was_left_out_is_counted_by_reason(log: Log) -> None:
    rejected = PAIRS.with_columns(reason=pl.Series(["cap", "score", "cap"]))
    assert pair_quality(PAIRS, log, rejected=rejected).content()["rejected"] == {
        "item2item": {"cap": 1, "score": 1},
        "user2item": {"cap": 1},
    }


def test_mined_pairs_follow_planted_tastes_later_too(make_log: MakeLog) -> None:
    """Users with one taste each: pairs found early are chosen together later, random ones are not."""
    events = [(u, f"{u % 5}{(u * 3 + t * t * (1 + u % 4)) % 9}", t) for u in range(80) for t in range(12)]
    past, future = make_log(events).split_at(6)
    pairs = mine_pairs(past, user2item={"epochs": 3})
    quality = pair_quality(pairs, past, future=future).content()
    assert json.loads(json.dumps(quality, allow_nan=False)) == quality
    for source in ("item2item", "user2item"):
        lift = quality["sources"][source]["lift"]
        assert lift["lift_interval"][0] > 3.0
        assert lift["matched_lift_interval"][0] > 3.0
    assert quality["per_item"]["max"] <= 40
