"""Selection of pairs: thresholds, popularity, mix, directions, the cap, and rejected candidates."""

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qarm.data.interactions import Log
from qarm.errors import InputError
from qarm.pairs.mining import _item2item, _user2item, mine_pairs
from qarm.pairs.selection import ITEM2ITEM, USER2ITEM, Selection, select

MakeLog = Callable[..., Log]
FAST = {"epochs": 2, "dim": 8}
RULES: dict[str, Any] = {
    "per_item": 100,
    "min_score": {},
    "min_count": {},
    "mix": {},
    "popularity": 0.0,
    "directions": "one",
}


def candidates(source: str, rows: list[tuple[str, str, float]]) -> pl.DataFrame:
    if source == USER2ITEM:
        clicks = pl.DataFrame(rows, schema=["trigger_id", "target_id", "score"], orient="row")
        return _user2item(clicks)
    schema = ["item_id", "neighbor_id", "score"]
    return _item2item(pl.DataFrame(rows, schema=schema, orient="row").with_columns(users=pl.lit(1)))


def sifted(frame: pl.DataFrame, users: dict[str, int] | None = None, **changes: Any) -> pl.DataFrame:
    had = pl.DataFrame(list((users or {}).items()), schema=["item_id", "users"], orient="row")
    return select(frame, had, Selection(**(RULES | changes)))


def kept(frame: pl.DataFrame, users: dict[str, int] | None = None, **changes: Any) -> set[str]:
    judged = sifted(frame, users, **changes).filter(pl.col("reason").is_null())
    return {a + b for a, b in judged.select("trigger_id", "target_id").rows()}


def appearances(pairs: pl.DataFrame) -> Counter[str]:
    return Counter([*pairs["trigger_id"], *pairs["target_id"]])


# ---- the cap ----------------------------------------------------------------------------------


def test_every_items_best_pair_goes_before_any_second_best() -> None:
    # ab and cd are somebody's best; ac is nobody's, however high it scores.
    frame = candidates(ITEM2ITEM, [("a", "b", 9.0), ("a", "c", 8.0), ("c", "d", 8.5), ("b", "d", 1.0)])
    assert kept(frame, per_item=2) == {"ab", "cd", "ac", "bd"}
    assert kept(frame, per_item=1) == {"ab", "cd"}


def test_more_clicks_beat_a_higher_cosine() -> None:
    frame = candidates(USER2ITEM, [("a", "b", 0.1), ("a", "b", 0.1), ("c", "b", 0.9), ("d", "b", 0.8)])
    assert kept(frame, per_item=1) == {"ab"}
    assert kept(frame, per_item=2) == {"ab", "cb"}


HUB = candidates(ITEM2ITEM, [("hub", f"i{n}", 10.0 - n) for n in range(8)])
CLICKS = [("hub", f"u{n}", 0.9 - n / 100) for n in range(8)]


def by_source(judged: pl.DataFrame) -> Counter[str]:
    return Counter(judged.filter(pl.col("reason").is_null())["source"])


def test_neither_source_crowds_the_other_out() -> None:
    both = pl.concat([HUB, candidates(USER2ITEM, CLICKS)])
    assert by_source(sifted(both, per_item=6)) == {ITEM2ITEM: 3, USER2ITEM: 3}
    few = pl.concat([HUB, candidates(USER2ITEM, CLICKS[:1])])
    assert by_source(sifted(few, per_item=6)) == {ITEM2ITEM: 5, USER2ITEM: 1}


rows = st.tuples(st.sampled_from("abcdef"), st.sampled_from("ghijkl"), st.integers(1, 9).map(float))


