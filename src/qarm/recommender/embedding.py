"""Codes as trainable ids: a table per level, and one for the pool of the VQ list."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import polars as pl
import torch
from torch import Tensor, nn

from qarm.artifacts import Codes, read_json
from qarm.errors import ArtifactError, InputError, shown

__all__ = ["CodeEmbedding", "joined"]


class CodeEmbedding(nn.Module):
    """Codes in, vectors out (QARM, section 3.3); trained end to end like any other embedding.

    Args:
        widths: codes per level; a table of `width` rows each.
        pool: rows of the VQ table; 0: no VQ list.
        dim: length of one embedding.
        std: deviation of the normal initialisation.
    """

    def __init__(self, widths: Sequence[int], *, pool: int = 0, dim: int = 64, std: float = 0.02) -> None:
        super().__init__()
        self.widths, self.pool, self.dim = list(widths), pool, dim
        self.levels = nn.ModuleList(nn.Embedding(width, dim) for width in widths)
        self.nearest = nn.EmbeddingBag(pool, dim, mode="mean") if pool else None
        self._rows: dict[str, int] = {}
        self._table = torch.empty(0, 0, dtype=torch.int64)
        for table in self.levels:
            nn.init.normal_(table.weight, std=std)  # type: ignore[arg-type]
        if self.nearest is not None:
            # a mean of 25 independent rows is five times shorter than one of them
            nn.init.normal_(self.nearest.weight, std=5 * std)

    @property
    def fields(self) -> int:
        """Number of vectors per item: one per level, and one for the VQ list."""
        return len(self.widths) + (self.nearest is not None)

    @property
    def out_dim(self) -> int:
        return self.fields * self.dim

    def parts(self, codes: Tensor) -> Tensor:
        """Vectors [n, fields, dim] of codes [n, levels + nearest], the levels first."""
        vectors = [table(codes[:, level]) for level, table in enumerate(self.levels)]
        if self.nearest is not None:
            vectors.append(self.nearest(codes[:, len(self.widths) :]))
        return torch.stack(vectors, dim=1)

    def forward(self, codes: Tensor) -> Tensor:
        """Vectors [..., out_dim] of codes int64 [..., levels + nearest]."""
        flat = self.parts(codes.reshape(-1, codes.shape[-1])).flatten(1)
        return flat.reshape(*codes.shape[:-1], self.out_dim)

    def lookup(self, item_ids: Sequence[str]) -> Tensor:
        """Codes int64 [n, levels + nearest] of the run's items.

        Raises:
            InputError: items without codes.
        """
        missing = [item for item in item_ids if item not in self._rows]
        if missing:
            raise InputError(f"no codes for items {shown(missing)}; code them with qarm encode")
        return self._table[[self._rows[item] for item in item_ids]]

    @classmethod
    def from_run(cls, folder: Path | str, *, dim: int = 64) -> "CodeEmbedding":
        """Tables sized for a run's codebooks and pool, with `lookup` for its items.

        Raises:
            ArtifactError: the folder has no finished codes, or damaged ones.
        """
        codes = Path(folder) / "codes"
        if not (codes / "codes.parquet").is_file():
            raise ArtifactError(f"{folder} has no finished codes; run: qarm quantize CONFIG --out {folder}")
        try:
            table = Codes.read(codes / "codes.parquet")
            widths = [len(level["counts"]) for level in read_json(codes / "profile.json")["levels"]]
            pool = 0 if table.vq is None else read_json(codes / "nearest" / "config.json")["pool_size"]
        except (KeyError, TypeError, pl.exceptions.PolarsError) as error:
            raise ArtifactError(f"{codes} is damaged ({error}); delete it and run quantize again") from error
        module = cls(widths, pool=pool, dim=dim)
        module._table = torch.from_numpy(joined(table))
        module._rows = {item: row for row, item in enumerate(table.item_ids)}
        return module


def joined(codes: Codes) -> npt.NDArray[np.int64]:
    """RQ and VQ codes side by side, int64 [n, levels + nearest]."""
    parts = [codes.rq] if codes.vq is None else [codes.rq, codes.vq]
    return np.concatenate(parts, axis=1).astype(np.int64)
