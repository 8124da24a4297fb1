"""Pairs: the table's shape, the cap, and that nothing later can change them."""

import json
from collections import Counter
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import polars as pl
import pytest

from qarm.data.interactions import Log
from qarm.data.splits import split_log
from qarm.errors import InputError
from qarm.pairs.mining import _item2item, mine_pairs
from qarm.pairs.quality import pair_quality
from qarm.pairs.selection import ITEM2ITEM, USER2ITEM
from qarm.pairs.swing.swing import swing
from qarm.pairs.user2item import user2item

MakeLog = Callable[..., Log]
FAST = {"epochs": 2, "dim": 8}


def random_log(
    make_log: MakeLog, *, seed: int = 0, users: int = 40, items: int = 25, clicks: int = 15
) -> Log:
    rng = np.random.default_rng(seed)
    favourites = rng.integers(0, items, users)
    return make_log(
        (
            user,
            f"{int(favourites[user] + rng.integers(-4, 5)) % items:02}",
            int(time),
            int(rng.random() < 0.8),
        )
        for user in range(users)
        for time in np.sort(rng.integers(0, 1000, clicks))
    )


@pytest.fixture(scope="module")
def log(make_log: MakeLog) -> Log:
    return random_log(make_log)


@pytest.fixture(scope="module")
def pairs(log: Log) -> pl.DataFrame:
    return mine_pairs(log, user2item=FAST)


def appearances(pairs: pl.DataFrame) -> Counter[str]:
    return Counter([*pairs["trigger_id"], *pairs["target_id"]])


# ---- the table --------------------------------------------------------------------------------


def test_columns_order_and_sources(pairs: pl.DataFrame) -> None:
    assert list(pairs.schema.items()) == [
        ("trigger_id", pl.String),
        ("target_id", pl.String),
        ("source", pl.String),
        ("score", pl.Float32),
        ("weight", pl.Float32),
        ("count", pl.Int32),
    ]
    assert pairs.equals(pairs.sort("source", "trigger_id", "target_id"))
    assert set(pairs["source"]) == {ITEM2ITEM, USER2ITEM}
    assert set(pairs["weight"]) == {1.0}
    assert pairs["count"].min() > 0


def test_no_pair_twice_and_none_with_itself(pairs: pl.DataFrame) -> None:
    assert not (pairs["trigger_id"] == pairs["target_id"]).any()
    assert not pairs.select("source", "trigger_id", "target_id").is_duplicated().any()
    near = pairs.filter(source=ITEM2ITEM)
    assert len({frozenset(ends) for ends in near.select("trigger_id", "target_id").rows()}) == near.height


def test_item2item_is_the_swing_table_once_per_pair(log: Log) -> None:
    frame = mine_pairs(log, per_item=10_000, swing={"top_k": 3}, user2item=FAST).filter(source=ITEM2ITEM)
    table = {(i, j): (score, users) for i, j, score, users in swing(log, top_k=3, support=True).rows()}
    assert {frozenset(key) for key in table} == {
        frozenset(r) for r in frame.select("trigger_id", "target_id").rows()
    }
    for trigger, target, _, score, _, count in frame.rows():
        assert (np.float32(table[trigger, target][0]), table[trigger, target][1]) == (score, count)


def test_item2item_keeps_the_side_that_scores_higher() -> None:
    near = pl.DataFrame(
        [("a", "b", 1.0, 7), ("b", "a", 2.0, 8), ("c", "a", 1.0, 9), ("a", "c", 1.0, 9)],
        schema=["item_id", "neighbor_id", "score", "users"],
        orient="row",
    )
    kept = _item2item(near).select("trigger_id", "target_id", "score", "count")
    assert sorted(kept.rows()) == [("a", "c", 1.0, 9), ("b", "a", 2.0, 8)]


def test_user2item_counts_the_clicks_that_chose_a_pair(log: Log) -> None:
    frame = mine_pairs(log, per_item=10_000, user2item=FAST).filter(source=USER2ITEM)
    clicks = user2item(log, **FAST)
    assert {(a, b): n for a, b, n in frame.select("trigger_id", "target_id", "count").rows()} == Counter(
        clicks.select("trigger_id", "target_id").rows()
    )
    assert clicks.group_by("trigger_id", "target_id").agg(pl.col("score").n_unique())["score"].max() == 1


def test_the_same_seed_gives_the_same_pairs(log: Log, pairs: pl.DataFrame) -> None:
    assert mine_pairs(log, user2item=FAST).equals(pairs)
    assert not mine_pairs(log, user2item=FAST, seed=1).equals(pairs)


