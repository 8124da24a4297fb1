"""Picture and sound towers from any checkpoint of transformers, with the pooling of its outputs."""

import logging
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from qarm.data.media_decoding import HEARD_SECONDS, load_audio, load_image
from qarm.encoder.towers.checkpoint import Checkpoint
from qarm.encoder.towers.tower import side_by_side
from qarm.errors import InputError, shown
from qarm.schemas.encoder import Pooling, TowerOptions

__all__ = ["AudioCheckpoint", "ImageCheckpoint"]

AT_ONCE = 16
PROCESSOR = "preprocessor_config.json"
CLASS_TOKENS = ("cls_token", "class_embedding", "class_token")  # names of a class token's parameter
Inputs = dict[str, Tensor]


class _MediaCheckpoint(Checkpoint):
    """A network of one medium; arguments and errors as in `Checkpoint`.

    Of a checkpoint for several modalities (CLIP, SigLIP, CLAP) the side of the medium is read, through its
    projection; of one that writes text (Whisper), the encoder. Else the vector is, by `pooling`: the
    checkpoint's own pooled output where it has weights for it, its class token, or the mean of its outputs.
    """

    kind: Literal["image", "audio"]

    @cached_property
    def options(self) -> TowerOptions:
        """The pooling; prompts and lengths are those of texts."""
        pooling = self._asked.pooling
        return TowerOptions(pooling=None if pooling == "auto" else pooling)

    def _load(self) -> nn.Module:
        from transformers import AutoModel

        logging.getLogger("transformers.modeling_utils").setLevel(logging.ERROR)  # its report is read here

        model, report = AutoModel.from_pretrained(
            str(self.folder),
            local_files_only=True,
            trust_remote_code=False,
            use_safetensors=True,
            output_loading_info=True,
        )
        missing = sorted(report["missing_keys"])
        self._random = [name for name in missing if "pooler" in name]
        lost = [name for name in missing if name not in self._random]
        if lost:
            raise InputError(
                f"{self.key} = {self.name!r}: the checkpoint lacks weights ({shown(lost, first=3)}), which "
                "would be random; give one that has them"
            )
        self._prepare(model)
        return model.to(self.device)  # type: ignore[no-any-return]

    def _prepare(self, model: nn.Module) -> None:
        """What has to be done to a model before it is used."""

    @cached_property
    def _side(self) -> tuple[nn.Module, str | None]:
        """What is called, and the method of a checkpoint for several modalities."""
        model: Any = self.model
        method = f"get_{self.kind}_features"
        if hasattr(model, method):
            return model, method
        if getattr(model.config, "is_encoder_decoder", False):
            return model.get_encoder(), None
        return model, None

    @cached_property
    def processor(self) -> Any:
        """What turns a decoded medium into the model's inputs.

        Raises:
            InputError: the checkpoint has none that works here.
        """
        try:
            return self._processor()
        except Exception as error:
            raise self.unusable(error) from error

    def _processor(self) -> Any:
        raise NotImplementedError

    def encode(self, inputs: Sequence[Inputs]) -> npt.NDArray[np.float32]:
        """Features of loaded media, float32 [n, d], on a CPU the same beside any neighbour."""
        self.model  # noqa: B018 - loaded before the threads start
        step = 1 if self.device == "cpu" else AT_ONCE
        batches = [inputs[i : i + step] for i in range(0, len(inputs), step)]
        if self.device == "cpu":
            return np.concatenate(side_by_side(self._encode, batches))
        return np.concatenate([self._encode(batch) for batch in batches])

    @torch.inference_mode()
    def _encode(self, inputs: Sequence[Inputs]) -> npt.NDArray[np.float32]:
        return np.asarray(self.vectors(self.collate(inputs)).float().cpu().numpy(), dtype=np.float32)

    def collate(self, inputs: Sequence[Inputs]) -> list[tuple[list[int], Inputs]]:
        """Groups of media whose inputs have one shape, on the host: rows and tensors."""
        alike: dict[tuple[object, ...], list[int]] = {}
        for row, one in enumerate(inputs):
            alike.setdefault(tuple((k, *v.shape) for k, v in one.items()), []).append(row)
        return [
            (rows, {key: torch.cat([inputs[r][key] for r in rows]) for key in inputs[rows[0]]})
            for rows in alike.values()
        ]

    def vectors(self, batch: list[tuple[list[int], Inputs]]) -> Tensor:
        """Features of a collated batch, float [n, d], with their gradient."""
        for module in self.model.modules():
            if isinstance(module, nn.modules.batchnorm._BatchNorm):
                module.eval()  # a medium's vector shall not depend on its neighbours, in training either
        parts = [self._pooled(inputs) for _, inputs in batch]
        order = [row for rows, _ in batch for row in rows]
        return torch.cat(parts)[torch.tensor(order).argsort().to(parts[0].device)]

    def _pooled(self, inputs: Inputs) -> Tensor:
        network, method = self._side
        kind = next(network.parameters()).dtype
        there = {k: v.to(self.device, kind if v.is_floating_point() else None) for k, v in inputs.items()}
        if method is not None:
            found = getattr(network, method)(**there)
            return found if isinstance(found, Tensor) else found.pooler_output
        return self._pool(network(**there))

    def _pool(self, found: Any) -> Tensor:
        own: Any = getattr(found, "pooler_output", None)
        states = found.last_hidden_state
        pooling = self.options.pooling or self._auto(own)
        if pooling == "pooler" and (own is None or self._random):
            raise InputError(
                f"encoder.pooling = pooler: {self.name!r} has no weights for pooled output; take cls or mean"
            )
        if pooling == "pooler":
            return own.flatten(1)  # type: ignore[no-any-return]
        if states.ndim == 4:  # a convolutional network's channels
            return states.mean((2, 3))  # type: ignore[no-any-return]
        return states[:, 0] if pooling == "cls" else states.mean(1)  # type: ignore[no-any-return]

    def _auto(self, own: Tensor | None) -> Pooling:
        if own is not None and not self._random:
            return "pooler"
        names = (name.rpartition(".")[2] for name, _ in self.model.named_parameters())
        return "cls" if any(name in CLASS_TOKENS for name in names) else "mean"

    @property
    def adaptable(self) -> nn.Module | None:
        """The network, where it has linear layers for LoRA."""
        model: nn.Module = self.model
        return model if any(isinstance(m, nn.Linear) for m in model.modules()) else None

    def _write(self, folder: Path) -> None:
        model: Any = self.model
        model.save_pretrained(folder)
        self.processor.save_pretrained(folder)


