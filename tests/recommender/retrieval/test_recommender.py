"""Recommender: lists by hand, masks, unknown users and items, new items, batch and single alike, files."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from qarm.config.retriever import RetrieverConfig
from qarm.data.codes import Codes
from qarm.data.embeddings import Embeddings
from qarm.data.interactions import Log
from qarm.data.splits import split_log
from qarm.errors import ArtifactError, InputError
from qarm.recommender.retrieval.recommender import Recommender, recommendations_frame
from qarm.recommender.retrieval.retrieve import retrieve
from qarm.recommender.retrieval.storage import read_retriever

GROUPS, PER_GROUP = 3, 10
ITEMS = [f"i{group}{place}" for group in range(GROUPS) for place in range(PER_GROUP)]
CONFIG = RetrieverConfig(dim=8, epochs=3, min_steps=300, batch=64, negatives=8, cold_items=0.0)


def codes() -> Codes:
    rq = np.array([[int(item[1]), int(item[2]) % 2] for item in ITEMS], np.int32)
    return Codes(ITEMS, rq)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, make_log: Callable[..., Log]) -> Path:
    """A run's retriever and codes: 90 users keep to one group of items; i09 has no event."""
    random = np.random.default_rng(0)
    events = []
    for user in range(90):
        group = user % GROUPS
        places = random.permutation(PER_GROUP - (group == 0))[:5]
        events += [
            (f"u{user:02d}", f"i{group}{place}", 10 * user + step) for step, place in enumerate(places)
        ]
    split = split_log(make_log(events), kind="last_out")
    run = tmp_path_factory.mktemp("run")
    vectors = np.eye(GROUPS, dtype=np.float32)[[int(item[1]) for item in ITEMS]]
    vectors = vectors + 0.05 * random.normal(size=vectors.shape).astype(np.float32)
    retrieve(
        split,
        ITEMS,
        codes=codes(),
        vectors=Embeddings(ITEMS, vectors),
        config=CONFIG,
        folder=run / "retriever",
        seed=0,
    )
    codes().write(run / "codes" / "codes.parquet")
    return run


@pytest.fixture(scope="module")
def recommender(folder: Path) -> Recommender:
    return Recommender.from_run(folder)


def test_a_list_keeps_to_the_user_s_group_and_leaves_out_what_was_had(recommender: Recommender) -> None:
    [part] = recommender.recommend(histories=[["i10", "i12", "i13"]], k=3)
    assert {item.item_id[1] for item in part.items} == {"1"}
    assert [item.rank for item in part.items] == [1, 2, 3]
    assert all(item.because in {"i10", "i12", "i13"} for item in part.items)
    scores = [item.score for item in part.items]
    assert scores == sorted(scores, reverse=True)


def test_lists_never_hold_what_was_had_unless_asked(recommender: Recommender) -> None:
    for part in recommender.recommend(list(recommender.users), k=len(ITEMS)):
        had = {recommender.item_ids[row] for row in recommender.histories[recommender.users[part.user_id]]}
        ids = [item.item_id for item in part.items]
        assert not had & set(ids)
        assert len(ids) == len(set(ids)) == len(ITEMS) - len(had)
    [again] = recommender.recommend("u01", k=len(ITEMS), repeat=True)
    assert len(again.items) == len(ITEMS)


def test_a_cold_item_with_the_codes_of_liked_ones_comes_before_other_groups(recommender: Recommender) -> None:
    [part] = recommender.recommend(histories=[["i01", "i03"]], k=len(ITEMS))
    ranks = {item.item_id: item.rank for item in part.items}
    others = [ranks[item] for item in ITEMS if item[1] != "0"]
    assert ranks["i09"] < min(others)


def test_batch_and_single_are_equal(recommender: Recommender) -> None:
    users = list(recommender.users)
    batch = recommender.recommend(users, k=5)
    assert batch == [recommender.recommend(user, k=5)[0] for user in users]


