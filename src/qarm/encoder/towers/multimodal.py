"""Multi-modal tower: one checkpoint that reads an item's text, picture and sound together."""

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional

from qarm.data.media_decoding import HEARD_SECONDS, load_audio, load_image
from qarm.encoder.towers.sentence_checkpoint import SentenceCheckpoint
from qarm.errors import InputError

__all__ = ["ItemTower"]

PARTS = ("text", "image", "audio")  # the order in a message
RATE = 16_000
AT_ONCE = 16


class ItemTower(SentenceCheckpoint):
    """Vectors of whole items; arguments and errors as in `Checkpoint`.

    A checkpoint that reads messages (Qwen3-VL-Embedding, EmbeddingGemma 2) gets one message an item, its
    parts in the order text, picture, sound. One with a side for each modality (CLIP, SigLIP, CLAP) reads
    each part alone; the vector is the mean of the parts' vectors of unit length.
    """

    key = "encoder.model"

    @cached_property
    def modalities(self) -> tuple[str, ...]:
        """What the checkpoint reads, in the order of a message."""
        found = tuple(part for part in PARTS if part in self.model.modalities)
        if not found:
            raise InputError(
                f"{self.key} = {self.name!r} reads {', '.join(map(str, self.model.modalities))}, "
                f"need at least one of {', '.join(PARTS)}"
            )
        return found

    @cached_property
    def joint(self) -> bool:
        """Whether an item is one message."""
        return "message" in self.model.modalities

    @cached_property
    def _hearing(self) -> tuple[int, float]:
        """Samples a second that the model hears, and for how long; more it would crop at random."""
        processor = self.model.processor
        extractor = getattr(processor, "feature_extractor", processor)
        longest = getattr(extractor, "max_length_s", None) or HEARD_SECONDS
        return int(getattr(extractor, "sampling_rate", RATE)), min(HEARD_SECONDS, float(longest))

    def load(self, content: Mapping[str, str | bytes]) -> dict[str, Any]:
        """The item's message: text with special tokens broken up, picture and sound decoded."""
        message: dict[str, Any] = {}
        for part in PARTS:
            if part not in content:
                continue
            given: Any = content[part]
            if part == "text":
                message[part] = self.plain(given)
            elif part == "image":
                message[part] = load_image(given)
            else:
                rate, seconds = self._hearing
                message[part] = {"array": load_audio(given, rate, seconds=seconds), "sampling_rate": rate}
        return message

    def encode(self, inputs: Sequence[Mapping[str, Any]]) -> npt.NDArray[np.float32]:
        """Vectors of loaded items, float32 [n, d], the same beside any neighbour on a CPU."""
        step = 1 if self.device == "cpu" else AT_ONCE
        self.modalities  # noqa: B018 - the model is loaded before the threads start
        batches = [inputs[i : i + step] for i in range(0, len(inputs), step)]
        if self.device == "cpu":
            return np.concatenate(self.each(self._encode, batches))
        return np.concatenate([self._encode(batch) for batch in batches])

    @torch.inference_mode()
    def _encode(self, messages: Sequence[Mapping[str, Any]]) -> npt.NDArray[np.float32]:
        return np.asarray(self.vectors(self.collate(messages)).float().cpu().numpy(), dtype=np.float32)

    def collate(self, inputs: Sequence[Mapping[str, Any]]) -> list[tuple[list[int], dict[str, Any]]]:
        """Groups of items that the model reads together, on the host: rows and preprocessed features."""
        if self.joint:
            kinds: dict[tuple[str, ...], list[int]] = {}
            for row, message in enumerate(inputs):
                kinds.setdefault(tuple(message), []).append(row)
            return [(rows, self.preprocessed([inputs[r] for r in rows])) for rows in kinds.values()]
        groups = []
        for part in self.modalities:
            rows = [row for row, message in enumerate(inputs) if part in message]
            if rows:
                groups.append((rows, self.preprocessed([{part: inputs[row][part]} for row in rows])))
        return groups

    def vectors(self, batch: list[tuple[list[int], dict[str, Any]]]) -> Tensor:
        """Vectors of a collated batch, float [n, d], with their gradient."""
        count = 1 + max(max(rows) for rows, _ in batch)
        found = [(torch.tensor(rows), self.sentence_vectors(features)) for rows, features in batch]
        total = found[0][1].new_zeros(count, found[0][1].shape[1])
        for rows, vectors in found:
            unit = vectors if self.joint else functional.normalize(vectors, dim=1)
            total = total.index_add(0, rows.to(total.device), unit)
        return total if self.joint else functional.normalize(total, dim=1)
