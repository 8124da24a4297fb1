"""Quality figures on codes made by hand."""

import json
import math

import numpy as np
import polars as pl
import pytest

from qarm.data.codes import Codes
from qarm.data.embeddings import Embeddings
from qarm.errors import InputError
from qarm.quantizer.evaluation.neighbour_overlap import neighbour_overlap
from qarm.quantizer.evaluation.quality import code_quality, prefix_groups
from qarm.quantizer.residual_kmeans import ResidualKMeans


class Grid:
    """Level 1 gives the tens, level 2 the units; a vector is one number."""

    widths_ = (4, 3)

    def inverse_transform(self, codes: np.ndarray) -> np.ndarray:
        table = np.asarray(codes)
        return (table * np.array([10, 1])[: table.shape[1]]).sum(1, keepdims=True).astype(np.float32)


ITEMS = ["a", "b", "c", "d", "e", "f"]
TABLE = np.array([[0, 0], [0, 0], [0, 1], [1, 1], [1, 1], [2, 0]], dtype=np.int32)
VECTORS = np.array([[0.0], [0.0], [1.0], [11.0], [11.0], [22.0]], dtype=np.float32)
EMBEDDINGS, CODES = Embeddings(ITEMS, VECTORS), Codes(ITEMS, TABLE)


def test_levels_by_hand() -> None:
    first, second = code_quality(EMBEDDINGS, CODES, Grid()).content()["levels"]
    entropy = -(3 / 6 * math.log(3 / 6) + 2 / 6 * math.log(2 / 6) + 1 / 6 * math.log(1 / 6))
    assert (first["used"], first["dead"]) == (3, 1)
    assert first["utilisation"] == 3 / 4
    assert first["entropy"] == pytest.approx(entropy)
    assert first["perplexity"] == pytest.approx(math.exp(entropy))
    # counts 0 1 2 3: sum of (2i - K - 1) c_i over K times n = (0 - 1 + 2 + 9) / 24
    assert first["gini"] == pytest.approx(10 / 24)
    assert (second["width"], second["used"], second["dead"]) == (3, 2, 1)
    total = 1 + 2 * 121 + 484
    assert first["energy_left"] == pytest.approx((1 + 2 * 1 + 4) / total)
    assert second["energy_left"] == pytest.approx(4 / total)


def test_full_codes_by_hand() -> None:
    assert code_quality(EMBEDDINGS, CODES, Grid()).content()["full_codes"] == {
        "distinct": 4,
        "collision_rate": 4 / 6,
        "items_per_code": {"mean": 1.5, "max": 2, "histogram": {"1": 2, "2": 2}},
    }


def test_pairs_by_hand() -> None:
    rows = [("a", "b"), ("a", "c"), ("d", "f"), ("f", "e"), ("a", "nobody"), ("a", "a")]
    pairs = pl.DataFrame(rows, schema=["trigger_id", "target_id"], orient="row")
    found = code_quality(EMBEDDINGS, CODES, Grid(), pairs=pairs).content()["pairs"]
    # triggers fall into level-1 codes 0 0 1 2 and targets into 0 0 2 1: 4 + 1 + 1 of 16 shuffled pairs;
    # full codes are 00 00 11 20 and 00 01 20 11: 2 + 1 + 1 of 16
    assert (found["used"], found["skipped"]) == (4, 2)
    assert found["agreement"] == [
        {"levels": 1, "share": 0.5, "chance": 6 / 16},
        {"levels": 2, "share": 0.25, "chance": 4 / 16},
    ]
    none = code_quality(EMBEDDINGS, CODES, Grid(), pairs=pairs.head(0)).content()["pairs"]
    assert none["agreement"][0] == {"levels": 1, "share": 0.0, "chance": 0.0}


def overlap(vectors: list[float], codes: list[int], decoded: list[float], neighbours: int) -> float:
    """Mean overlap of one-dimensional vectors whose code c decodes to decoded[c]."""
    table = np.array(codes, dtype=np.int32)[:, None]
    place = np.array(decoded, dtype=np.float32)
    found = neighbour_overlap(
        np.array(vectors, dtype=np.float32)[:, None],
        table,
        prefix_groups(table)[-1],
        lambda c: place[c],
        neighbours=neighbours,
        queries=2000,
        seed=0,
    ).content()
    assert found is not None
    assert found["low"] == found["mean"] == found["high"]  # every row is a query: nothing is left to chance
    return float(found["mean"])


def test_overlap_is_one_when_codes_lose_nothing() -> None:
    points = np.random.default_rng(0).normal(size=300).tolist()
    assert overlap(points, list(range(300)), points, 10) == 1.0


def test_overlap_by_hand() -> None:
    # decoding swaps the far point 9 with 0: of 0, 1, 9 the nearest are 1, 0, 1 and then 1, 9, 1
    assert overlap([0, 1, 9], [0, 1, 2], [9, 1, 0], 1) == pytest.approx(2 / 3)


