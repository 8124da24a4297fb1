"""Item vectors with their item ids, and their Parquet file."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import polars as pl

from qarm.core.item_index import ItemIndex
from qarm.core.paths import as_path
from qarm.core.tables.parquet import read_parquet
from qarm.core.tables.writer import write_table

__all__ = ["Embeddings"]


@dataclass(frozen=True, repr=False)
class Embeddings:
    """Vectors with the ids of their items.

    item_ids: n distinct strings; vectors: float32 [n, d], row i belongs to item_ids[i].
    """

    item_ids: list[str]
    vectors: npt.NDArray[np.float32]

    def __len__(self) -> int:
        return len(self.item_ids)

    def __repr__(self) -> str:
        return f"Embeddings({len(self):,} items, {self.vectors.dtype} {list(self.vectors.shape)})"

    def rows(self, item_ids: list[str]) -> npt.NDArray[np.float32]:
        """Vectors of the given items, in the given order, float32 [len(item_ids), d]."""
        return self.vectors[
            ItemIndex(self.item_ids).rows(item_ids, missing="no vector for items {items}; embed them first")
        ]

    def frame(self) -> pl.DataFrame:
        """Columns item_id and embedding."""
        vectors = pl.Series("embedding", self.vectors, dtype=pl.Array(pl.Float32, self.vectors.shape[1]))
        return pl.DataFrame({"item_id": self.item_ids, "embedding": vectors})

    def write(self, path: Path | str) -> None:
        """File of the vectors: `item_id`, `embedding`, in the format of its ending."""
        write_table(as_path(path), self.frame())

    @classmethod
    def read(cls, path: Path | str) -> "Embeddings":
        """Vectors of a file that `write` made."""
        frame = read_parquet(as_path(path), columns=["item_id", "embedding"])
        vectors = frame["embedding"].to_numpy()
        return cls(frame["item_id"].to_list(), np.ascontiguousarray(vectors, dtype=np.float32))