def test_unknown_users_and_empty_histories_get_the_popular_items_of_late(recommender: Recommender) -> None:
    unknown, empty, strange = [
        *recommender.recommend("nobody", k=4),
        *recommender.recommend(histories=[[], ["what", "is", "this"]], k=4),
    ]
    assert unknown.popular
    assert empty.popular
    assert strange.popular
    assert unknown.items == empty.items == strange.items
    assert strange.unknown == 3
    expected = np.argsort(-recommender.recent, kind="stable")[:4]
    assert [item.item_id for item in unknown.items] == [recommender.item_ids[row] for row in expected]
    assert {item.why for item in unknown.items} == {"popular of late"}
    assert {item.because for item in unknown.items} == {None}


def test_unknown_and_repeated_items_of_a_history_are_defined(recommender: Recommender) -> None:
    [part] = recommender.recommend(histories=[["i10", "nothing", "i10"]], k=2)
    assert part.unknown == 1
    assert not part.popular
    assert "i10" not in {item.item_id for item in part.items}


def test_only_and_without_bound_the_list(recommender: Recommender) -> None:
    [part] = recommender.recommend("u00", k=9, only=["i20", "i21", "i22"], without=["i21"])
    assert {item.item_id for item in part.items} == {"i20", "i22"}
    [none] = recommender.recommend("u00", k=9, only=["i20"], without=["i20"])
    assert none.items == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"users": "u00", "k": 0}, "got k=0, need at least 1"),
        ({}, "give users or histories"),
        ({"users": "u00", "histories": [[]]}, "give users or histories"),
        ({"users": "u00", "only": ["nope"]}, "no item nope in the catalogue of 30"),
        ({"users": "u00", "without": ["nope"]}, "no item nope in the catalogue of 30"),
    ],
)
def test_wrong_arguments_are_refused(recommender: Recommender, arguments: dict, message: str) -> None:
    with pytest.raises(InputError, match=message):
        recommender.recommend(**arguments)


def test_similar_items_and_users_share_the_group(recommender: Recommender) -> None:
    assert {item[1] for item, _ in recommender.similar_items("i21", 3)} == {"2"}
    assert {int(user[1:]) % GROUPS for user, _ in recommender.similar_users("u04", 5)} == {1}
    with pytest.raises(InputError, match="no item what"):
        recommender.similar_items("what")
    with pytest.raises(InputError, match="no user nobody"):
        recommender.similar_users("nobody")


def test_new_items_are_recommended_by_their_codes(folder: Path) -> None:
    more = Codes([*ITEMS, "new"], np.concatenate([codes().rq, [[2, 0]]]).astype(np.int32))
    recommender = Recommender(read_retriever(folder / "retriever")).with_codes(more)
    [part] = recommender.recommend(histories=[["i20", "i22"]], k=len(ITEMS) + 1)
    ranks = {item.item_id: item.rank for item in part.items}
    assert ranks["new"] < min(rank for item, rank in ranks.items() if item[1] == "1")
    [with_it] = recommender.recommend(histories=[["new"]], k=3)
    assert {item.item_id[1] for item in with_it.items} == {"2"}


def test_the_frame_has_a_row_for_each_item(recommender: Recommender) -> None:
    frame = recommendations_frame(recommender.recommend(["u00", "u01"], k=3))
    assert frame.columns == ["user_id", "rank", "item_id", "score", "why", "because"]
    assert frame["rank"].to_list() == [1, 2, 3] * 2
    assert frame["user_id"].to_list() == ["u00"] * 3 + ["u01"] * 3


def test_a_missing_or_damaged_retriever_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="has no finished retriever; run: qarm retrieve"):
        Recommender.from_run(tmp_path)


def test_a_large_catalogue_s_lists_come_from_the_candidate_index(
    folder: Path, monkeypatch: pytest.MonkeyPatch, recommender: Recommender
) -> None:
    monkeypatch.setattr("qarm.recommender.retrieval.recommender.INDEXED", 1)
    indexed = Recommender.from_run(folder)
    assert indexed.candidates is not None
    users = ["u00", "u01", "u02", "nobody"]
    for options in ({}, {"repeat": True}, {"only": ITEMS[3:20]}, {"without": ITEMS[3:20], "k": 40}):
        assert indexed.recommend(users, **options) == recommender.recommend(users, **options)
