"""Text tower: any sentence-transformers checkpoint, through its text side."""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from qarm.encoder.towers.sentence_checkpoint import SentenceCheckpoint

__all__ = ["TextTower"]

BATCH, BATCH_ON_GPU = 4, 256
READ_AT_ONCE = 256
REMEMBERED = 1 << 17  # texts, whose tokens take about a kilobyte each
PROBE = "a few words, and some more"


class TextTower(SentenceCheckpoint):
    """Sentence vectors of a checkpoint; arguments and errors as in `Checkpoint`."""

    @cached_property
    def _memory(self) -> dict[str, dict[str, Any]]:
        return {}

    def load(self, content: str) -> str:
        """The text with the model's special tokens broken up."""
        return self.plain(content)

    def encode(self, inputs: Sequence[str]) -> npt.NDArray[np.float32]:
        """Sentence vectors, float32 [n, d].

        Texts of one length go together. On a CPU four at a time: a matrix product's last bits depend on its
        shape, and a vector shall not depend on what stands beside it. Fewer are filled up to four, or go one
        by one at lengths of which a first text has shown that this gives the same bits.
        """
        tokens = self._tokens(inputs)
        if not tokens or "attention_mask" not in tokens[0]:  # a table of words, which reads texts one by one
            return np.concatenate(self.each(lambda one: self._together([one]), tokens))
        batches = list(_batches([t["input_ids"].shape[1] for t in tokens], self._at_once))
        made = self.each(lambda rows: self._encode([tokens[i] for i in rows]), batches)
        vectors = np.empty((len(inputs), made[0].shape[1]), dtype=np.float32)
        for rows, found in zip(batches, made, strict=True):
            vectors[rows] = found
        return vectors

    @property
    def _at_once(self) -> int:
        return BATCH if self.device == "cpu" else BATCH_ON_GPU

    def _encode(self, tokens: list[dict[str, Any]]) -> npt.NDArray[np.float32]:
        if len(tokens) >= BATCH or self.device != "cpu":
            return self._together(tokens)
        length = tokens[0]["input_ids"].shape[1]
        if not self._same_alone.get(length, False):
            full = self._together(tokens + tokens[:1] * (BATCH - len(tokens)))
            if length not in self._same_alone:  # a kernel is chosen by shapes, never by values
                self._same_alone[length] = np.array_equal(self._together(tokens[:1])[0], full[0])
            return full[: len(tokens)]
        return np.concatenate([self._together([one]) for one in tokens])

    @cached_property
    def _same_alone(self) -> dict[int, bool]:
        """Lengths at which a text alone was tried, and whether it had the bits that it has among four."""
        return {}

    def _together(self, tokens: list[dict[str, Any]]) -> npt.NDArray[np.float32]:
        batch = {
            key: torch.cat([one[key] for one in tokens]) if isinstance(value, Tensor) else value
            for key, value in tokens[0].items()
        }
        with torch.inference_mode():
            found = self.sentence_vectors(batch)
        return np.asarray(found.float().cpu().numpy(), dtype=np.float32)

    def collate(self, inputs: Sequence[str]) -> dict[str, Any]:
        """Loaded texts as one padded batch, on the host; a text that comes again is not read again."""
        if self._padding is None:
            return self.preprocessed(_messages(inputs))
        side, fills = self._padding
        tokens = self._remembered(inputs)
        made = dict(tokens[0])
        for key, fill in fills.items():
            rows = [one[key][0] for one in tokens]
            made[key] = pad_sequence(rows, batch_first=True, padding_value=fill, padding_side=side)
        return made

    def _remembered(self, texts: Sequence[str]) -> list[dict[str, Any]]:
        new = [text for text in dict.fromkeys(texts) if text not in self._memory]
        found = dict(zip(new, self._tokens(new), strict=True))
        found |= {text: self._memory[text] for text in set(texts).difference(new)}
        if len(self._memory) + len(new) > REMEMBERED:
            self._memory.clear()
        self._memory.update((text, found[text]) for text in new[:REMEMBERED])
        return [found[text] for text in texts]

    def _tokens(self, texts: Sequence[str]) -> list[dict[str, Any]]:
        """The model's tensors for each text alone, [1, length]; read many at a time, then cut apart."""
        if self._padding is None:
            return [self.preprocessed(_messages([text])) for text in texts]
        right, found = self._padding[0] == "right", []
        for start in range(0, len(texts), READ_AT_ONCE):
            batch = self.preprocessed(_messages(texts[start : start + READ_AT_ONCE]))
            tensors = {key: value for key, value in batch.items() if isinstance(value, Tensor)}
            for row, length in enumerate(batch["attention_mask"].sum(dim=1).tolist()):
                own = slice(0, length) if right else slice(-length, None)
                found.append(batch | {key: v[row : row + 1, own].clone() for key, v in tensors.items()})
        return found

    @cached_property
    def _padding(self) -> tuple[str, dict[str, float]] | None:
        """The side where a shorter text is filled up, and with what by name, found by trying.

        The tokenizer's own padding goes through Python lists, which holds up the thread that feeds a GPU.
        None: it does something else with its texts.
        """
        short, long, both = (
            self.preprocessed(_messages(texts)) for texts in ([PROBE[:1]], [PROBE], [PROBE[:1], PROBE])
        )
        if "attention_mask" not in both:
            return None
        right = not bool(both["attention_mask"][0, -1])
        fills = {}
        for key, made in both.items():
            if not isinstance(made, Tensor):
                continue
            if made.ndim != 2 or not torch.equal(made[1:], long[key]):
                return None
            size = short[key].shape[1]
            own, rest = (made[:1, :size], made[0, size:]) if right else (made[:1, -size:], made[0, :-size])
            if not torch.equal(own, short[key]) or bool((rest != rest[0]).any()):
                return None
            fills[key] = rest[0].item()
        return "right" if right else "left", fills

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
