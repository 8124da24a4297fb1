"""Item fields: a vector per field of an item, from its id, its codes and its frozen vector."""

import torch
from torch import Tensor, nn

from qarm.recommender.code_embedding import CodeEmbedding
from qarm.schemas.results import RankerShape

__all__ = ["ItemFields"]

INIT = 0.02  # of code tables, so that a code starts as a small correction
ID_INIT = 0.1  # ids meet only each other at first: from 0.02 their scalar products take ten epochs to wake


class ItemFields(nn.Module):
    """An item's vectors, one per field: id, then each code level, the VQ list, the frozen vector.

    The id of an item without training events is row 0, out of vocabulary; dropping ids in training
    is what trains that row.

    With `shape.shrinkage` k an id's vector is a prior from the item's content plus what its own n training
    events add, A c + n / (n + k) r, c the sum of its other fields, and so is its bias: an empirical-Bayes
    estimate, shrunk to what items alike have (the factor n / (n + k): Bell and Koren, ICDM 2007).
    """

    known: Tensor
    codes: Tensor
    vectors: Tensor
    pool: Tensor
    events: Tensor

    def __init__(self, shape: RankerShape) -> None:
        super().__init__()
        self.shape = shape
        self.ids = nn.Embedding(shape.known + 1, shape.dim) if shape.ids else None
        self.id_bias = nn.Embedding(shape.known + 1, 1) if shape.ids else None
        if self.ids is not None and self.id_bias is not None:
            nn.init.normal_(self.ids.weight, std=ID_INIT)
            nn.init.zeros_(self.id_bias.weight)
        shrunk = bool(shape.ids and shape.shrinkage)
        self.prior = nn.Linear(shape.dim, shape.dim + 1, bias=False) if shrunk else None
        if self.prior is not None:
            nn.init.zeros_(self.prior.weight)
            self.register_buffer("events", torch.zeros(shape.known + 1))
        self.register_buffer("known", torch.zeros(shape.items, dtype=torch.int64))
        self.register_buffer(
            "codes", torch.zeros(shape.items, len(shape.widths) + shape.nearest, dtype=torch.int64)
        )
        self.register_buffer("vectors", torch.zeros(shape.items, shape.vector))
        pool = shape.pool if shape.cross else 0
        self.register_buffer("pool", torch.full((pool,), -1, dtype=torch.int64))
        has_codes = bool(shape.widths or shape.pool)
        self.code = (
            CodeEmbedding(
                shape.widths,
                pool=shape.pool,
                dim=shape.dim,
                nearest=shape.nearest if shape.weighted else 0,
                prefixes=shape.prefixes,
                ngrams=shape.ngrams,
                std=INIT,
            )
            if has_codes
            else None
        )
        self.level_bias = nn.ModuleList(nn.Embedding(width, 1) for width in shape.widths)
        self.project = nn.Linear(shape.vector, shape.dim, bias=False) if shape.vector else None
        for table in self.level_bias:
            nn.init.zeros_(table.weight)  # type: ignore[arg-type]
        if self.project is not None:
            nn.init.normal_(self.project.weight, std=2 * INIT)

    @property
    def fields(self) -> int:
        """Number of fields of an item."""
        return self.shape.ids + (self.code.fields if self.code else 0) + (self.project is not None)

    def content(self, items: Tensor) -> tuple[Tensor, Tensor]:
        """Fields [n, fields, dim], the id's left out, and bias [n] that do not depend on the id."""
        parts, bias = [], self.vectors.new_zeros(len(items))
        if self.code is not None:
            codes = self._dropped(self.codes[items])
            parts.append(self.code.parts(codes))
            for level, table in enumerate(self.level_bias):
                bias = bias + table(codes[:, level])[:, 0]
        if self.project is not None:
            parts.append(self.project(self.vectors[items])[:, None])
        nothing = self.vectors.new_zeros(len(items), 0, self.shape.dim)
        return torch.cat(parts, dim=1) if parts else nothing, bias

    def _dropped(self, codes: Tensor) -> Tensor:
        """Some items' codes as if they had none, which trains the code of items without codes."""
        if not (self.training and self.shape.spare and self.shape.id_dropout):
            return codes
        last = [width - 1 for width in self.shape.widths] + [self.shape.pool - 1] * self.shape.nearest
        dropped = torch.rand(len(codes), 1, device=codes.device) < self.shape.id_dropout
        return torch.where(dropped, torch.tensor(last, device=codes.device), codes)

    def forward(self, items: Tensor, content: tuple[Tensor, Tensor] | None = None) -> tuple[Tensor, Tensor]:
        """Fields [n, fields, dim] and bias [n] of items [n]; `content`: that of all items, if at hand."""
        if content is None:
            distinct, place = torch.unique(items, return_inverse=True)
            content = self.content(distinct)
        else:
            place = items
        fields, bias = (part.index_select(0, place) for part in content)
        if self.ids is None or self.id_bias is None:
            return fields, bias
        ids = self.known[items]
        if self.training and self.shape.id_dropout:
            ids = torch.where(torch.rand(ids.shape, device=ids.device) < self.shape.id_dropout, 0, ids)
        own, own_bias = self._shrunk(ids, self.ids(ids), self.id_bias(ids)[:, 0], fields.sum(1))
        return torch.cat([own[:, None], fields], dim=1), own_bias + bias

    def _shrunk(self, ids: Tensor, own: Tensor, bias: Tensor, content: Tensor) -> tuple[Tensor, Tensor]:
        """Vectors [n, dim] and biases [n] of ids, shrunk to a prior from content where the shape says so."""
        if self.prior is None:
            return own, bias
        events, prior = self.events[ids], self.prior(content)
        share = events / (events + self.shape.shrinkage)
        return prior[:, :-1] + share[:, None] * own, prior[:, -1] + share * bias