class ImageCheckpoint(_MediaCheckpoint):
    """Pooled features of pictures, through the checkpoint's own image processor."""

    key = "encoder.image"
    kind = "image"

    def _processor(self) -> Any:
        from transformers import AutoImageProcessor

        read: Any = AutoImageProcessor.from_pretrained  # which has no types
        return read(str(self.folder), local_files_only=True)

    def load(self, content: bytes) -> Inputs:
        """The picture as the model's inputs, [1, ...] each."""
        return _tensors(self.processor(images=load_image(content), return_tensors="pt"))


class AudioCheckpoint(_MediaCheckpoint):
    """Pooled features of the first ten seconds of sounds, or of fewer if the checkpoint hears fewer.

    An encoder of fixed length (Whisper's: 30 seconds) is cut to them.
    """

    key = "encoder.audio"
    kind = "audio"

    def _prepare(self, model: nn.Module) -> None:
        network: Any = model
        if network.config.model_type != "whisper":
            return
        found = self._processor()
        kept = min(
            network.config.max_source_positions,
            int(HEARD_SECONDS * found.sampling_rate / found.hop_length) // 2,
        )
        network.config.max_source_positions = network.encoder.max_source_positions = kept
        places = network.encoder.embed_positions
        places.num_embeddings, places.weight = (
            kept,
            nn.Parameter(places.weight[:kept].detach().clone(), False),
        )

    def _processor(self) -> Any:
        from transformers import AutoFeatureExtractor

        read: Any = AutoFeatureExtractor.from_pretrained  # which has no types
        return read(str(self.folder), local_files_only=True)

    @cached_property
    def processor(self) -> Any:
        """The feature extractor, cut to what the model hears."""
        found, config = super().processor, self.model.config
        if config.model_type == "whisper":
            found.n_samples = 2 * config.max_source_positions * found.hop_length
            found.chunk_length = found.n_samples / found.sampling_rate
            found.nb_max_frames = 2 * config.max_source_positions
        return found

    @cached_property
    def seconds(self) -> float:
        """How long the model hears."""
        longest = getattr(self.processor, "max_length_s", None) or getattr(
            self.processor, "chunk_length", None
        )
        return min(HEARD_SECONDS, float(longest or HEARD_SECONDS))

    def load(self, content: bytes) -> Inputs:
        """The sound as the model's inputs, [1, ...] each."""
        rate = int(self.processor.sampling_rate)
        samples = load_audio(content, rate, seconds=self.seconds)
        return _tensors(self.processor(samples, sampling_rate=rate, return_tensors="pt"))


def _tensors(made: Mapping[str, Any]) -> Inputs:
    return {name: value for name, value in made.items() if isinstance(value, Tensor)}
