"""Swing against recfarm, LibRecommender's Rust implementation, on a log of some size."""

import gzip
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import numpy.typing as npt
import pytest
from scipy.sparse import csr_matrix

from qarm.behavior.log import Log
from qarm.behavior.swing import swing

MakeLog = Callable[..., Log]
Table = npt.NDArray[np.void]
HEADER = 8 + 4 + 3 * 8  # top_k, alpha, max_cache_num, n_users, n_items: what save_swing writes first
ENTRY = np.dtype([("item", "<i4"), ("score", "<f4")])
recfarm = pytest.importorskip("recfarm")


def peer_scores(matrix: csr_matrix, folder: Path) -> dict[int, Table]:
    """All neighbours of each item, by recfarm with an alpha of ours plus one."""
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


def test_equals_recfarm(make_log: MakeLog, tmp_path: Path) -> None:
    """20,000 draws of 400 users and 500 items, popularity falling as 1 / rank: the item's best 20 scores."""
    rng = np.random.default_rng(0)
    chances = 1 / np.arange(1, 501)
    users, items = rng.integers(0, 400, 20_000), rng.choice(500, 20_000, p=chances / chances.sum())
    matrix = csr_matrix((np.ones(20_000), (users, items)), shape=(400, 500))
    matrix.sum_duplicates()
    peers = peer_scores(matrix, tmp_path)
    log = make_log((int(u), f"{i:03}", 0) for u, i in zip(*matrix.nonzero(), strict=True))
    ours = swing(log, max_items_per_user=None, max_users_per_item=None)
    found = {int(item): part for (item,), part in ours.group_by("item_id")}
    assert set(found) == set(peers)
    assert len(peers) > 450
    for item, part in found.items():
        theirs = dict(peers[item].tolist())
        wanted = sorted(theirs.values(), reverse=True)[: part.height]
        assert part.height == min(20, len(theirs))
        np.testing.assert_allclose(part["score"], wanted, rtol=1e-4)
        np.testing.assert_allclose(
            part["score"], [theirs[int(near)] for near in part["neighbor_id"]], rtol=1e-4
        )
