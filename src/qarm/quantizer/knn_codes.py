"""VQ code: the list of an item's nearest items in a pool, by cosine, never the item itself."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl
from sklearn.utils.validation import check_is_fitted

from qarm.config import QuantizerConfig
from qarm.core.atomic_io import sha256_file
from qarm.core.paths import as_path
from qarm.core.tables.parquet import read_parquet, write_parquet
from qarm.data.embeddings import Embeddings
from qarm.errors import ArtifactError, InputError, shown
from qarm.quantizer.base import Seeded, wrong_seed
from qarm.quantizer.exact_knn import Inverted, exact_nearest, inverted, unit_rows
from qarm.quantizer.model_io import read_model, tensor, write_model
from qarm.quantizer.vectors import Vectors, VectorsError, checked_item_ids, checked_rows, has_item_ids

__all__ = ["EXACT_UP_TO", "NearestCodes"]

EXACT_UP_TO = 100_000  # items in the pool; docs/codes.md has the measurement
NEAREST: int = QuantizerConfig().nearest  # entries of a VQ code
INDEX: str = QuantizerConfig().index
POOL = "pool.parquet"
_INDEXES = ("auto", "exact", "ivf")
_SETTINGS = ("k", "metric", "pool", "index", "seed")

FloatRows = npt.NDArray[np.float32]


class NearestCodes(Seeded):
    """The k nearest pool items of each item (QARM, arXiv 2411.11739: VQ code, K = 25).

    A pool id is given once, for ever: first to the items given to `fit`, in the order of their ids, then to
    what `extend` adds; `delete` leaves a tombstone. An item of the pool and an item that nobody has seen go
    through the same search; an item's own row never counts, nor does a deleted one. Equal similarities go to
    the lower pool id. The same seed gives the same bytes, however many threads there are.

    Args:
        k: entries per list.
        metric: "cosine".
        pool: the most items that may be in the pool, of which a seeded sample is taken; None: no limit.
        index: "exact"; "ivf", an inverted file that finds at least 99 % of the exact entries; "auto": exact
            up to 100,000 items in the pool, ivf beyond.
        seed, random_state: of samples.

    Learned: `pool_items_`, list of str, the item of each pool id; `pool_ids_`, dict from item id to pool id,
    without deleted items; `deleted_`, bool [pool]; `pool_versions_`, int32 [pool], which version added each;
    `pool_vectors_`, float32 [pool, d], of length 1, zero where deleted; `recall_`, float, the share of exact
    entries found (1 when exact; else on 1,000 seeded pool items); `n_features_in_`, d.
    """

    pool_items_: list[str]
    pool_ids_: dict[str, int]
    deleted_: npt.NDArray[np.bool_]
    pool_versions_: npt.NDArray[np.int32]
    pool_vectors_: FloatRows
    recall_: float
    n_features_in_: int

    def __init__(
        self,
        k: int = NEAREST,
        *,
        pool: int | None = None,
        metric: str = "cosine",
        index: str = INDEX,
        seed: int | None = None,
        random_state: int | None = None,
    ) -> None:
        self.k = k
        self.pool = pool
        self.metric = metric
        self.index = index
        self.seed = seed
        self.random_state = random_state

    def fit(self, embeddings: Vectors, y: object = None) -> "NearestCodes":
        """Build the pool from n items: embeddings, the path of an embeddings Parquet, or an array [n, d].

        The items of an array are called `0`, `1` and so on, and so are their pool ids.

        Raises:
            InputError: a setting is out of range, the vectors are not usable (rows are named), or the pool
                would have fewer than k + 1 items.
        """
        self._checked_settings()
        unit = unit_rows(checked_rows(self, embeddings, reset=True))
        rows, named = list(range(len(unit))), has_item_ids(embeddings)
        ids = checked_item_ids(embeddings) if named else [str(row) for row in rows]
        order = self._sample(sorted(rows, key=ids.__getitem__) if named else rows, self.pool)
        items = [ids[row] for row in order]
        none = np.zeros(len(items), dtype=np.bool_)
        self._set_pool(items, unit[order], none, np.ones(len(items), dtype=np.int32))
        return self

    def extend(self, embeddings: Embeddings | Path | str, *, version: int) -> "NearestCodes":
        """Add items to the pool, with ids after all that were ever given; those in the pool stay as they are.

        Where the pool has a limit, a seeded sample of as many as fit is added. A deleted item that comes back
        gets a new id.

        Args:
            embeddings: n items, from the encoder that the pool's came from.
            version: of the codes that first use them.
        """
        check_is_fitted(self)
        ids, unit = checked_item_ids(embeddings), unit_rows(checked_rows(self, embeddings, reset=False))
        new = sorted((row for row in range(len(ids)) if ids[row] not in self.pool_ids_), key=ids.__getitem__)
        order = self._sample(new, None if self.pool is None else max(self.pool - len(self.pool_ids_), 0))
        if not len(order):
            return self
        self._set_pool(
            [*self.pool_items_, *(ids[row] for row in order)],
            np.concatenate([self.pool_vectors_, unit[order]]),
            np.append(self.deleted_, np.zeros(len(order), dtype=np.bool_)),
            np.append(self.pool_versions_, np.full(len(order), version, dtype=np.int32)),
        )
        return self

    def delete(self, item_ids: Iterable[str]) -> "NearestCodes":
        """Leave a tombstone in place of each of these items: no list will name it, and its id stays taken.

        Lists that are published keep the id; `pool_frame(history=True)` says that it is deleted.

        Raises:
            InputError: an item is not in the pool, or fewer than k + 1 would be left.
        """
        check_is_fitted(self)
        wanted = list(dict.fromkeys(item_ids))
        unknown = [item for item in wanted if item not in self.pool_ids_]
        if unknown:
            raise InputError(f"items {shown(unknown)} are not in the pool; delete items that are")
        deleted, vectors = self.deleted_.copy(), self.pool_vectors_.copy()
        rows = [self.pool_ids_[item] for item in wanted]
        deleted[rows], vectors[rows] = True, 0.0
        self._set_pool(self.pool_items_, vectors, deleted, self.pool_versions_)
        return self

    def codes(self, embeddings: Vectors) -> npt.NDArray[np.int32]:
        """Pool ids int32 [n, k] of each item's nearest pool items, most similar first.

        A row of an array is the pool's item with the row's number where it has its vector, else an item that
        nobody has seen.

        Raises:
            InputError: the vectors are of another dimension or not usable (rows are named).
        """
        check_is_fitted(self)
        rows = checked_rows(self, embeddings, reset=False)
        ids = checked_item_ids(embeddings) if has_item_ids(embeddings) else self._known_rows(rows)
        place = np.cumsum(~self.deleted_) - 1  # row of a pool id among those that are searched
        own = np.fromiter(
            (place[self.pool_ids_[i]] if i in self.pool_ids_ else -1 for i in ids), np.int64, len(ids)
        )
        search = exact_nearest if self._inverted is None else self._inverted.nearest
        found = search(rows, own, self._searched, self.k)
        return np.flatnonzero(~self.deleted_).astype(np.int32)[found]

    def _known_rows(self, rows: npt.NDArray[Any]) -> list[str]:
        """Item of each row of an array; empty where the pool's item of that number has another vector."""
        unit = unit_rows(rows)
        places = np.array([self.pool_ids_.get(str(row), -1) for row in range(len(unit))], dtype=np.int64)
        same = (places >= 0) & (unit == self.pool_vectors_[places]).all(axis=1)
        return [str(row) if known else "" for row, known in enumerate(same)]

    def pool_frame(self, *, history: bool = False) -> pl.DataFrame:
        """Columns pool_id i32 and item_id str, as in `codes/pool.parquet`; a deleted item keeps its row.

        Args:
            history: add `version` i32, the version that added the item, and `deleted` bool.
        """
        check_is_fitted(self)
        ids = pl.int_range(len(self.pool_items_), dtype=pl.Int32, eager=True)
        frame = pl.DataFrame({"pool_id": ids, "item_id": self.pool_items_})
        if not history:
            return frame
        return frame.with_columns(
            version=pl.Series(self.pool_versions_, dtype=pl.Int32), deleted=pl.Series(self.deleted_)
        )

    def __repr__(self, N_CHAR_MAX: int = 700) -> str:  # noqa: N803 - scikit-learn's own argument
        settings: str = super().__repr__(N_CHAR_MAX)
        if not hasattr(self, "pool_items_"):
            return settings
        return f"{settings} fitted: pool [{len(self.pool_items_)}, {self.n_features_in_}]"

    def save_pretrained(self, folder: Path | str) -> None:
        """Write `config.json`, `model.safetensors` (`pool`, and `centres` of an ivf) and `pool.parquet`."""
        check_is_fitted(self)
        folder = as_path(folder)
        config: dict[str, Any] = {name: getattr(self, name) for name in _SETTINGS}
        config |= {"k": int(self.k), "seed": self.chosen_seed, "dim": self.n_features_in_}
        config |= {"pool_size": len(self.pool_items_), "recall": self.recall_, "lists": 0, "probes": 0}
        tensors = {"pool": self.pool_vectors_}
        if self._inverted is not None:
            config |= {"lists": len(self._inverted.centres), "probes": self._inverted.probes}
            tensors["centres"] = self._inverted.centres
        write_parquet(folder / POOL, self.pool_frame(history=True))
        config["pool_sha256"] = sha256_file(folder / POOL)
        write_model(folder, config, tensors, kind=type(self).__name__)

    @classmethod
    def from_pretrained(cls, folder: Path | str) -> "NearestCodes":
        """Read what `save_pretrained` wrote.

        Raises:
            InputError: the folder holds no nearest codes.
            ArtifactError: a file is missing, truncated or changed.
        """
        folder = as_path(folder)
        config, tensors = read_model(folder, kind=cls.__name__)
        try:
            loaded = cls(**{name: config[name] for name in _SETTINGS})
            shape, lists = (int(config["pool_size"]), int(config["dim"])), int(config["lists"])
            known = int(config["probes"]), float(config["recall"])
            if sha256_file(folder / POOL) != config["pool_sha256"]:
                raise ArtifactError(f"{folder / POOL} is not the file that was saved: truncated or changed")
            frame = read_parquet(folder / POOL)
        except (KeyError, TypeError, ValueError, OSError, pl.exceptions.PolarsError) as error:
            raise ArtifactError(f"{folder}: not a whole pool ({error}); save it again") from error
        loaded.n_features_in_ = shape[1]
        centres = tensor(tensors, "centres", (lists, shape[1]), folder=folder) if lists else None
        loaded._set_pool(
            frame["item_id"].to_list(),
            tensor(tensors, "pool", shape, folder=folder),
            frame["deleted"].to_numpy(),
            frame["version"].to_numpy(),
            centres=centres,
            known=known,
        )
        return loaded

    def _set_pool(
        self,
        items: list[str],
        unit: FloatRows,
        deleted: npt.NDArray[np.bool_],
        versions: npt.NDArray[np.int32],
        *,
        centres: FloatRows | None = None,
        known: tuple[int, float] | None = None,
    ) -> None:
        left = int((~deleted).sum())
        if left < self.k + 1:
            need = f"need at least k+1={self.k + 1}; lower quantizer.nearest"
            raise VectorsError(f"got pool of {left} items, {need}")
        self.pool_items_, self.pool_versions_ = items, versions.astype(np.int32)
        self.pool_vectors_ = np.array(unit)  # torch wants memory that it could write to
        self.deleted_ = deleted.astype(np.bool_)
        self.pool_ids_ = {item: row for row, item in enumerate(items) if not deleted[row]}
        self._searched = self.pool_vectors_ if left == len(items) else self.pool_vectors_[~deleted]
        self._inverted: Inverted | None = None
        self.recall_ = 1.0
        if self.index == "ivf" or (self.index == "auto" and left > EXACT_UP_TO):
            measured = known if centres is not None else None
            self._inverted = inverted(
                self._searched, self.k, seed=self.chosen_seed, centres=centres, measured=measured
            )
            self.recall_ = self._inverted.recall

    def _sample(self, rows: list[int], most: int | None) -> npt.NDArray[np.int64]:
        order = np.array(rows, dtype=np.int64)
        if most is None or most >= len(order):
            return order
        rng = np.random.default_rng(self.chosen_seed)
        return order[np.sort(rng.choice(len(order), most, replace=False, shuffle=False))]

    def _checked_settings(self) -> None:
        problems = wrong_seed(self)
        if self.k < 1:
            problems.append(f"got k={self.k}, need 1 or more; raise quantizer.nearest")
        if self.pool is not None and self.pool < 1:
            problems.append(f"got pool={self.pool}, need 1 or more items, or None for all")
        if self.metric != "cosine":
            problems.append(f'got metric={self.metric!r}, need "cosine"')
        if self.index not in _INDEXES:
            problems.append(f"got index={self.index!r}, need one of {', '.join(_INDEXES)}")
        if problems:
            raise InputError(problems)
