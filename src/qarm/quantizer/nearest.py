"""The VQ code: the list of the nearest items of a pool, by cosine, never the item itself."""

from pathlib import Path

import numpy as np
import numpy.typing as npt
import polars as pl
import torch
from sklearn.base import BaseEstimator
from sklearn.utils.validation import check_is_fitted

from qarm.artifacts import Embeddings, write_parquet
from qarm.errors import ArtifactError, InputError, shown
from qarm.quantizer.compiled import compiled
from qarm.quantizer.parallel import over_tiles
from qarm.quantizer.rows import VectorsError, checked_rows
from qarm.quantizer.smallest import keep_smallest
from qarm.quantizer.storage import read_model, tensor, write_model

__all__ = ["NearestCodes"]

POOL = "pool.parquet"
_SPARE = 16  # rows kept beyond k, so that rounding rarely forces an exhaustive search
_BLOCK_QUERIES, _BLOCK_ROWS = 256, 8192
_ROUNDING = 2.0**-24

FloatRows = npt.NDArray[np.float32]


class NearestCodes(BaseEstimator):  # type: ignore[misc]
    """The k nearest pool items of each item (QARM, arXiv 2411.11739: VQ code, K = 25), exact.

    A pool id is the item's place in the sorted item ids of the pool at fit. An item of the pool and an item
    that nobody has seen go through the same search; an item's own row never counts. Equal similarities
    go to the lower pool id. The same seed gives the same bytes, however many threads there are.

    Args:
        k: entries per list.
        metric: "cosine".
        pool: size of a seeded sample to search; None: all items given to `fit`.
        seed: of that sample.

    Learned: `pool_items_`, list of str, the item of each pool id; `pool_ids_`, dict from item id to pool id;
    `pool_vectors_`, float32 [pool, d], of length 1; `n_features_in_`, d.
    """

    pool_items_: list[str]
    pool_ids_: dict[str, int]
    pool_vectors_: FloatRows
    n_features_in_: int

    def __init__(
        self, k: int = 25, *, metric: str = "cosine", pool: int | None = None, seed: int = 0
    ) -> None:
        self.k = k
        self.metric = metric
        self.pool = pool
        self.seed = seed

    def fit(self, embeddings: Embeddings, y: object = None) -> "NearestCodes":
        """Build the pool from n items.

        Raises:
            InputError: a setting is out of range, the vectors are not usable (rows are named), or the pool
                would have fewer than k + 1 items.
        """
        self._checked_settings()
        unit = _unit_rows(checked_rows(self, embeddings, reset=True))
        order = np.array(sorted(range(len(embeddings)), key=embeddings.item_ids.__getitem__), dtype=np.int64)
        if self.pool is not None and self.pool < len(order):
            rng = np.random.default_rng(int(self.seed))
            order = order[np.sort(rng.choice(len(order), self.pool, replace=False, shuffle=False))]
        if len(order) < self.k + 1:
            need = f"need at least k+1={self.k + 1}; lower quantizer.nearest"
            raise VectorsError(f"got pool of {len(order)} items, {need}")
        self._set_pool([embeddings.item_ids[row] for row in order], unit[order])
        return self

    def codes(self, embeddings: Embeddings) -> npt.NDArray[np.int32]:
        """Pool ids int32 [n, k] of each item's nearest pool items, most similar first.

        Raises:
            InputError: the vectors are of another dimension or not usable (rows are named).
        """
        check_is_fitted(self)
        rows = checked_rows(self, embeddings, reset=False)
        own = np.fromiter((self.pool_ids_.get(item, -1) for item in embeddings.item_ids), np.int64, len(rows))
        found = np.empty((len(rows), self.k), dtype=np.int32)

        def work(_: None, start: int, stop: int) -> None:
            unit = _unit_rows(rows[start:stop], first_row=start)
            found[start:stop] = _nearest(unit, own[start:stop], self.pool_vectors_, self.k)

        over_tiles(len(rows), _BLOCK_QUERIES, lambda: None, work)
        return found

    def pool_frame(self) -> pl.DataFrame:
        """Columns pool_id i32 and item_id str, as in `codes/pool.parquet`."""
        check_is_fitted(self)
        ids = pl.int_range(len(self.pool_items_), dtype=pl.Int32, eager=True)
        return pl.DataFrame({"pool_id": ids, "item_id": self.pool_items_})

    def save_pretrained(self, folder: Path | str) -> None:
        """Write `config.json`, `model.safetensors` (`pool`) and `pool.parquet`."""
        check_is_fitted(self)
        folder = Path(folder)
        config = {"k": int(self.k), "metric": self.metric, "pool": self.pool, "seed": int(self.seed)}
        config |= {"dim": self.n_features_in_, "pool_size": len(self.pool_items_)}
        write_parquet(folder / POOL, self.pool_frame())
        write_model(folder, config, {"pool": self.pool_vectors_}, kind=type(self).__name__)

    @classmethod
    def from_pretrained(cls, folder: Path | str) -> "NearestCodes":
        """Read what `save_pretrained` wrote.

        Raises:
            InputError: the folder holds no nearest codes.
            ArtifactError: a file is missing, truncated or changed.
        """
        folder = Path(folder)
        config, tensors = read_model(folder, kind=cls.__name__)
        try:
            settings = {name: config[name] for name in ("k", "metric", "pool", "seed")}
            shape = (int(config["pool_size"]), int(config["dim"]))
            frame = pl.read_parquet(folder / POOL)
        except (KeyError, TypeError, ValueError, OSError, pl.exceptions.PolarsError) as error:
            raise ArtifactError(f"{folder}: not a whole pool ({error}); save it again") from error
        ids = frame["pool_id"].to_list() if "pool_id" in frame.columns else []
        if ids != list(range(shape[0])):
            raise ArtifactError(f"{folder / POOL}: pool ids are not 0 .. {shape[0] - 1}; save it again")
        loaded = cls(**settings)
        loaded.n_features_in_ = shape[1]
        loaded._set_pool(frame["item_id"].to_list(), tensor(tensors, "pool", shape, folder=folder))
        return loaded

    def _set_pool(self, items: list[str], unit: FloatRows) -> None:
        self.pool_items_ = items
        self.pool_ids_ = {item: pool_id for pool_id, item in enumerate(items)}
        self.pool_vectors_ = np.array(unit)  # torch wants memory that it could write to

    def _checked_settings(self) -> None:
        problems = []
        if self.k < 1:
            problems.append(f"got k={self.k}, need 1 or more; raise quantizer.nearest")
        if self.pool is not None and self.pool < 1:
            problems.append(f"got pool={self.pool}, need 1 or more items, or None for all")
        if self.metric != "cosine":
            problems.append(f'got metric={self.metric!r}, need "cosine"')
        if problems:
            raise InputError(problems)