@given(
    near=st.lists(rows, max_size=40),
    clicks=st.lists(rows, max_size=40),
    per_item=st.integers(1, 6),
    part=st.integers(1, 3),
)
@settings(deadline=None)
def test_the_cap_holds_and_leaves_no_room(
    near: list[tuple[str, str, float]], clicks: list[tuple[str, str, float]], per_item: int, part: int
) -> None:
    parts = [
        candidates(s, r)
        for s, r in ((ITEM2ITEM, near), (USER2ITEM, [(a, b, x / 9) for a, b, x in clicks]))
        if r
    ]
    if not parts:
        return
    everything = pl.concat(parts)
    judged = sifted(everything, per_item=per_item, mix={ITEM2ITEM: part, USER2ITEM: 1})
    chosen, left_out = (judged.filter(pl.col("reason").is_null() == flag) for flag in (True, False))
    used = appearances(chosen)
    assert max(used.values()) <= per_item
    assert set(left_out["reason"]) <= {"cap"}
    for trigger, target in left_out.select("trigger_id", "target_id").rows():
        assert max(used[trigger], used[target]) == per_item


# ---- thresholds -------------------------------------------------------------------------------


def test_a_candidate_must_reach_its_sources_score_and_count() -> None:
    near = candidates(ITEM2ITEM, [("a", "b", 0.3), ("a", "c", 0.1), ("a", "d", 0.2)])
    clicks = candidates(USER2ITEM, [("a", "b", 0.1), ("a", "b", 0.1), ("c", "b", 0.9)])
    judged = sifted(
        pl.concat([near, clicks]), min_score={ITEM2ITEM: 0.2}, min_count={USER2ITEM: 2, ITEM2ITEM: 1}
    )
    assert judged.select("trigger_id", "target_id", "source", "reason").rows() == [
        ("a", "b", ITEM2ITEM, None),
        ("a", "c", ITEM2ITEM, "score"),
        ("a", "d", ITEM2ITEM, None),  # 0.2 as it is written, a float32
        ("a", "b", USER2ITEM, None),
        ("c", "b", USER2ITEM, "count"),
    ]


def test_what_is_too_weak_takes_no_room() -> None:
    clicks = candidates(USER2ITEM, [("a", "b", 0.1), ("a", "b", 0.1), ("a", "c", 0.9)])
    assert kept(clicks, per_item=1, min_score={USER2ITEM: 0.5}) == {"ac"}


# ---- popularity -------------------------------------------------------------------------------


def test_the_correction_divides_by_the_users_of_both_items() -> None:
    # b has 100 users, c has 4: 6 / 900 ** p and 3 / 36 ** p are equal at p = ln 2 / ln 25 = 0.215.
    frame, users = candidates(ITEM2ITEM, [("a", "b", 6.0), ("a", "c", 3.0)]), {"a": 9, "b": 100, "c": 4}
    assert kept(frame, users, per_item=1) == {"ab"}
    assert kept(frame, users, per_item=1, popularity=0.21) == {"ab"}
    assert kept(frame, users, per_item=1, popularity=0.22) == {"ac"}
    assert set(sifted(frame, users, popularity=0.5)["score"]) == {6.0, 3.0}


# ---- mix and directions -----------------------------------------------------------------------


def test_a_mix_divides_the_cap_and_the_weights() -> None:
    both = pl.concat([HUB, candidates(USER2ITEM, CLICKS)])
    judged = sifted(both, per_item=8, mix={ITEM2ITEM: 3.0, USER2ITEM: 1.0})
    assert by_source(judged) == {ITEM2ITEM: 6, USER2ITEM: 2}
    few = sifted(
        pl.concat([HUB.head(1), candidates(USER2ITEM, CLICKS[:4])]), mix={ITEM2ITEM: 3, USER2ITEM: 1}
    )
    # 5 pairs: 3/4 of their weight of 5 on one of them, the rest on four.
    assert few["weight"].to_list() == pytest.approx([3.75] + [1.25 / 4] * 4)
    alone = sifted(HUB, mix={ITEM2ITEM: 3.0, USER2ITEM: 1.0})
    assert set(alone["weight"]) == {1.0}