def test_overlap_counts_ties_by_their_chance() -> None:
    # all four share one code: each is the nearest with chance 1/3, whatever the order of rows
    assert overlap([0, 1, 3, 7], [0, 0, 0, 0], [5], 1) == pytest.approx(1 / 3)
    # two codes of two: own group first (one other row), then one of the two others with chance 1/2
    assert overlap([0, 1, 8, 9], [0, 0, 1, 1], [0.5, 8.5], 2) == pytest.approx((1 + 1 / 2) / 2)


def test_overlap_agrees_with_brute_force_and_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(1)
    x = rng.normal(size=(500, 6)).astype(np.float32)
    model = ResidualKMeans(2, 16).fit(x)
    codes = Codes([str(i) for i in range(500)], model.transform(x))
    found = code_quality(Embeddings(codes.item_ids, x), codes, model).content()["neighbour_overlap_at_10"]
    decoded = model.inverse_transform(codes.rq)

    def ranked(points: np.ndarray) -> np.ndarray:
        distances = ((points[:, None].astype(np.float64) - points[None]) ** 2).sum(-1)
        np.fill_diagonal(distances, np.inf)
        return distances.argsort(axis=1, kind="stable")[:, :10]

    shares = [len(set(a) & set(b)) / 10 for a, b in zip(ranked(x), ranked(decoded), strict=True)]
    assert found["mean"] == pytest.approx(np.mean(shares), abs=0.02)  # brute force breaks ties by row
    monkeypatch.setattr("qarm.quantizer.evaluation.neighbour_overlap._BLOCK_QUERIES", 33)
    monkeypatch.setattr("qarm.quantizer.evaluation.neighbour_overlap._BLOCK_ROWS", 70)
    again = code_quality(Embeddings(codes.item_ids, x), codes, model).content()["neighbour_overlap_at_10"]
    assert again["mean"] == pytest.approx(found["mean"], abs=1e-6)


def test_sampled_overlap_has_an_interval_that_holds_the_truth(monkeypatch: pytest.MonkeyPatch) -> None:
    x = np.random.default_rng(2).normal(size=(600, 4)).astype(np.float32)
    model = ResidualKMeans(2, 8).fit(x)
    codes = Codes([str(i) for i in range(600)], model.transform(x))
    items = Embeddings(codes.item_ids, x)
    truth = code_quality(items, codes, model).content()["neighbour_overlap_at_10"]["mean"]
    monkeypatch.setattr("qarm.quantizer.evaluation.quality._QUERIES", 150)
    inside = 0
    for seed in range(10):
        sampled = code_quality(items, codes, model, seed=seed).content()["neighbour_overlap_at_10"]
        assert sampled["queries"] == 150
        inside += sampled["low"] <= truth <= sampled["high"]
    assert inside >= 8


def test_groups_of_prefixes() -> None:
    assert [group.tolist() for group in prefix_groups(TABLE)] == [[0, 0, 0, 1, 1, 2], [0, 0, 1, 2, 2, 3]]
    wide = np.random.default_rng(0).integers(2**31 - 1, size=(50, 6)).astype(np.int32)
    assert len(np.unique(prefix_groups(wide)[-1])) == 50  # 2^186 possible codes do not overflow


def test_order_of_codes_does_not_matter_but_their_items_do() -> None:
    turned = Codes(ITEMS[::-1], TABLE[::-1])
    assert (
        code_quality(EMBEDDINGS, turned, Grid()).content()
        == code_quality(EMBEDDINGS, CODES, Grid()).content()
    )
    with pytest.raises(InputError, match="different items: f, x"):
        code_quality(EMBEDDINGS, Codes(["a", "b", "c", "d", "e", "x"], TABLE), Grid()).content()
    with pytest.raises(InputError, match="got 0 items"):
        code_quality(Embeddings([], VECTORS[:0]), Codes([], TABLE[:0]), Grid()).content()
    with pytest.raises(InputError, match="pairs have no column target_id"):
        code_quality(EMBEDDINGS, CODES, Grid(), pairs=pl.DataFrame({"trigger_id": ["a"]})).content()


def test_vectors_and_codes_may_be_read_only() -> None:
    vectors, table = VECTORS.copy(), TABLE.copy()
    vectors.flags.writeable = table.flags.writeable = False
    report = code_quality(Embeddings(ITEMS, vectors), Codes(ITEMS, table), Grid()).content()
    assert report == code_quality(EMBEDDINGS, CODES, Grid()).content()


def test_degenerate_codes_stay_finite() -> None:
    zero = Embeddings(["a"], np.zeros((1, 1), np.float32))
    report = code_quality(zero, Codes(["a"], np.zeros((1, 2), np.int32)), Grid()).content()
    assert report["neighbour_overlap_at_10"] is None
    assert report["levels"][0]["energy_left"] == 0.0
    assert report["levels"][0]["entropy"] == 0.0
    json.dumps(report, allow_nan=False)
