"""The trainable part of the composite encoder: projections, a small sound network, and their fusion."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from qarm.content.features import Features

__all__ = ["Batch", "Heads", "as_batch", "flat"]

CHANNELS = 64
FRAMES = 4
SMALLEST_STD = 1e-4


@dataclass(frozen=True)
class Batch:
    """Tower features of n items.

    values: modality to float [k, ...], those of the k items that have it, in order; present: bool
    [n, modalities], in the order of the heads' modalities.
    """

    values: Mapping[str, Tensor]
    present: Tensor


def as_batch(features: Features, modalities: list[str]) -> Batch:
    """Features as tensors on the CPU, the modalities in the order given."""
    nobody = np.zeros(len(features), dtype=np.bool_)
    present = np.stack([features.present.get(m, nobody) for m in modalities], axis=1)
    values = {m: torch.from_numpy(features.values[m]) for m in modalities if m in features.values}
    return Batch(values, torch.from_numpy(present))


def flat(features: Tensor) -> Tensor:
    """A feature as one vector: [n, d] stays, frames [n, t, b] become means and deviations [n, 2 b]."""
    if features.ndim == 2:
        return features
    mean = features.mean(1)
    variance = (features - mean[:, None]).square().mean(1)  # several times as fast as std() on a CPU
    return torch.cat([mean, variance.sqrt()], dim=1)


class Heads(nn.Module):
    """Fuses the modalities of an item into one vector of unit length.

    Each modality is standardised and projected to `dim`; a missing one is replaced by a learned vector;
    their sum is the skip connection around a two-layer network over their concatenation. That network
    starts at zero, so that training starts from a random projection of the pretrained features.

    Args:
        shapes: modality to the shape of one item's feature, (d,) or (frames, bands).
        dim, hidden, dropout: length of the vectors, width of the network, its dropout.
    """

    def __init__(
        self, shapes: Mapping[str, tuple[int, ...]], *, dim: int, hidden: int, dropout: float
    ) -> None:
        super().__init__()
        self.shapes = {m: tuple(shape) for m, shape in sorted(shapes.items())}
        self.dim, self.hidden, self.dropout = dim, hidden, dropout
        self.scale = nn.ModuleDict({m: Standardize(_width(s)) for m, s in self.shapes.items()})
        self.project = nn.ModuleDict({m: _projection(_width(s), dim) for m, s in self.shapes.items()})
        sequences = {m: s for m, s in self.shapes.items() if len(s) == 2}
        self.listen = nn.ModuleDict({m: Listen(s[1], dim) for m, s in sequences.items()})
        self.missing = nn.Parameter(torch.zeros(len(self.shapes), dim))
        width = dim * len(self.shapes)
        self.fuse = nn.Sequential(
            nn.LayerNorm(width),
            nn.Linear(width, hidden),
            nn.GELU(),
            nn.Dropout(dropout),
            nn.Linear(hidden, dim),
        )
        _zero(self.fuse[-1])

    @property
    def modalities(self) -> list[str]:
        return list(self.shapes)

    def fit_scale(self, modality: str, values: Tensor) -> None:
        """Standardise a modality by the mean and deviation of values [n, d], as `flat` gives them.

        A constant column is only centred.
        """
        mean, std = (self.scale[modality].get_buffer(name) for name in ("mean", "std"))
        spread = values.double().std(0, correction=0)
        mean.copy_(values.double().mean(0))
        std.copy_(torch.where(spread > SMALLEST_STD, spread, 1.0))

    def forward(self, batch: Batch, keep: Tensor | None = None) -> Tensor:
        """Vectors of unit length, [n, dim].

        Args:
            batch: features of n items.
            keep: bool [n, modalities]; where False, a modality is treated as missing.
        """
        there = batch.present if keep is None else batch.present & keep
        parts = []
        for column, modality in enumerate(self.modalities):
            part = self.missing[column].expand(len(there), -1)
            if modality in batch.values:
                rows = batch.present[:, column].nonzero()[:, 0]
                found = part.index_copy(0, rows, self._project(modality, batch.values[modality]))
                part = torch.where(there[:, column, None], found, part)
            parts.append(part)
        fused = torch.stack(parts).sum(0) + self.fuse(torch.cat(parts, dim=1))
        return functional.normalize(fused, dim=1)

    def _project(self, modality: str, values: Tensor) -> Tensor:
        values = values.to(self.missing.dtype)
        scaled = functional.dropout(self.scale[modality](flat(values)), self.dropout, self.training)
        projected: Tensor = self.project[modality](scaled)
        if modality in self.listen:
            means: Tensor = self.scale[modality].get_buffer("mean")
            centred = values - means[: values.shape[2]]
            bands = functional.dropout(torch.ones_like(centred[:, :1]), self.dropout, self.training)
            projected = projected + self.listen[modality](centred * bands)
        return projected

    def raw(self, batch: Batch) -> Tensor:
        """Vectors before alignment, unit length, [n, sum of the features' lengths].

        Each modality's standardised feature at unit length, zeros where it is missing, side by side.
        """
        parts = []
        for column, (modality, shape) in enumerate(self.shapes.items()):
            part = self.missing.new_zeros(len(batch.present), _width(shape))
            if modality in batch.values:
                values = flat(batch.values[modality].to(part.dtype))
                part[batch.present[:, column]] = functional.normalize(self.scale[modality](values), dim=1)
            parts.append(part)
        return functional.normalize(torch.cat(parts, dim=1), dim=1)


class Standardize(nn.Module):
    """(x - mean) / std, the statistics taken once from the items that training may see."""

    mean: Tensor
    std: Tensor

    def __init__(self, width: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(width))
        self.register_buffer("std", torch.ones(width))

    def forward(self, values: Tensor) -> Tensor:
        return (values - self.mean) / self.std


class Listen(nn.Module):
    """A small network over a spectrogram's frames, [n, frames, bands] to [n, dim].

    Four frames, then pairs of such stretches, are read together, wherever they lie; what was heard
    anywhere is pooled by mean and maximum. It starts at zero.
    """

    def __init__(self, bands: int, dim: int) -> None:
        super().__init__()
        self.near = nn.Linear(FRAMES * bands, CHANNELS)
        self.wide = nn.Linear(2 * CHANNELS, CHANNELS)
        self.out = nn.Linear(2 * CHANNELS, dim)
        _zero(self.out)

    def forward(self, frames: Tensor) -> Tensor:
        frames = frames[:, : frames.shape[1] // (2 * FRAMES) * 2 * FRAMES]
        items, count, bands = frames.shape
        stretches = frames.reshape(items, count // FRAMES, FRAMES * bands)
        heard = functional.gelu(self.near(stretches))
        heard = functional.gelu(self.wide(heard.reshape(items, -1, 2 * CHANNELS)))
        pooled: Tensor = self.out(torch.cat([heard.mean(1), heard.amax(1)], dim=1))
        return pooled


def _width(shape: tuple[int, ...]) -> int:
    return shape[0] if len(shape) == 1 else 2 * shape[1]


def _projection(width: int, dim: int) -> nn.Linear:
    """A linear map that starts by keeping lengths on average, so that no modality outshouts another."""
    linear = nn.Linear(width, dim)
    nn.init.normal_(linear.weight, std=(1 / width) ** 0.5)
    nn.init.zeros_(linear.bias)
    return linear


def _zero(linear: nn.Module) -> None:
    for parameter in linear.parameters():
        nn.init.zeros_(parameter)