def test_both_directions_join_a_pair_with_its_reverse() -> None:
    clicks = pl.DataFrame(
        [("a", "b", 0.5), ("b", "a", 0.5), ("b", "a", 0.5), ("c", "a", 0.4)],
        schema=["trigger_id", "target_id", "score"],
        orient="row",
    )
    judged = sifted(_user2item(clicks, directed=False), per_item=4, directions="both")
    assert judged.select("trigger_id", "target_id", "count", "reason").rows() == [
        ("a", "b", 3, None),
        ("a", "c", 1, None),
        ("b", "a", 3, None),
        ("c", "a", 1, None),
    ]
    tight = sifted(_user2item(clicks, directed=False), per_item=3, directions="both")
    assert tight["reason"].to_list() == [None, "cap", None, "cap"]


# ---- through mine_pairs -----------------------------------------------------------------------


@pytest.fixture(scope="module")
def log(make_log: MakeLog) -> Log:
    return make_log((u, (u * 5 + t * t * (1 + u % 3)) % 23, t) for u in range(40) for t in range(10))


def test_pairs_and_rejected_are_all_the_candidates(log: Log, tmp_path: Path) -> None:
    options: dict[str, Any] = {
        "min_count": {USER2ITEM: 2, ITEM2ITEM: 3},
        "min_score": {USER2ITEM: 0.0},
        "per_item": 6,
        "user2item": FAST,
    }
    pairs = mine_pairs(log, **options, rejected=tmp_path / "rejected.parquet")
    rejected = pl.read_parquet(tmp_path / "rejected.parquet")
    assert rejected.columns == [*pairs.columns, "reason"]
    assert rejected.drop("reason").schema == pairs.schema
    assert set(rejected["reason"]) == {"score", "count", "cap"}
    assert rejected.equals(rejected.sort("source", "trigger_id", "target_id"))
    every = pl.concat([pairs, rejected.drop("reason")]).sort("source", "trigger_id", "target_id")
    assert every.equals(mine_pairs(log, per_item=10_000, user2item=FAST))
    weak = rejected.filter(pl.col("reason") == "count")
    assert all(n < options["min_count"][s] for n, s in weak.select("count", "source").rows())
    assert max(appearances(pairs).values()) <= 6


def test_both_directions_are_symmetric_and_capped(log: Log) -> None:
    pairs = mine_pairs(log, directions="both", per_item=8, user2item=FAST)
    ends = set(pairs.select("source", "trigger_id", "target_id", "score", "count").rows())
    assert ends == {(s, b, a, score, n) for s, a, b, score, n in ends}
    assert max(appearances(pairs).values()) == 8


def test_a_source_without_a_part_is_not_mined(log: Log, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("qarm.pairs.mining.find_triggers", None)
    only = mine_pairs(log, mix={ITEM2ITEM: 1.0})
    assert set(only["source"]) == {ITEM2ITEM}
    assert set(only["weight"]) == {1.0}


def test_wrong_rules_are_named_together(log: Log) -> None:
    with pytest.raises(InputError) as caught:
        mine_pairs(
            log,
            per_item=0,
            directions="all",
            popularity=-1.0,
            min_score={"swing": 1.0},
            mix={ITEM2ITEM: -1.0},
        )
    assert caught.value.problems == [
        "got per_item=0, need at least 1",
        "got min_score.swing=1.0, need one of item2item, user2item",
        "got mix.item2item=-1, need at least 0",
        "got popularity=-1, need at least 0",
        "got directions='all', need one of one, both",
    ]
    with pytest.raises(InputError) as caught:
        mine_pairs(log, per_item=1, directions="both", mix={ITEM2ITEM: 0.0})
    assert caught.value.problems == [
        "got per_item=1, need at least 2; raise pairs.per_item",
        "got mix={'item2item': 0.0}, need more than 0 for a source",
    ]
    with pytest.raises(InputError, match="candidates are below min_score or min_count; lower them"):
        mine_pairs(log, min_count={ITEM2ITEM: 999, USER2ITEM: 999}, user2item=FAST)
