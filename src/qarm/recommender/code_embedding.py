"""Code embedding: a trainable table per level, and one for the pool of the VQ list."""

from collections.abc import Sequence
from copy import copy
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import polars as pl
import torch
from safetensors.numpy import load_file
from torch import Tensor, nn

from qarm.core.atomic_io import read_json
from qarm.core.item_index import ItemIndex
from qarm.core.paths import as_path
from qarm.data.codes import Codes
from qarm.errors import ArtifactError, InputError, shown

__all__ = ["CodeEmbedding", "joined", "padded_table", "read_codebooks", "read_pool"]

HASH, PRIME = 2_654_435_761, 2**31 - 1  # Knuth's multiplier; products stay below 2^63


class CodeEmbedding(nn.Module):
    """Codes in, vectors out (QARM, section 3.3); trained end to end like any other embedding.

    Args:
        widths: codes per level; a table of `width` rows each.
        pool: rows of the VQ table; 0: no VQ list.
        dim: length of one embedding.
        nearest: entries of a VQ list, each weighed by its place, by learned weights that start alike; 0: the
            mean of however many there are.
        prefixes: rows of a table for codes 1 and 2 together, which share rows by hash where there are more
            such prefixes; 0: none.
        ngrams: rows of a table for the prefixes of each length, 1 to all codes, shared by hash; an item has
            the sum of its prefixes' vectors (Zheng et al., RecSys 2025, "Enhancing Embedding Representation
            Stability in Recommendation Systems with Semantic ID": prefix n-grams); 0: none.
        std: deviation of the normal initialisation.
    """

    def __init__(
        self,
        widths: Sequence[int],
        *,
        pool: int = 0,
        dim: int = 64,
        nearest: int = 0,
        prefixes: int = 0,
        ngrams: int = 0,
        std: float = 0.02,
    ) -> None:
        super().__init__()
        if prefixes and len(widths) < 2:
            raise InputError(f"got prefixes={prefixes} for {len(widths)} level, need two levels; set it to 0")
        self.widths, self.pool, self.dim = list(widths), pool, dim
        self.levels = nn.ModuleList(nn.Embedding(width, dim) for width in widths)
        self.prefix = nn.Embedding(prefixes, dim) if prefixes else None
        self.ngrams = nn.EmbeddingBag(ngrams * len(widths), dim, mode="sum") if ngrams else None
        self.nearest = nn.EmbeddingBag(pool, dim, mode="sum" if nearest else "mean") if pool else None
        self.place = nn.Parameter(torch.zeros(nearest)) if pool and nearest else None
        self._rows = ItemIndex(())
        self._table = torch.empty(0, 0, dtype=torch.int64)
        for table in (*self.levels, self.prefix, self.ngrams):
            if table is not None:
                nn.init.normal_(table.weight, std=std)
        if self.nearest is not None:
            # a mean of 25 independent rows is five times shorter than one of them
            nn.init.normal_(self.nearest.weight, std=5 * std)

    @property
    def fields(self) -> int:
        """Number of vectors per item: one per level, for the prefix, the n-grams and the VQ list one each."""
        further = (self.prefix, self.ngrams, self.nearest)
        return len(self.widths) + sum(table is not None for table in further)

    @property
    def out_dim(self) -> int:
        """Number of dimensions of the vector of an item."""
        return self.fields * self.dim

    def parts(self, codes: Tensor) -> Tensor:
        """Vectors [n, fields, dim] of codes [n, levels + nearest], the levels first."""
        vectors = [table(codes[:, level]) for level, table in enumerate(self.levels)]
        if self.prefix is not None:
            whole = codes[:, 0] * self.widths[1] + codes[:, 1]
            vectors.append(self.prefix(whole * HASH % PRIME % self.prefix.num_embeddings))
        if self.ngrams is not None:
            vectors.append(self.ngrams(self._ngram_rows(codes)))
        if self.nearest is not None:
            near = codes[:, len(self.widths) :]
            weights = None if self.place is None else self.place.softmax(0).expand(len(near), -1)
            vectors.append(self.nearest(near, per_sample_weights=weights))
        return torch.stack(vectors, dim=1)

    def _ngram_rows(self, codes: Tensor) -> Tensor:
        """Rows [n, levels] of the prefixes of 1 to all codes, each length in a range of its own."""
        rows = self.ngrams.num_embeddings // len(self.widths) if self.ngrams is not None else 0
        whole, found = torch.zeros_like(codes[:, 0]), []
        for level, width in enumerate(self.widths):
            whole = (whole * width + codes[:, level]) % PRIME
            found.append(level * rows + whole * HASH % PRIME % rows)
        return torch.stack(found, dim=1)

    def widened(self, codes: Tensor) -> "CodeEmbedding":
        """The same with rows of zeros for codes [n, levels + nearest] beyond its tables: they add nothing."""
        if not len(codes):
            return self
        levels = len(self.widths)
        sizes = [int(size) + 1 for size in codes[:, :levels].amax(0)]
        listed = int(codes[:, levels:].max()) + 1 if self.nearest is not None else 0
        wide = copy(self)
        wide._modules = dict(self._modules)
        wide.levels = nn.ModuleList(map(padded_table, self.levels, sizes))
        if self.nearest is not None and listed > len(self.nearest.weight):
            weight = _rows(self.nearest.weight, listed)
            wide.nearest = nn.EmbeddingBag(
                len(weight), weight.shape[1], mode=self.nearest.mode, _weight=weight
            )
        return wide

    @torch.no_grad()
    def start_from(self, codebooks: Sequence[npt.NDArray[np.floating[Any]]]) -> None:
        """Let each level's rows start as its centroids, on their principal axes, as spread out as now.

        Args:
            codebooks: float [width, d] of each level.

        Raises:
            InputError: other levels or widths than the tables have.
        """
        sizes = [len(book) for book in codebooks]
        if sizes != self.widths:
            raise InputError(f"got codebooks of {sizes} centroids for tables of {self.widths} rows")
        for table, book in zip(self.levels, codebooks, strict=True):
            _start(table.weight, book)

    @torch.no_grad()
    def start_from_pool(self, vectors: npt.NDArray[np.floating[Any]]) -> None:
        """Let the VQ table's rows start as the pool's vectors, on their principal axes, as spread out as now.

        Items with near vectors, new ones too, then start with near embeddings.

        Args:
            vectors: float [pool, d].

        Raises:
            InputError: there is no VQ table, or it has another number of rows.
        """
        if self.nearest is None or len(vectors) != self.pool:
            raise InputError(f"got {len(vectors)} vectors for a VQ table of {self.pool} rows")
        _start(self.nearest.weight, vectors)

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
        return self._table[self._rows.find(item_ids)]

    @classmethod
    def from_run(
        cls,
        folder: Path | str,
        *,
        dim: int = 64,
        weighted: bool = False,
        prefixes: int = 0,
        start: Literal["random", "codebooks", "pool"] = "random",
    ) -> "CodeEmbedding":
        """Tables sized for a run's codebooks and pool, with `lookup` for its items.

        Args:
            folder: the run.
            dim, prefixes: as of the class.
            weighted: weigh a VQ list's entries by place.
            start: rows start at random, a level's as its codebook, or the VQ table's as the pool's vectors.

        Raises:
            ArtifactError: the folder has no finished codes, or damaged ones.
        """
        codes = as_path(folder) / "codes"
        if not (codes / "codes.parquet").is_file():
            raise ArtifactError(f"{folder} has no finished codes; run: qarm quantize CONFIG --out {folder}")
        try:
            table = Codes.read(codes / "codes.parquet")
            widths = [len(level["counts"]) for level in read_json(codes / "profile.json")["levels"]]
            pool = 0 if table.vq is None else read_json(codes / "nearest" / "config.json")["pool_size"]
        except (KeyError, TypeError, pl.exceptions.PolarsError) as error:
            raise ArtifactError(f"{codes} is damaged ({error}); restore it from a copy") from error
        entries = 0 if table.vq is None or not weighted else table.vq.shape[1]
        module = cls(widths, pool=pool, dim=dim, nearest=entries, prefixes=prefixes)
        if start == "codebooks":
            module.start_from(read_codebooks(codes / "quantizer" / "model.safetensors", len(widths)))
        if start == "pool" and pool:
            module.start_from_pool(read_pool(codes / "nearest" / "model.safetensors"))
        module._table = torch.from_numpy(joined(table))
        module._rows = ItemIndex(table.item_ids)
        return module


