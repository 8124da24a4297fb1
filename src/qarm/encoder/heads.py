"""Heads over the towers: projections, a small sound network, and their fusion."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from qarm.config import EncoderConfig
from qarm.encoder.feature_cache import Features
from qarm.errors import InputError

__all__ = ["Batch", "Fusion", "Heads", "as_batch", "flat"]

Fusion = Literal["concat", "attention", "none"]
FUSION: Fusion = EncoderConfig().fusion
ANCHOR: float = EncoderConfig().anchor
ATTENTION_HEADS = 4
CHANNELS = 64
FRAMES = 4
SMALLEST_STD = 1e-4


@dataclass(frozen=True)
class Batch:
    """Tower features of n items.

    values: tower's name to float [k, ...], those of the k items that it reads, in order; present: bool
    [n, towers], in the order of the heads' `modalities`.
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
    """Fuses the features of an item's towers into one vector of unit length.

    Each feature is standardised and projected to `dim`; a missing one is replaced by a learned vector.
    `concat`: their sum is the skip connection around a two-layer network over their concatenation.
    `attention`: the mean of those present is the skip connection around what a learned query attends to
    among them. Either network starts at zero, so that training starts from a random projection of the
    pretrained features. `none`: the feature of the only tower is the vector, and there is nothing to train
    here. With an anchor the raw vector stands beside what was learned: two items' cosine is then
    (1 - anchor) times that of the learned parts and anchor times the raw one. Training goes without it: what
    is learned beside it leans on it, and finds new items less well.

    Args:
        shapes: tower's name to the shape of one item's feature, (d,) or (frames, bands).
        dim, hidden, dropout: length of the vectors, width of the network, its dropout.
        fusion: as above.
        anchor: the raw vector's share, from 0 to below 1.
    """

    def __init__(
        self,
        shapes: Mapping[str, tuple[int, ...]],
        *,
        dim: int,
        hidden: int,
        dropout: float,
        fusion: Fusion = FUSION,
        anchor: float = ANCHOR,
    ) -> None:
        super().__init__()
        if fusion not in get_args(Fusion):
            raise InputError(f"fusion = {fusion!r}, need one of {', '.join(get_args(Fusion))}")
        self.shapes = {m: tuple(shape) for m, shape in sorted(shapes.items())}
        self.fusion: Fusion = fusion
        self.dim = _only_width(self.shapes) if fusion == "none" else dim
        self.hidden, self.dropout, self.anchor = hidden, dropout, anchor
        self.scale = nn.ModuleDict({m: Standardize(_width(s)) for m, s in self.shapes.items()})
        if fusion == "none":
            return
        self.project = nn.ModuleDict({m: _projection(_width(s), dim) for m, s in self.shapes.items()})
        sequences = {m: s for m, s in self.shapes.items() if len(s) == 2}
        self.listen = nn.ModuleDict({m: SequencePooling(s[1], dim) for m, s in sequences.items()})
        self.missing = nn.Parameter(torch.zeros(len(self.shapes), dim))
        if fusion == "attention":
            self.attend = ModalityAttention(len(self.shapes), dim, hidden, dropout)
            return
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
        """Names of the towers; a tower of one modality has its name."""
        return list(self.shapes)

    @property
    def length(self) -> int:
        """Of a vector; in training that of the learned part."""
        anchored = self.anchor and not self.training
        return self.dim + (sum(map(_width, self.shapes.values())) if anchored else 0)

    def fit_scale(self, modality: str, values: Tensor) -> None:
        """Standardise a modality by the mean and deviation of values [n, d], as `flat` gives them.

        A constant column is only centred.
        """
        mean, std = (self.scale[modality].get_buffer(name) for name in ("mean", "std"))
        spread = values.double().std(0, correction=0)
        mean.copy_(values.double().mean(0))
        std.copy_(torch.where(spread > SMALLEST_STD, spread, 1.0))

    def forward(self, batch: Batch, keep: Tensor | None = None) -> Tensor:
        """Vectors of unit length, [n, length].

        Args:
            batch: features of n items.
            keep: bool [n, towers]; where False, a tower counts as missing.
        """
        if self.fusion == "none":
            return functional.normalize(batch.values[self.modalities[0]], dim=1)
        there = batch.present if keep is None else batch.present & keep
        parts = [self._part(column, name, batch, there) for column, name in enumerate(self.modalities)]
        if self.fusion == "attention":
            fused = self.attend(torch.stack(parts, dim=1), there)
        else:
            fused = torch.stack(parts).sum(0) + self.fuse(torch.cat(parts, dim=1))
        learned = functional.normalize(fused, dim=1)
        return self._anchored(learned, batch, there) if self.anchor and not self.training else learned

    def _anchored(self, learned: Tensor, batch: Batch, there: Tensor) -> Tensor:
        """The raw vector beside the learned one; where all is missing, nothing stands there."""
        with torch.no_grad():
            raw = self.raw(batch, there)
        both = torch.cat([(1 - self.anchor) ** 0.5 * learned, self.anchor**0.5 * raw], dim=1)
        return functional.normalize(both, dim=1)

    def _part(self, column: int, name: str, batch: Batch, there: Tensor) -> Tensor:
        """The projected feature of one tower, its stand-in where it is missing, [n, dim]."""
        part = self.missing[column].expand(len(there), -1)
        if name not in batch.values:
            return part
        rows = batch.present[:, column].nonzero()[:, 0]
        found = part.index_copy(0, rows, self._project(name, batch.values[name]))
        return torch.where(there[:, column, None], found, part)

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

    def raw(self, batch: Batch, there: Tensor | None = None) -> Tensor:
        """Vectors before alignment, unit length, [n, sum of the features' lengths].

        Each tower's standardised feature at unit length, zeros where it is missing, side by side; with fusion
        `none`, the feature itself.

        there: bool [n, towers], what counts as present; None: what is.
        """
        if self.fusion == "none":
            return self(batch)  # type: ignore[no-any-return]
        parts = []
        for column, (modality, shape) in enumerate(self.shapes.items()):
            part = self.missing.new_zeros(len(batch.present), _width(shape))
            if modality in batch.values:
                values = flat(batch.values[modality].to(part.dtype))
                part[batch.present[:, column]] = functional.normalize(self.scale[modality](values), dim=1)
            if there is not None:
                part = part * there[:, column, None]
            parts.append(part)
        return functional.normalize(torch.cat(parts, dim=1), dim=1)