def _unit_rows(rows: npt.NDArray[np.float32], *, first_row: int = 0) -> FloatRows:
    """Rows of length 1, float32 [n, d]; a row of zeros has no direction and is refused."""
    unit = np.empty(rows.shape, dtype=np.float32)
    for start in range(0, len(rows), _BLOCK_QUERIES):
        exact = rows[start : start + _BLOCK_QUERIES].astype(np.float64)
        norms = np.sqrt(np.square(exact).sum(axis=1))
        zero = np.flatnonzero(norms == 0.0) + first_row + start
        if len(zero):
            raise VectorsError(
                f"vectors are all zero in rows {shown(zero.tolist())}; cosine needs a direction"
            )
        unit[start : start + _BLOCK_QUERIES] = exact / norms[:, None]
    return unit


def _nearest(
    queries: FloatRows, own: npt.NDArray[np.int64], pool: FloatRows, k: int
) -> npt.NDArray[np.int32]:
    """Pool rows int32 [n, k], most similar first, without row own[i] (-1: nothing to leave out)."""
    opposed = np.full((len(queries), k + _SPARE), np.inf, dtype=np.float32)
    rows = np.full((len(queries), k + _SPARE), -1, dtype=np.int64)
    opposite = torch.from_numpy(-queries)
    for start in range(0, len(pool), _BLOCK_ROWS):
        block = opposite @ torch.from_numpy(pool[start : start + _BLOCK_ROWS]).T
        keep_smallest(block.numpy(), start, own, opposed, rows)
    found = np.empty((len(queries), k), dtype=np.int32)
    _rank(queries, own, pool, opposed, rows, found)
    return found


@compiled()
def _similarity(a: FloatRows, b: FloatRows) -> float:
    total = 0.0
    for j in range(a.shape[0]):
        total += np.float64(a[j]) * np.float64(b[j])
    return total


@compiled()
def _rank(
    queries: FloatRows,
    own: npt.NDArray[np.int64],
    pool: FloatRows,
    opposed: FloatRows,
    rows: npt.NDArray[np.int64],
    found: npt.NDArray[np.int32],
) -> None:
    """Order by similarity in float64, then pool row. Rows of length 1 err by at most d u in float32.

    A row that was not kept scored no better than the worst kept one. Where that is within twice the error of
    the k-th best, rounding may have left out a winner, and every pool row is measured in float64.
    """
    k, kept = found.shape[1], rows.shape[1]
    slack = 2.0 * (queries.shape[1] + 8) * _ROUNDING * 1.001
    for i in range(queries.shape[0]):
        worst = -np.float64(opposed[i, 0])
        exact = np.empty(kept, dtype=np.float64)
        candidates = rows[i].copy()
        for slot in range(kept):
            lost = candidates[slot] < 0
            exact[slot] = -np.inf if lost else _similarity(queries[i], pool[candidates[slot]])
        if np.sort(exact)[kept - k] <= worst + slack:
            candidates = np.arange(pool.shape[0])
            exact = np.empty(pool.shape[0], dtype=np.float64)
            for row in range(pool.shape[0]):
                exact[row] = -np.inf if row == own[i] else _similarity(queries[i], pool[row])
        by_row = np.argsort(candidates)
        order = np.argsort(-exact[by_row], kind="mergesort")
        for rank in range(k):
            found[i, rank] = candidates[by_row[order[rank]]]