def joined(codes: Codes) -> npt.NDArray[np.int64]:
    """RQ and VQ codes side by side, int64 [n, levels + nearest]."""
    parts = [codes.rq] if codes.vq is None else [codes.rq, codes.vq]
    return np.concatenate(parts, axis=1).astype(np.int64)


def padded_table(table: nn.Module, size: int) -> nn.Embedding:
    """A table of embeddings with rows of zeros up to a size; itself where it has them."""
    if not isinstance(table, nn.Embedding):
        raise TypeError(f"got {type(table).__name__}, need a table of embeddings")
    if len(table.weight) >= size:
        return table
    weight = _rows(table.weight, size)
    return nn.Embedding(len(weight), weight.shape[1], _weight=weight)


def _rows(weight: Tensor, size: int) -> Tensor:
    return torch.cat([weight.detach(), weight.new_zeros(size - len(weight), weight.shape[1])])


def _start(weight: Any, vectors: npt.NDArray[np.floating[Any]]) -> None:
    """Fill a table with vectors on their principal axes, with the deviation that it has."""
    centred = vectors.astype(np.float64) - vectors.mean(axis=0)
    _, axes = np.linalg.eigh(centred.T @ centred)
    kept = min(weight.shape[1], *centred.shape)
    start = np.zeros(weight.shape)
    start[:, :kept] = centred @ axes[:, ::-1][:, :kept]
    size = float(np.sqrt(np.mean(start**2))) or 1.0
    weight.copy_(torch.from_numpy(start * (float(weight.std()) / size)).to(weight.dtype))


def read_codebooks(path: Path, levels: int) -> list[npt.NDArray[np.float32]]:
    """Centroids of each level, from the file that a quantizer has saved.

    Raises:
        InputError: the last level is not k-means, so that there are none.
    """
    found = load_file(path)
    names = [f"level_{level}" for level in range(levels)]
    if missing := [name for name in names if name not in found]:
        raise InputError(
            f"{path} has no centroids for {', '.join(missing)}; leave them out, or set ranker.start=random"
        )
    return [found[name] for name in names]


def read_pool(path: Path) -> npt.NDArray[np.float32]:
    """Vectors [pool, d] of the VQ code's pool, from the file that it has saved."""
    found: npt.NDArray[np.float32] = load_file(path)["pool"]
    return found
