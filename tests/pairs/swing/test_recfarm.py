"""Swing against recfarm, LibRecommender's Rust implementation, on a log of some size."""

import gzip
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import numpy.typing as npt
import polars as pl
import pytest
from scipy.sparse import csr_matrix

from qarm.data.interactions import Log
from qarm.pairs.swing import popular_items
from qarm.pairs.swing.swing import swing

MakeLog = Callable[..., Log]
Table = npt.NDArray[np.void]
HEADER = 8 + 4 + 3 * 8  # top_k, alpha, max_cache_num, n_users, n_items: what save_swing writes first
ENTRY = np.dtype([("item", "<i4"), ("score", "<f4")])


def peer_scores(matrix: csr_matrix, folder: Path) -> dict[int, Table]:
    """All neighbours of each item, by recfarm with an alpha of ours plus one."""
    recfarm = pytest.importorskip("recfarm")
    users, items = matrix.shape
    sides = (
        SimpleNamespace(
            sparse_indices=side.indices.tolist(),
            sparse_indptr=side.indptr.tolist(),
            sparse_data=[1.0] * side.nnz,
        )
        for side in (matrix, matrix.T.tocsr())
    )
    model = recfarm.Swing(20, 2.0, 100_000_000, users, items, *sides, {}, 0.0)
    model.compute_swing(1)
    recfarm.save_swing(model, str(folder), "swing")
    content = gzip.decompress((folder / "swing.gz").read_bytes())
    place, found = HEADER + 8, {}
    for _ in range(int.from_bytes(content[HEADER:place], "little")):
        item = int.from_bytes(content[place : place + 4], "little")
        size = int.from_bytes(content[place + 4 : place + 12], "little")
        found[item] = np.frombuffer(content, ENTRY, size, place + 12)
        place += 12 + size * ENTRY.itemsize
    return found


@pytest.fixture(scope="module")
def matrix() -> csr_matrix:
    """20,000 draws of 400 users and 500 items, popularity falling as 1 / rank."""
    rng = np.random.default_rng(0)
    chances = 1 / np.arange(1, 501)
    users, items = rng.integers(0, 400, 20_000), rng.choice(500, 20_000, p=chances / chances.sum())
    drawn = csr_matrix((np.ones(20_000), (users, items)), shape=(400, 500))
    drawn.sum_duplicates()
    drawn.data[:] = 1.0
    return drawn


@pytest.fixture(scope="module", params=["walked", "by head"])
def ours(request: pytest.FixtureRequest, matrix: csr_matrix, make_log: MakeLog) -> dict[int, pl.DataFrame]:
    log = make_log((int(u), f"{i:03}", 0) for u, i in zip(*matrix.nonzero(), strict=True))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(popular_items, "LEAST_USER_PAIRS", 0 if request.param == "by head" else 1 << 60)
        table = swing(log, max_items_per_user=None, max_users_per_item=None)
    return {int(item): part for (item,), part in table.group_by("item_id")}


def test_equals_recfarm(matrix: csr_matrix, ours: dict[int, pl.DataFrame], tmp_path: Path) -> None:
    peers = peer_scores(matrix, tmp_path)
    assert set(ours) == set(peers)
    assert len(peers) > 450
    for item, part in ours.items():
        theirs = dict(peers[item].tolist())
        wanted = sorted(theirs.values(), reverse=True)[: part.height]
        assert part.height == min(20, len(theirs))
        np.testing.assert_allclose(part["score"], wanted, rtol=1e-4)
        np.testing.assert_allclose(
            part["score"], [theirs[int(near)] for near in part["neighbor_id"]], rtol=1e-4
        )


def test_equals_the_formula_as_matrix_products(matrix: csr_matrix, ours: dict[int, pl.DataFrame]) -> None:
    """In float64, where recfarm adds in float32: nothing but rounding is left."""
    held = matrix.toarray()
    weights = 1 / np.sqrt(np.maximum(held.sum(axis=1), 1))
    gains = np.outer(weights, weights) / (1 + held @ held.T)
    np.fill_diagonal(gains, 0.0)
    for item, part in ours.items():
        with_item = held * held[:, [item]]
        scores = (with_item * (gains @ with_item)).sum(axis=0) / 2
        scores[item] = 0.0
        best = np.sort(scores)[::-1][: part.height]
        np.testing.assert_allclose(part["score"], best, rtol=1e-12)
        np.testing.assert_allclose(
            part["score"], scores[part["neighbor_id"].cast(pl.Int64).to_numpy()], rtol=1e-12
        )
