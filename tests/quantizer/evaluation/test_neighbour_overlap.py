"""Neighbour overlap by hand, with shared codes, and against a random order of equals."""

import numpy as np
import pytest

from qarm.quantizer.evaluation.neighbour_overlap import neighbour_overlap

LINE = np.array([[0.0], [1.0], [2.1], [10.0], [11.0], [12.1]], dtype=np.float32)


def overlap(
    vectors: np.ndarray, codes: list[int], books: np.ndarray, **asked: int
) -> tuple[float, float, float]:
    table = np.array(codes, dtype=np.int32)[:, None]
    groups = np.unique(table[:, 0], return_inverse=True)[1].astype(np.int64)
    found = neighbour_overlap(
        vectors, table, groups, lambda rows: books[rows[:, 0]], **{"queries": 100, "seed": 0, **asked}
    )
    assert found is not None
    return found.mean, found.low, found.high


def test_exact_codes_keep_every_neighbour() -> None:
    assert overlap(LINE, list(range(6)), LINE, neighbours=2) == (1.0, 1.0, 1.0)


def test_codes_that_swap_two_ends_lose_what_they_swap() -> None:
    swapped = LINE[[5, 1, 2, 3, 4, 0]]
    # nearest of 0..5: 1, 0 (of 0 and 2, 0 is nearer), 1, 4, 3 (of 3 and 5), 4
    # after decoding item 0 lies at 12.1 and item 5 at 0: 4, 5, 1, 4, 3, 1
    mean, low, high = overlap(LINE, list(range(6)), swapped, neighbours=1)
    assert mean == pytest.approx(3 / 6)
    assert (low, high) == (mean, mean)  # every row was asked: nothing is uncertain


def test_items_of_one_code_count_by_chance() -> None:
    """All six share a code: each of the five others is among two nearest with chance 2 of 5."""
    assert overlap(LINE, [0] * 6, LINE[:1], neighbours=2)[0] == pytest.approx(0.4)
    halves = overlap(LINE, [0, 0, 0, 1, 1, 1], LINE[[1, 4]], neighbours=2)[0]
    assert halves == pytest.approx(1.0)  # the two others of the half are the two nearest


def test_chances_are_the_mean_over_random_orders() -> None:
    random = np.random.default_rng(4)
    vectors, codes = random.normal(size=(40, 3)).astype(np.float32), random.integers(0, 6, 40)
    books = random.normal(size=(6, 3)).astype(np.float32)
    found = overlap(vectors, codes.tolist(), books, neighbours=5)[0]
    before = ((vectors[:, None] - vectors) ** 2).sum(-1)
    after = ((books[codes][:, None] - books[codes]) ** 2).sum(-1)
    np.fill_diagonal(before, np.inf)
    np.fill_diagonal(after, np.inf)
    nearest = np.argsort(before, axis=1)[:, :5]
    shares = []
    for _ in range(400):
        order = np.lexsort((random.random(after.shape), np.round(after, 6)), axis=1)[:, :5]
        shares.append(np.mean([len(np.intersect1d(a, b)) / 5 for a, b in zip(nearest, order, strict=True)]))
    assert found == pytest.approx(np.mean(shares), abs=0.01)


def test_fewer_rows_than_neighbours_and_a_sample() -> None:
    assert overlap(LINE, list(range(6)), LINE, neighbours=50)[0] == 1.0
    random = np.random.default_rng(0)
    vectors = random.normal(size=(300, 4)).astype(np.float32)
    codes, books = random.integers(0, 30, 300).tolist(), random.normal(size=(30, 4)).astype(np.float32)
    whole = overlap(vectors, codes, books, neighbours=10, queries=300)[0]
    mean, low, high = overlap(vectors, codes, books, neighbours=10, queries=80)
    assert 0 <= low < mean < high <= 1
    assert low - 0.01 < whole < high + 0.01
    one = np.zeros((1, 1), dtype=np.int64)
    assert (
        neighbour_overlap(
            LINE[:1], one.astype(np.int32), one[0], lambda rows: LINE[:1], neighbours=1, queries=1, seed=0
        )
        is None
    )
