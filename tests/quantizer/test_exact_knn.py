"""Nearest rows by cosine against faiss and brute force; ties, own rows and near ties by hand."""

import faiss
import numpy as np
import pytest

from qarm.quantizer import exact_knn
from qarm.quantizer.exact_knn import exact_nearest, inverted, unit_rows
from qarm.quantizer.vectors import VectorsError

NONE = -1


def vectors(rows: int, dim: int = 12, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(rows, dim)).astype(np.float32)


def test_unit_rows_have_length_one_whatever_their_size() -> None:
    rows = np.array([[3.0, 4.0], [3e-30, 4e-30], [3e30, -4e30]])
    assert unit_rows(rows) == pytest.approx(np.array([[0.6, 0.8], [0.6, 0.8], [0.6, -0.8]]))
    with pytest.raises(VectorsError, match=r"all zero in rows 10, 12; cosine needs a direction"):
        unit_rows(np.array([[0.0, 0.0], [1.0, 0.0], [0.0, 0.0]]), first_row=10)


def test_the_nearest_are_those_of_faiss() -> None:
    pool, queries = unit_rows(vectors(900)), vectors(70, seed=1) * 5
    index = faiss.IndexFlatIP(pool.shape[1])
    index.add(pool)
    expected = index.search(unit_rows(queries), 8)[1]
    assert exact_nearest(queries, np.full(70, NONE), pool, 8).tolist() == expected.tolist()


def test_a_row_does_not_count_itself() -> None:
    pool = unit_rows(vectors(300))
    own = np.arange(300)
    found = exact_nearest(pool, own, pool, 5)
    similarities = pool.astype(np.float64) @ pool.T.astype(np.float64)
    np.fill_diagonal(similarities, -np.inf)
    assert found.tolist() == np.argsort(-similarities, axis=1, kind="stable")[:, :5].tolist()


def test_ties_go_to_the_lower_row_even_beyond_what_is_kept() -> None:
    pool = unit_rows(np.tile([[1.0, 2.0, 3.0]], (200, 1)))
    pool[150:] = unit_rows(vectors(50, dim=3))
    found = exact_nearest(np.array([[2.0, 4.0, 6.0]]), np.array([1]), pool, 4)
    assert found.tolist() == [[0, 2, 3, 4]]


def test_float32_does_not_decide_between_near_ties() -> None:
    """Cosines that differ by less than float32 tells apart are ordered by their products in float64."""
    random = np.random.default_rng(5)
    base = unit_rows(random.normal(size=(1, 40)))[0]
    pool = unit_rows(base + 1e-4 * random.normal(size=(400, 40)))
    query = base[None]
    exact = pool.astype(np.float64) @ unit_rows(query)[0].astype(np.float64)
    expected = np.lexsort((np.arange(400), -exact))[:10]
    assert exact_nearest(query, np.array([NONE]), pool, 10)[0].tolist() == expected.tolist()


def test_blocks_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    pool, queries = unit_rows(vectors(500)), vectors(100, seed=2)
    whole = exact_nearest(queries, np.full(100, NONE), pool, 6)
    monkeypatch.setattr(exact_knn, "_BLOCK_QUERIES", 7)
    monkeypatch.setattr(exact_knn, "_BLOCK_ROWS", 64)
    assert exact_nearest(queries, np.full(100, NONE), pool, 6).tobytes() == whole.tobytes()


def test_the_inverted_file_says_its_recall_and_fills_short_lists() -> None:
    pool = unit_rows(vectors(2000, dim=8))
    made = inverted(pool, 10, seed=0)
    assert made.recall >= 0.99
    assert 1 <= made.probes <= len(made.centres) == int(4 * np.sqrt(2000))
    queries, nobody = vectors(200, dim=8, seed=9), np.full(200, NONE)
    exact, found = exact_nearest(queries, nobody, pool, 10), made.nearest(queries, nobody, pool, 10)
    shared = np.mean([len(np.intersect1d(a, b)) / 10 for a, b in zip(exact, found, strict=True)])
    assert shared > 0.97
    again = inverted(pool, 10, seed=0, centres=made.centres, measured=(1, 0.5))
    assert (again.probes, again.recall) == (1, 0.5)
    lists = again.nearest(queries, nobody, pool, 300)  # longer than any list of the file
    assert lists.tolist() == exact_nearest(queries, nobody, pool, 300).tolist()
