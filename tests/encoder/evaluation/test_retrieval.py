"""Candidates and what follows: points by hand, and a twin that looks at everything in plain Python."""

from collections.abc import Iterable

import numpy as np
import polars as pl
import pytest
import torch

from qarm.data.embeddings import Embeddings
from qarm.data.interactions import Log
from qarm.encoder.evaluation import retrieval
from qarm.encoder.evaluation.retrieval import (
    UNRANKED,
    RetrievalTask,
    Scorer,
    by_clicks,
    by_popularity,
    by_vectors,
    retrieval_task,
    truth_ranks,
)

ITEMS = ["a", "b", "c", "d", "e"]


def log_of(rows: Iterable[tuple[str, str, int, int]]) -> Log:
    frame = pl.DataFrame(rows, schema=["user_id", "item_id", "time", "label"], orient="row")
    frame = frame.with_columns(pl.col("label").cast(pl.Int8)).with_row_index("row")
    return Log(frame.with_columns(pl.col("row").cast(pl.Int64)).sort("user_id", "time", "row"))


def clicks(text: str) -> Log:
    """`u:abc v:d` is three clicks of u and one of v, a capital letter a negative."""
    rows = []
    for part in text.split():
        user, items = part.split(":")
        rows += [(user, i.lower(), time, int(i.islower())) for time, i in enumerate(items)]
    return log_of(rows)


def lists(asked: RetrievalTask, name: str) -> list[str]:
    part = getattr(asked, name)
    ends = zip(part.starts, part.starts[1:], strict=False)
    return ["".join(asked.item_ids[i] for i in part.values[a:b]) for a, b in ends]


def test_who_asks_with_what() -> None:
    asked = retrieval_task(
        clicks("u:abAC v:Bd w:ab x:ab z:bcd"), clicks("u:cde v:ac w:B x:a y:b z:dEa"), ITEMS, queries=2
    )
    # w likes nothing later, x nothing new, y has no past; c was seen by u, d chosen again by z, e disliked
    assert asked.users == ["u", "v", "z"]
    assert lists(asked, "queries") == ["ab", "d", "cd"]
    assert lists(asked, "seen") == ["abc", "bd", "bcd"]
    assert lists(asked, "truth") == ["de", "ac", "a"]
    assert asked.user_rows.tolist() == [0, 0, 1, 1, 2]


def test_a_repeated_item_counts_by_its_latest_click() -> None:
    asked = retrieval_task(clicks("u:abca"), clicks("u:d"), ITEMS, queries=2)
    assert lists(asked, "queries") == ["ac"]


def table(scores: list[list[float]]) -> Scorer:
    return lambda queries: torch.tensor(scores)[torch.from_numpy(queries)]


def test_candidates_by_hand() -> None:
    """a and b ask, each for two: a brings e, d (c is seen); b brings d, e; d's best is .9, e's .8."""
    asked = retrieval_task(clicks("u:abC"), clicks("u:de"), ITEMS)
    scores = [[9.0, 9.0, 9.0, 0.7, 0.8], [9.0, 9.0, 9.0, 0.9, 0.1], *[[0.0] * 5] * 3]
    assert truth_ranks(asked, table(scores), each=2).tolist() == [0, 1]
    # each for one: a brings e, b brings d
    assert truth_ranks(asked, table(scores), each=1).tolist() == [0, 1]
    # e nowhere: a brings d alone, b as well
    scores[0][4] = scores[1][4] = -np.inf
    assert truth_ranks(asked, table(scores), each=2).tolist() == [0, UNRANKED]


def test_equal_scores_stand_by_number_and_the_lower_number_is_brought() -> None:
    asked = retrieval_task(clicks("u:a"), clicks("u:bcde"), ITEMS)
    equal = table([[1.0] * 5] * 5)
    assert truth_ranks(asked, equal, each=4).tolist() == [0, 1, 2, 3]
    assert truth_ranks(asked, equal, each=2).tolist() == [0, 1, UNRANKED, UNRANKED]