class ModalityAttention(nn.Module):
    """What a learned query finds among the towers' projected features, [n, towers, dim] to [n, dim]."""

    def __init__(self, towers: int, dim: int, hidden: int, dropout: float) -> None:
        super().__init__()
        heads = next(h for h in range(min(ATTENTION_HEADS, dim), 0, -1) if dim % h == 0)
        self.kind = nn.Parameter(torch.randn(towers, dim) * dim**-0.5)
        self.query = nn.Parameter(torch.randn(1, 1, dim) * dim**-0.5)
        self.norm = nn.LayerNorm(dim)
        self.attention = nn.MultiheadAttention(dim, heads, dropout=dropout, batch_first=True)
        self.out = nn.Sequential(
            nn.Linear(dim, hidden), nn.GELU(), nn.Dropout(dropout), nn.Linear(hidden, dim)
        )
        _zero(self.out[-1])

    def forward(self, parts: Tensor, there: Tensor) -> Tensor:
        """Items with nothing at all get the mean of their stand-ins, and attend to those."""
        there = there | ~there.any(1, keepdim=True)
        weights = there.to(parts.dtype)[:, :, None]
        mean = (parts * weights).sum(1) / weights.sum(1)
        tokens = self.norm(parts) + self.kind
        # not len(), which would fix the batch of an exported program
        query = self.query.expand(parts.shape[0], -1, -1)
        found, _ = self.attention(query, tokens, tokens, key_padding_mask=~there, need_weights=False)
        fused: Tensor = mean + self.out(found[:, 0])
        return fused


class Standardize(nn.Module):
    """(x - mean) / std, the statistics taken once from the items that training may see."""

    mean: Tensor
    std: Tensor

    def __init__(self, width: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(width))
        self.register_buffer("std", torch.ones(width))

    def forward(self, values: Tensor) -> Tensor:
        """Vectors of a batch, float [n, length]."""
        return (values - self.mean) / self.std


class SequencePooling(nn.Module):
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
        """Vectors of a batch, float [n, length]."""
        frames = frames[:, : frames.shape[1] // (2 * FRAMES) * 2 * FRAMES]
        items, count, bands = frames.shape
        stretches = frames.reshape(items, count // FRAMES, FRAMES * bands)
        heard = functional.gelu(self.near(stretches))
        heard = functional.gelu(self.wide(heard.reshape(items, -1, 2 * CHANNELS)))
        pooled: Tensor = self.out(torch.cat([heard.mean(1), heard.amax(1)], dim=1))
        return pooled


def _only_width(shapes: Mapping[str, tuple[int, ...]]) -> int:
    """The length of the vectors where there is no fusion."""
    if len(shapes) != 1 or len(next(iter(shapes.values()))) != 1:
        raise InputError(
            f"fusion = 'none' takes one tower of vectors, got {', '.join(shapes)}; "
            "take 'concat' or 'attention'"
        )
    return next(iter(shapes.values()))[0]


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
