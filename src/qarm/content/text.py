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

BATCH = 4


class TextTower(Checkpoint):
    """Sentence vectors of a checkpoint; arguments and errors as in `Checkpoint`."""

    def load(self, content: str) -> str:
        """The text with the model's special tokens broken up."""
        return self.plain(content)

    def encode(self, inputs: Sequence[str]) -> npt.NDArray[np.float32]:
        """Sentence vectors, float32 [n, d].

        Texts of one length go four at a time, and never fewer: a matrix product's last bits depend on its
        shape, and a vector shall not depend on what stands beside it.
        """
        batches = list(self._batches(inputs))
        made = side_by_side(lambda rows: self._encode([inputs[i] for i in rows]), batches)
        vectors = np.empty((len(inputs), made[0].shape[1]), dtype=np.float32)
        for rows, found in zip(batches, made, strict=True):
            vectors[rows] = found
        return vectors

    def _encode(self, texts: list[str]) -> npt.NDArray[np.float32]:
        full = texts + texts[:1] * (BATCH - len(texts))
        with torch.inference_mode():
            found = self.sentence_vectors(self.preprocessed(_messages(full)))
        return np.asarray(found.float().cpu().numpy(), dtype=np.float32)[: len(texts)]

    def _batches(self, texts: Sequence[str]) -> Iterator[list[int]]:
        by_length = defaultdict(list)
        for row, text in enumerate(texts):
            by_length[self.preprocessed(_messages([text]))["input_ids"].shape[1]].append(row)
        for _, rows in sorted(by_length.items(), reverse=True):
            yield from (rows[i : i + BATCH] for i in range(0, len(rows), BATCH))

    def collate(self, inputs: Sequence[str]) -> dict[str, Any]:
        """Loaded texts as one padded batch, on the host."""
        return self.preprocessed(_messages(inputs))

    def vectors(self, batch: dict[str, Any]) -> Tensor:
        """Features of a collated batch, float [n, d], with their gradient."""
        return self.sentence_vectors(batch)


def _messages(texts: Sequence[str]) -> Any:
    return [{"text": text} for text in texts]