def test_cosines_and_items_without_a_vector() -> None:
    vectors = np.array([[3.0, 4.0], [1.0, 0.0], [0.0, 0.0]], dtype=np.float32)
    scores = by_vectors(Embeddings(["c", "a", "b"], vectors), ["a", "b", "c", "d"])(np.array([0, 1, 2]))
    nothing = [-np.inf] * 4
    assert scores[0].tolist() == pytest.approx([1.0, -np.inf, 0.6, -np.inf])
    assert scores[1].tolist() == nothing
    assert scores[2].tolist() == pytest.approx([0.6, -np.inf, 1.0, -np.inf])


def test_clicks_and_popularity_by_hand() -> None:
    log = clicks("u:ab v:ab w:bC x:c")
    scores = by_clicks(log, ITEMS)(np.array([0, 2]))
    # a and b: two of a's two and b's three users; w does not like c
    assert scores[0].tolist() == pytest.approx([1.0, 2 / 6**0.5, -np.inf, -np.inf, -np.inf])
    assert scores[1].tolist() == pytest.approx([-np.inf, -np.inf, 1.0, -np.inf, -np.inf])
    assert by_popularity(log, ITEMS)(np.array([3])).tolist() == [[2.0, 3.0, 1.0, 0.0, 0.0]]


def twin(asked: RetrievalTask, scorer: Scorer, each: int) -> list[int]:
    """The docstring in plain Python, one user at a time, over every item."""
    total, found = len(asked.item_ids), []
    for user in range(len(asked.users)):
        mine = [
            part.values[part.starts[user] : part.starts[user + 1]].tolist()
            for part in (asked.queries, asked.seen, asked.truth)
        ]
        best: dict[int, float] = {}
        for query in mine[0]:
            row = scorer(np.array([query]))[0].tolist()
            new = [i for i in range(total) if i not in mine[1] and row[i] > -np.inf]
            for item in sorted(new, key=lambda i: (-row[i], i))[:each]:
                best[item] = max(best.get(item, -np.inf), row[item])
        standing = sorted(best, key=lambda i: (-best[i], i))
        found += [standing.index(item) if item in best else UNRANKED for item in mine[2]]
    return found


@pytest.mark.parametrize("small", [False, True])
@pytest.mark.parametrize("each", [1, 3, 40])
def test_the_twin_agrees(each: int, small: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Many ties, heavy and light users, and tables cut into many blocks and chunks."""
    if small:
        monkeypatch.setattr(retrieval, "TABLE_BYTES", 12 * 30 * 25)
        monkeypatch.setattr(retrieval, "CHUNK_BYTES", 8 * 40 * 3)
    random = np.random.default_rng(each)
    rows = [
        (f"u{user}", f"i{item}", time, int(random.random() < 0.8))
        for user in range(25)
        for time, item in enumerate(random.integers(0, 40, size=random.integers(1, 30)))
    ]
    past = log_of([row for row in rows if row[2] < 20])
    later = random.integers(0, 40, size=(25, 6))
    future = log_of([(f"u{user}", f"i{item}", 30, 1) for user in range(25) for item in later[user]])
    ids = [f"i{item}" for item in range(40)]
    asked = retrieval_task(past, future, ids, queries=4)
    twins = random.normal(size=(12, 3)).astype(np.float32)[random.integers(0, 12, size=40)]
    for scorer in (by_vectors(Embeddings(ids, twins), ids), by_clicks(past, ids), by_popularity(past, ids)):
        found = truth_ranks(asked, scorer, each=each).tolist()
        assert found == twin(asked, scorer, each)
        assert min(found) < 40


def test_nobody_to_ask() -> None:
    asked = retrieval_task(clicks("u:ab"), clicks("v:c"), ITEMS)
    assert asked.users == []
    assert truth_ranks(asked, by_popularity(clicks("u:ab"), ITEMS)).tolist() == []
