"""Sequence model: histories and candidates from one table of item vectors, compared by cosine."""

from copy import copy
from pathlib import Path
from typing import Self

import numpy as np
import numpy.typing as npt
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor, nn
from torch.nn import functional

from qarm.core.atomic_io import atomic, read_model, write_json
from qarm.core.paths import as_path
from qarm.core.run_folder import verify
from qarm.errors import ArtifactError
from qarm.recommender.retrieval.histories import Histories
from qarm.recommender.retrieval.models.history_readers import history_reader
from qarm.recommender.retrieval.models.item_vectors import ItemVectors
from qarm.schemas.retrieval import RetrieverShape

__all__ = ["RetrievalModel", "SequenceModel"]

Scores = npt.NDArray[np.float32]


class RetrievalModel(nn.Module):
    """Model of the next item, which is frozen for evaluation."""

    @property
    def item_count(self) -> int:
        """Size of the catalogue."""
        raise NotImplementedError

    def freeze(self) -> Self:
        """Evaluation mode, with everything computed that scoring needs; to be called again after training."""
        raise NotImplementedError


class SequenceModel(RetrievalModel):
    """Score of an item: similarity of its vector and the query that a reader makes of the history's vectors.

    Similarity is cosine / temperature, or the scalar product. Unlike SASRec (Kang and McAuley, ICDM 2018), an
    item is the sum of its fields, so that items without an id can be read and scored.
    """

    def __init__(self, shape: RetrieverShape, *, values: int = 0) -> None:
        super().__init__()
        self.shape = shape
        self.items = ItemVectors(shape, values=values)
        self.dropout = nn.Dropout(shape.dropout)
        self.reader = history_reader(
            shape.reader,
            shape.dim,
            length=shape.length,
            lags=shape.lags,
            blocks=shape.blocks,
            heads=shape.heads,
            dropout=shape.dropout,
        )
        self._candidates: Tensor | None = None
        self._vectors: Tensor | None = None

    def compared(self, vectors: Tensor) -> Tensor:
        """Vectors as they are compared: of length 1 for cosines."""
        return functional.normalize(vectors, dim=-1) if self.shape.similarity == "cosine" else vectors

    @property
    def scale(self) -> float:
        """Factor of a product of compared vectors."""
        return 1 / self.shape.temperature if self.shape.similarity == "cosine" else 1.0

    @property
    def item_count(self) -> int:
        """Size of the catalogue that it was trained on."""
        return self.shape.items

    @torch.no_grad()
    def freeze(self) -> Self:
        """Evaluation mode, with every item's vector computed once."""
        self.eval()
        chunks = torch.split(torch.arange(self.shape.items), 65_536)
        self._vectors = torch.cat([self.items(chunk) for chunk in chunks])
        self._candidates = self.compared(self._vectors)
        return self

    @property
    def candidates(self) -> Scores:
        """Vectors of all items as they are compared with queries, float32 [items, dim]."""
        return self._frozen()[1].numpy()

    def _frozen(self) -> tuple[Tensor, Tensor]:
        """Vectors [items, dim] of all items, as histories read them and as they are compared."""
        if self._vectors is None or self._candidates is None:
            self.freeze()
        assert self._vectors is not None and self._candidates is not None  # noqa: S101, PT018 - freeze sets both
        return self._vectors, self._candidates

    def read_table(self, table: Tensor, cold: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Queries [n, dim] after every event but the last of histories [b, t], and the events after them [n].

        Args:
            table: items by row, -1 before a history. cold: as of `ItemVectors`.
        """
        inputs, targets = table[:, :-1], table[:, 1:]
        seen = inputs >= 0
        rows, columns = torch.unique(inputs.clamp(min=0), return_inverse=True)
        vectors = self.dropout(self.items(rows, cold))[columns] * seen[..., None]
        return self.reader(vectors, seen)[seen], targets[seen]

    @torch.no_grad()
    def raw_queries(self, histories: Histories) -> Tensor:
        """Queries [users, dim] of the reader; zero for an empty history."""
        table, _ = self._frozen()
        rows = torch.from_numpy(histories.padded(self.shape.length))
        seen = rows >= 0
        queries: Tensor = self.reader.last(table[rows.clamp(min=0)] * seen[..., None], seen)
        return queries * seen.any(1, keepdim=True)

    def queries(self, histories: Histories) -> Scores:
        """Query vectors float32 [users, dim], times the similarity's scale; zero for an empty history."""
        scaled: Scores = (self.compared(self.raw_queries(histories)) * self.scale).numpy()
        return scaled

    def scores(self, histories: Histories) -> Scores:
        """Logits float32 [users, items]."""
        logits: Scores = self.queries(histories) @ self.candidates.T
        return logits

    @torch.no_grad()
    def with_items(
        self, codes: npt.NDArray[np.int64], vectors: npt.NDArray[np.float32] | None = None
    ) -> "SequenceModel":
        """The same with new items behind the catalogue, without ids: vectors from their contents alone.

        Codes beyond the tables, which no item of the training had, add nothing.

        Args:
            codes: int64 [n, levels + nearest], the columns that the model reads. vectors: fixed ones,
                float32 [n, d], read where the model reads such.
        """
        table, candidates = self._frozen()
        added = table.new_zeros(len(codes), self.shape.dim)
        if self.items.code is not None:
            given = torch.from_numpy(codes)
            added = self.items.code.widened(given).parts(given).sum(1)
        if self.items.project is not None and vectors is not None:
            added = added + self.items.project(torch.from_numpy(vectors))
        wide = copy(self)
        wide._vectors = torch.cat([table, added])
        wide._candidates = torch.cat([candidates, self.compared(added)])
        return wide

    def support(self, history: npt.NDArray[np.int32], item: int) -> Scores:
        """Similarity of each event's item and an item, float32 [events]."""
        products: Scores = self.candidates[history] @ self.candidates[item]
        return products

    def save_pretrained(self, folder: Path | str) -> None:
        """Write `config.json` and `model.safetensors`."""
        folder = as_path(folder)
        weights = {name: tensor.contiguous() for name, tensor in self.state_dict().items()}
        with atomic(folder / "model.safetensors") as temporary:
            temporary.write_bytes(save(weights))
        write_json(folder / "config.json", self.shape)

    @classmethod
    def from_pretrained(cls, folder: Path | str) -> "SequenceModel":
        """Read what `save_pretrained` wrote.

        Raises:
            ArtifactError: a file is missing or does not fit the other.
        """
        folder = as_path(folder)
        verify(folder)
        shape = read_model(folder / "config.json", RetrieverShape)
        try:
            weights = load_file(folder / "model.safetensors")
            model = cls(shape, values=len(weights["items.attributes"]))
            model.load_state_dict(weights)
        except (KeyError, RuntimeError, OSError, SafetensorError) as error:
            raise ArtifactError(
                f"{folder}: not a whole sequence model ({error}); run qarm retrieve again"
            ) from error
        return model.freeze()
