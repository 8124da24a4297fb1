"""Anchors by hand: like-rate, histories of rows, and the user's half step of ALS."""

from dataclasses import replace

import numpy as np
import polars as pl
import pytest

from qarm.comparison.rivals.anchors import Anchors, LikeRate, fold_in, history_scores, like_rate_prior
from qarm.data.embeddings import Embeddings
from qarm.data.interactions import Log
from qarm.recommender.examples import Examples, TrainingRows, evaluation_rows, read_examples
from qarm.recommender.metrics import gauc
from qarm.recommender.retrieval.histories import Histories


def test_the_like_rate_is_smoothed_by_its_prior() -> None:
    """Likes 3 of 4 with a prior of 2 and 2 are 5 / 8; an item without an event has the prior's mean."""
    rate = LikeRate(np.array([3, 0, 0]), np.array([4, 2, 0]), (2.0, 2.0))
    rows = rows_of(["a", "b", "c"])
    np.testing.assert_allclose(rate(rows), [5 / 8, 2 / 6, 1 / 2])


def test_the_prior_is_that_of_the_items() -> None:
    random = np.random.default_rng(0)
    events = random.integers(1, 40, 4000)
    likes = random.binomial(events, random.beta(3.0, 2.0, 4000))
    a, b = like_rate_prior(likes, events)
    assert (a, b) == pytest.approx((3.0, 2.0), rel=0.1)
    a, b = like_rate_prior(np.array([5, 9, 1]), np.array([10, 18, 2]))  # all alike: the prior is their share
    assert a / (a + b) == pytest.approx(0.5, abs=0.01)
    assert a + b > 1000


def test_like_rate_counts_the_training_part_alone() -> None:
    rows = [("u1", "a", 1), ("u1", "b", 0), ("u2", "a", 1), ("u2", "b", 1), ("u3", "a", 0)]
    frame = pl.DataFrame(rows, schema=["user_id", "item_id", "label"], orient="row")
    log = Log(frame.with_columns(time=pl.int_range(5), row=pl.int_range(5)))
    train = TrainingRows(log, item_ids=["a", "b", "c"], explicit=True).events
    rate = LikeRate.of(train)
    assert rate.likes.tolist() == [2, 1, 0]
    assert rate.events.tolist() == [3, 2, 0]


class Length:
    """A score of the number of events of a history, and the item's row behind the point."""

    def scores(self, histories: Histories) -> np.ndarray:
        return (histories.lengths[:, None] + np.arange(3)[None] / 10).astype(np.float32)


def test_rows_are_scored_by_the_history_of_their_own_event() -> None:
    rows = rows_of(["a", "b", "c", "a"])
    rows = replace(
        rows,
        events=np.array([7, 7, 8, 9]),
        history=np.array([0, 1, 2], np.int32),
        start=np.array([0, 0, 1, 0]),
        end=np.array([2, 2, 2, 0]),
    )
    np.testing.assert_allclose(history_scores(Length(), rows), [2.0, 2.1, 1.2, 0.0])


def test_a_user_of_als_is_the_solution_of_its_half_step() -> None:
    vectors = np.random.default_rng(0).normal(size=(6, 3)).astype(np.float32)
    found = fold_in(vectors, regularization=0.5).scores(Histories.of([[1, 4], [2]]))
    clicks = np.zeros((2, 6))
    clicks[0, [1, 4]], clicks[1, 2] = 1, 1
    users = np.linalg.solve(vectors.T @ vectors + 0.5 * np.eye(3), vectors.T @ clicks.T)
    np.testing.assert_allclose(found, (vectors @ users).T, atol=1e-5)


def test_every_anchor_knows_two_tastes() -> None:
    """Users of a taste click its ten items, the last of them left out, against items of the other taste."""
    random, clicks = np.random.default_rng(0), []
    for user in range(40):
        for time, item in enumerate(random.permutation(10)):
            clicks.append((f"u{user:02d}", f"i{item + 10 * (user % 2):02d}", time, 1))
    frame = pl.DataFrame(clicks, schema=["user_id", "item_id", "time", "label"], orient="row")
    log = Log(frame.with_row_index("row").with_columns(pl.col("row").cast(pl.Int64)))
    past, last = (Log(log.frame.filter((pl.col("time") == 9) == later)) for later in (False, True))
    ids = sorted(log.items)
    rows = evaluation_rows({"valid": last}, past, item_ids=ids, trained_items=past.items, negatives=5)
    valid = read_examples(rows, [past, last], item_ids=ids)
    raw = Embeddings(ids, (np.arange(20)[:, None] // 10 == np.arange(2)).astype(np.float32) + 0.1)
    train = TrainingRows(past, item_ids=ids, explicit=False).events
    anchors = Anchors(past, train, valid, lambda: raw, explicit=False, seed=0)
    names = [name for name in Anchors.NAMES if name not in anchors.left_out]
    assert list(anchors.scorers(2)) == names
    assert "like-rate" in anchors.left_out
    for name in set(names) - {"popularity"}:
        scores = anchors.scorers(2)[name]()(valid)
        assert gauc(valid.users, valid.labels, scores) > 0.85, name
    assert list(anchors.scorers(1)) == ["popularity", "item-kNN", "content-kNN"]


def rows_of(items: list[str]) -> Examples:
    size = len(items)
    frame = pl.DataFrame({"user_id": ["u"] * size, "item_id": items, "label": [0] * size, "time": [0] * size})
    frame = frame.with_columns(event=pl.int_range(size), cold=pl.lit(False))
    past = Log(pl.DataFrame({"user_id": ["u"], "item_id": ["a"], "time": [5], "label": [1], "row": [0]}))
    return read_examples(frame, [past], item_ids=["a", "b", "c"])
