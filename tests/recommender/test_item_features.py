"""What a variant knows: rows by item id, standardised vectors, and every problem at once."""

import numpy as np
import pytest

from qarm.data.codes import Codes
from qarm.data.embeddings import Embeddings
from qarm.errors import InputError
from qarm.recommender.item_features import item_table

ITEMS = ["b", "d", "a", "c"]
CODES = Codes(
    ["c", "a", "x", "d", "b"],
    np.array([[3, 30], [1, 10], [9, 90], [4, 40], [2, 20]], dtype=np.int32),
    np.array([[3], [1], [9], [4], [2]], dtype=np.int32),
)
VECTORS = Embeddings(
    ["d", "x", "c", "b", "a"], np.array([[7, 1], [99, 99], [5, 1], [3, 1], [1, 5]], dtype=np.float32)
)


def test_rows_follow_the_sorted_ids_and_not_the_position() -> None:
    table = item_table(ITEMS, "id+rq+vq+frozen", codes=CODES, embeddings=VECTORS)
    assert table.item_ids == ["a", "b", "c", "d"]
    assert table.rq.tolist() == [[1, 10], [2, 20], [3, 30], [4, 40]]
    assert table.vq.tolist() == [[1], [2], [3], [4]]
    assert table.rq.dtype == table.vq.dtype == np.int64
    # Columns 1 3 5 7 and 5 1 1 1 less their means 4 and 2; the mean square of a row is 5 + 3.
    expected = np.array([[-3, 3], [-1, -1], [1, -1], [3, -1]]) / np.sqrt(8)
    np.testing.assert_allclose(table.vectors, expected, rtol=1e-6)
    assert table.vectors.dtype == np.float32


@pytest.mark.parametrize(
    ("variant", "held"),
    [
        ("id", set()),
        ("id+rq", {"rq"}),
        ("id+vq", {"vq"}),
        ("id+frozen", {"vectors"}),
        ("id+rq+vq", {"rq", "vq"}),
    ],
)
def test_a_variant_holds_its_features_and_no_others(variant: str, held: set[str]) -> None:
    table = item_table(ITEMS, variant, codes=CODES, embeddings=VECTORS)
    assert {name for name in ("rq", "vq", "vectors") if getattr(table, name) is not None} == held


def test_equal_vectors_are_no_information_and_no_fault() -> None:
    table = item_table(
        ["a", "b"], "id+frozen", embeddings=Embeddings(["a", "b"], np.ones((2, 3), np.float32))
    )
    assert not table.vectors.any()


@pytest.mark.parametrize("variant", ["", "id+id", "id+", "id+colour", "ID"])
def test_unknown_variants(variant: str) -> None:
    with pytest.raises(
        InputError, match=r"need id, raw, frozen, rq, vq, cross, each at most once, joined by \+"
    ):
        item_table(ITEMS, variant, codes=CODES, embeddings=VECTORS)


@pytest.mark.parametrize(
    ("variant", "rule"),
    [
        ("cross", "cross searches by RQ code; add rq"),
        ("id+cross", "cross searches by RQ code; add rq"),
        ("id+raw+frozen", "raw and frozen are two versions of one vector; take one"),
    ],
)
def test_features_that_do_not_go_together(variant: str, rule: str) -> None:
    with pytest.raises(InputError, match=rule):
        item_table(ITEMS, variant, codes=CODES, embeddings=VECTORS, raw=VECTORS)


def test_every_problem_is_listed() -> None:
    with pytest.raises(InputError) as caught:
        item_table([*ITEMS, "y", "z"], "id+rq+frozen+colour", codes=CODES, embeddings=VECTORS)
    unknown, codes, vectors = caught.value.problems
    assert "got variant 'id+rq+frozen+colour'" in unknown
    told = "2 items have no codes: y, z; code and embed all items first"
    assert codes == f"{told}, or raise ranker.missing_codes=0 to 0.334"
    assert vectors == "2 items have no vector: y, z; code and embed all items first"


def test_what_is_asked_for_must_be_given() -> None:
    with pytest.raises(InputError) as caught:
        item_table(ITEMS, "id+rq+frozen")
    assert [problem.split(";")[0] for problem in caught.value.problems] == [
        "variant id+rq+frozen needs codes",
        "the feature frozen needs embeddings",
    ]
    with pytest.raises(InputError, match="needs VQ codes and there are none; take"):
        item_table(ITEMS, "id+vq", codes=Codes(CODES.item_ids, CODES.rq))


def test_bad_numbers() -> None:
    with pytest.raises(InputError, match="rq codes go down to -1, need 0 or more"):
        item_table(["a"], "id+rq", codes=Codes(["a"], np.array([[0, -1]], dtype=np.int32)))
    broken = VECTORS.vectors.copy()
    broken[[0, 3], 0] = np.nan, np.inf
    with pytest.raises(InputError, match="vectors of items b, d hold NaN or infinity"):
        item_table(ITEMS, "id+frozen", embeddings=Embeddings(VECTORS.item_ids, broken))


def test_vectors_are_scaled_by_the_training_part_alone() -> None:
    table = item_table(ITEMS, "id+frozen", embeddings=VECTORS, scale_by=["a", "b"])
    assert table.vectors is not None
    known = table.vectors[:2].astype(np.float64)
    assert np.allclose(known.mean(axis=0), 0, atol=1e-6)
    assert np.mean(np.square(known).sum(axis=1)) == pytest.approx(1, abs=1e-5)
    moved = Embeddings(VECTORS.item_ids, VECTORS.vectors.copy())
    moved.vectors[VECTORS.item_ids.index("c")] += 100
    again = item_table(ITEMS, "id+frozen", embeddings=moved, scale_by=["a", "b"])
    assert again.vectors is not None
    assert np.array_equal(again.vectors[:2], table.vectors[:2])
