"""The text tower: any sentence-transformers checkpoint, read through its text side."""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from qarm.content.checkpoint import Checkpoint
from qarm.content.towers import side_by_side

__all__ = ["TextTower"]

BATCH, BATCH_ON_GPU = 4, 256


class TextTower(Checkpoint):
    """Sentence vectors of a checkpoint; arguments and errors as in `Checkpoint`."""

    def load(self, content: str) -> str:
        """The text with the model's special tokens broken up."""
        return self.plain(content)

    def encode(self, inputs: Sequence[str]) -> npt.NDArray[np.float32]:
        """Sentence vectors, float32 [n, d].

        Texts of one length go together. On a CPU four at a time, and never fewer: a matrix product's last
        bits depend on its shape, and a vector shall not depend on what stands beside it.
        """
        tokens = [self.preprocessed(_messages([text])) for text in inputs]
        batches = list(_batches([t["input_ids"].shape[1] for t in tokens], self._at_once))
        made = side_by_side(lambda rows: self._encode([tokens[i] for i in rows]), batches)
        vectors = np.empty((len(inputs), made[0].shape[1]), dtype=np.float32)
        for rows, found in zip(batches, made, strict=True):
            vectors[rows] = found
        return vectors

    @property
    def _at_once(self) -> int:
        return BATCH if self.device == "cpu" else BATCH_ON_GPU

    def _encode(self, tokens: list[dict[str, Any]]) -> npt.NDArray[np.float32]:
        full = tokens + tokens[:1] * (BATCH - len(tokens))
        batch = {
            key: torch.cat([one[key] for one in full]) if isinstance(value, Tensor) else value
            for key, value in full[0].items()
        }
        with torch.inference_mode():
            found = self.sentence_vectors(batch)
        return np.asarray(found.float().cpu().numpy(), dtype=np.float32)[: len(tokens)]

    def collate(self, inputs: Sequence[str]) -> dict[str, Any]:
        """Loaded texts as one padded batch, on the host."""
        return self.preprocessed(_messages(inputs))

    def vectors(self, batch: dict[str, Any]) -> Tensor:
        """Features of a collated batch, float [n, d], with their gradient."""
        return self.sentence_vectors(batch)


def _messages(texts: Sequence[str]) -> Any:
    return [{"text": text} for text in texts]


def _batches(lengths: Sequence[int], size: int) -> Iterator[list[int]]:
    """Rows of one length, the longest first, so many at a time."""
    by_length = defaultdict(list)
    for row, length in enumerate(lengths):
        by_length[length].append(row)
    for _, rows in sorted(by_length.items(), reverse=True):
        yield from (rows[i : i + size] for i in range(0, len(rows), size))
