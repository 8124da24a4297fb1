"""Alignment and uniformity by hand, and which pairs count as held out."""

import math

import numpy as np
import polars as pl
import pytest

from qarm.data.embeddings import Embeddings
from qarm.data.interactions import Log
from qarm.encoder.evaluation import alignment_uniformity as geometry
from qarm.encoder.evaluation.alignment_uniformity import (
    alignment,
    held_out_pairs,
    pair_retrieval_task,
    uniformity,
)
from qarm.encoder.evaluation.retrieval import by_vectors, truth_ranks

SQUARE = Embeddings(["a", "b", "c", "d"], np.array([[1, 0], [0, 2], [-1, 0], [0, -1]], dtype=np.float32))


def frame(text: str) -> pl.DataFrame:
    return pl.DataFrame(
        [tuple(pair) for pair in text.split()], schema=["trigger_id", "target_id"], orient="row"
    )


def test_four_points_on_a_circle() -> None:
    # quarter turns are sqrt(2) apart, opposite points 2
    assert alignment(SQUARE, frame("ab ac")) == pytest.approx((2 + 4) / 2)
    assert uniformity(SQUARE) == pytest.approx(math.log((2 * math.exp(-4) + math.exp(-8)) / 3))
    assert alignment(SQUARE, frame("aa")) == 0.0


def test_vectors_of_zeros_and_items_without_one_do_not_count() -> None:
    more = Embeddings([*SQUARE.item_ids, "z"], np.vstack([SQUARE.vectors, [[0, 0]]]).astype(np.float32))
    assert alignment(more, frame("ab az xy")) == pytest.approx(2.0)
    assert uniformity(more) == pytest.approx(uniformity(SQUARE))
    assert alignment(more, frame("az")) is None
    assert uniformity(Embeddings(["a"], np.ones((1, 2), dtype=np.float32))) is None


def test_one_point_everywhere_has_uniformity_zero(monkeypatch: pytest.MonkeyPatch) -> None:
    same = Embeddings([str(i) for i in range(40)], np.ones((40, 3), dtype=np.float32))
    assert uniformity(same) == pytest.approx(0.0)
    monkeypatch.setattr(geometry, "MOST_ITEMS", 7)
    assert uniformity(same) == pytest.approx(0.0)


def test_held_out_pairs_follow_one_another_and_were_not_trained_on(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [("u", "abbcaX", 1), ("v", "ab", 1), ("w", "dc", 1)]
    events = [
        (user, item.lower(), t, int(item.islower()))
        for user, items, _ in rows
        for t, item in enumerate(items)
    ]
    log = pl.DataFrame(events, schema=["user_id", "item_id", "time", "label"], orient="row")
    later = Log(log.with_row_index("row").sort("user_id", "time"))
    found = held_out_pairs(later, frame("cd"), ["a", "b", "c", "d", "x"])
    # dc was trained on the other way round, x was not liked, b after b says nothing
    assert found.rows() == [("a", "b"), ("b", "c"), ("c", "a")]
    monkeypatch.setattr(geometry, "MOST_PAIRS", 2)
    assert set(held_out_pairs(later, frame("cd"), ["a", "b", "c", "d"]).rows()) < set(found.rows())


def test_a_pair_asks_by_itself() -> None:
    asked = pair_retrieval_task(frame("ab ac"), SQUARE.item_ids)
    # from a: b and d are equally near, c is farthest
    assert truth_ranks(asked, by_vectors(SQUARE, SQUARE.item_ids), each=4).tolist() == [0, 2]