# ---- the cap ----------------------------------------------------------------------------------


@pytest.mark.parametrize("per_item", [1, 2, 5, 12])
def test_no_item_is_in_more_pairs_than_allowed(log: Log, per_item: int) -> None:
    capped = mine_pairs(log, per_item=per_item, user2item=FAST)
    assert max(appearances(capped).values()) == per_item
    if per_item > 1:
        sources = Counter(capped["source"])
        assert min(sources.values()) > 0.3 * capped.height


# ---- only the past ----------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["time", "user_tail", "last_out"])
def test_later_events_change_no_pair(make_log: MakeLog, kind: str) -> None:
    log = random_log(make_log, seed=5)
    split = split_log(log, kind=kind)  # type: ignore[arg-type]
    later = pl.concat([split.valid.frame, split.test.frame])["row"].to_list()
    changed = pl.col("row").is_in(later)
    other = log.frame.with_columns(
        item_id=pl.when(changed).then(pl.format("new{}", pl.col("row") % 3)).otherwise("item_id"),
        label=pl.when(changed).then(1 - pl.col("label")).otherwise("label").cast(pl.Int8),
    )
    again = split_log(replace(log, frame=other), kind=kind)  # type: ignore[arg-type]
    assert not again.test.frame.equals(split.test.frame)
    expected = mine_pairs(split.train, user2item=FAST)
    assert mine_pairs(again.train, user2item=FAST).equals(expected)
    assert not set(appearances(expected)) - set(split.train.items)


def test_cold_items_are_in_no_pair(make_log: MakeLog) -> None:
    split = split_log(random_log(make_log, seed=6), cold_items=0.2)
    assert split.cold_items
    assert not set(appearances(mine_pairs(split.train, user2item=FAST))) & set(split.cold_items)


# ---- what is refused --------------------------------------------------------------------------


def test_a_log_without_pairs_says_why(make_log: MakeLog) -> None:
    with pytest.raises(
        InputError, match="no pair comes out of 3 positive events of 3 users on 3 items: nobody has"
    ):
        mine_pairs(make_log([(n, n, n) for n in range(3)]))


def test_wrong_arguments(log: Log, make_log: MakeLog) -> None:
    with pytest.raises(InputError, match="got per_item=0, need at least 1"):
        mine_pairs(log, per_item=0)
    with pytest.raises(InputError, match="got window=0"):
        mine_pairs(log, window=0)
    with pytest.raises(InputError, match=r"got swing\.alpha=-1, need at least 0"):
        mine_pairs(log, swing={"alpha": -1.0})
    with pytest.raises(InputError, match="no positive event"):
        mine_pairs(make_log([(0, 0, 0, 0)]))


def test_one_source_is_enough(make_log: MakeLog) -> None:
    only_clicks = mine_pairs(make_log([("u", "a", 1), ("u", "b", 2)]), user2item=FAST)
    assert only_clicks.select("trigger_id", "target_id", "source").rows() == [("a", "b", USER2ITEM)]
    same_time = make_log([(user, item, 0) for user in "uv" for item in "ab"])
    assert mine_pairs(same_time, user2item=FAST)["source"].to_list() == [ITEM2ITEM]


# ---- odd logs ---------------------------------------------------------------------------------

ODD = {
    "one item each, but for two": [(u, "hub", u) for u in range(30)] + [(0, "a", 50), (1, "a", 51)],
    "all users alike": [(u, i, i) for u in range(12) for i in range(6)],
    "an item that everyone has": [
        (u, i, t) for u in range(40) for t, i in enumerate(["hub", u % 5, 9 - u % 3])
    ],
    "all at one moment": [(u, (u + k * k) % 9, 0) for u in range(20) for k in range(4)],
    "items of one user": [(u, f"{u}-{t}", t) for u in range(5) for t in range(5)],
}


@pytest.mark.parametrize("events", ODD.values(), ids=ODD)
@pytest.mark.parametrize("directions", ["one", "both"])
def test_odd_logs_still_give_pairs_and_figures(
    make_log: MakeLog, events: list[tuple[int, object, int]], directions: str
) -> None:
    log = make_log(events)
    pairs = mine_pairs(log, directions=directions, per_item=4, popularity=0.5, user2item=FAST)  # type: ignore[arg-type]
    assert 1 <= max(appearances(pairs).values()) <= 4
    assert pairs["score"].is_finite().all()
    quality = pair_quality(pairs, log, future=log).content()
    assert json.loads(json.dumps(quality, allow_nan=False)) == quality
    for figures in quality["sources"].values():
        assert figures["lift"]["lift"] > 0.0
