"""Item vectors: the sum of id, code, attribute and fixed-vector embeddings; one table for both sides."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn import functional

from qarm.recommender.code_embedding import CodeEmbedding
from qarm.schemas.retrieval import RetrieverShape

__all__ = ["ItemContent", "ItemVectors"]

INIT = 0.05
SPARSE = 200_000  # items from which on the id table takes sparse updates


@dataclass(frozen=True)
class ItemContent:
    """What is known of items besides their id; None where there is nothing of the kind.

    codes: RQ levels and then the VQ list, int64 [items, levels + nearest]; widths: codes per level; pool:
    rows of the VQ table; attributes: offsets int64 [items + 1] and values int64 [m]; vectors: float32
    [items, d].
    """

    codes: npt.NDArray[np.int64] | None = None
    widths: tuple[int, ...] = ()
    pool: int = 0
    attributes: tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]] | None = None
    vectors: npt.NDArray[np.float32] | None = None


class ItemVectors(nn.Module):
    """Vector of an item: id * clicks / (clicks + shrinkage) + codes + attributes + projected fixed vector.

    An item without training events has no id, so that its vector is that of its content (QARM, section 3.3).
    """

    trust: Tensor
    codes: Tensor
    attributes: Tensor
    offsets: Tensor
    fixed: Tensor

    def __init__(self, shape: RetrieverShape, *, values: int = 0) -> None:
        """Tables of a shape; values: of all items' attributes together."""
        super().__init__()
        self.shape = shape
        sparse = shape.items > SPARSE
        self.ids = nn.Embedding(shape.items, shape.dim, sparse=sparse) if shape.ids else None
        coded = bool(shape.widths or shape.nearest)
        self.code = CodeEmbedding(shape.widths, pool=shape.pool, dim=shape.dim, std=INIT) if coded else None
        many = shape.attributes
        self.attribute = nn.EmbeddingBag(many, shape.dim, mode="mean") if many else None
        self.project = nn.Linear(shape.vector, shape.dim, bias=False) if shape.vector else None
        for table in (self.ids, self.attribute):
            if table is not None:
                nn.init.normal_(table.weight, std=INIT)
        self.register_buffer("trust", torch.ones(shape.items))
        columns = len(shape.widths) + shape.nearest
        self.register_buffer("codes", torch.zeros(shape.items, columns, dtype=torch.int32))
        self.register_buffer("attributes", torch.zeros(values, dtype=torch.int64))
        self.register_buffer("offsets", torch.zeros(shape.items + 1 if many else 0, dtype=torch.int64))
        self.register_buffer("fixed", torch.zeros(shape.items, shape.vector))

    @torch.no_grad()
    def set_items(self, content: ItemContent, counts: npt.NDArray[np.int64], *, shrinkage: float) -> None:
        """Content of every item, and how far its id is trusted; counts: training events, int64 [items]."""
        clicks = torch.from_numpy(counts).float()
        self.trust.copy_(clicks / (clicks + shrinkage).clamp(min=1e-9))
        if content.codes is not None and self.code is not None:
            self.codes.copy_(torch.from_numpy(content.codes))
        if content.attributes is not None and self.attribute is not None:
            for buffer, array in zip((self.offsets, self.attributes), content.attributes, strict=True):
                buffer.copy_(torch.from_numpy(array))
        if content.vectors is not None and self.project is not None:
            self.fixed.copy_(torch.from_numpy(content.vectors))

    def forward(self, items: Tensor, cold: Tensor | None = None) -> Tensor:
        """Vectors [n, dim] of items [n]; cold: bool [items], items that are treated as if they had no id."""
        vectors = self.trust.new_zeros(len(items), self.shape.dim)
        if self.ids is not None:
            trust = self.trust[items] if cold is None else torch.where(cold[items], 0.0, self.trust[items])
            vectors = vectors + self.ids(items) * trust[:, None]
        if self.code is not None:
            vectors = vectors + self.code.parts(self.codes[items].long()).sum(1)
        if self.attribute is not None:
            vectors = vectors + self._attributes(self.attribute, items)
        if self.project is not None:
            vectors = vectors + self.project(self.fixed[items])
        return vectors

    def _attributes(self, table: nn.EmbeddingBag, items: Tensor) -> Tensor:
        first, lengths = self.offsets[items], self.offsets[items + 1] - self.offsets[items]
        starts = functional.pad(lengths.cumsum(0), (1, 0))[:-1]
        rows = torch.repeat_interleave(first - starts, lengths) + torch.arange(int(lengths.sum()))
        found: Tensor = table(self.attributes[rows], starts)
        return found
