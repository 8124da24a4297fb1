"""Training of the heads on pairs: batches, schedule, validation; the towers are long done."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from tqdm import tqdm

from qarm.config import EncoderConfig
from qarm.content.contrast import Positives, contrastive_loss
from qarm.content.features import Features
from qarm.content.heads import Batch, Heads, flat
from qarm.errors import InputError

__all__ = ["Pool", "TrainingPairs", "recall_at", "train_heads"]

VALID_SHARE = 0.05
MOST_QUERIES = 2_000
FEWEST_TO_HOLD_OUT = 100
WARM_UP = 0.05
COLDEST, HOTTEST = 0.01, 1.0
RECALL_AT = 10
CHUNK = 1024

Ints = npt.NDArray[np.int64]


@dataclass(frozen=True)
class TrainingPairs:
    """Pairs of item numbers: triggers, targets int64 [pairs]; weights float32 [pairs], positive."""

    triggers: Ints
    targets: Ints
    weights: npt.NDArray[np.float32]

    def __len__(self) -> int:
        return len(self.triggers)

    def take(self, rows: Any) -> "TrainingPairs":
        return TrainingPairs(self.triggers[rows], self.targets[rows], self.weights[rows])

    def hold_out(self, share: float, random: np.random.Generator) -> tuple["TrainingPairs", "TrainingPairs"]:
        """Training and validation pairs; both directions and all sources of a pair go together.

        Too few pairs are all kept for training.
        """
        low, high = np.minimum(self.triggers, self.targets), np.maximum(self.triggers, self.targets)
        distinct, which = np.unique(np.stack([low, high]), axis=1, return_inverse=True)
        count = distinct.shape[1]
        held = np.zeros(count, dtype=np.bool_)
        if count >= FEWEST_TO_HOLD_OUT:
            held[random.permutation(count)[: round(share * count)]] = True
        return self.take(~held[which]), self.take(held[which])


class Pool:
    """Features of n items as tensors, from which batches are gathered."""

    def __init__(self, features: Features, modalities: list[str], *, device: str) -> None:
        self.modalities = modalities
        self.size = len(features)
        self._values = {m: torch.from_numpy(features.values[m]).to(device) for m in modalities}
        present = np.stack([features.present[m] for m in modalities], axis=1)
        self._place = np.where(present, present.cumsum(axis=0) - 1, -1)
        self.device = device

    def batch(self, items: Ints) -> Batch:
        """The features of some items, by number."""
        places = self._place[items]
        values = {}
        for column, modality in enumerate(self.modalities):
            rows = torch.from_numpy(places[places[:, column] >= 0, column]).to(self.device)
            values[modality] = self._values[modality].index_select(0, rows)
        return Batch(values, torch.from_numpy(places >= 0).to(self.device))

    def fit_scales(self, heads: Heads) -> None:
        """Standardise the heads' input by the mean and deviation over all items of the pool."""
        for modality in self.modalities:
            values = self._values[modality]
            chunks = [flat(values[i : i + CHUNK].double()) for i in range(0, len(values), CHUNK)]
            heads.fit_scale(modality, torch.cat(chunks))

    @torch.no_grad()
    def vectors(self, heads: Heads, *, raw: bool = False) -> Tensor:
        """Vectors of all items, float32 [n, d], without dropout."""
        heads.eval()
        batches = (self.batch(np.arange(i, min(i + CHUNK, self.size))) for i in range(0, self.size, CHUNK))
        return torch.cat([heads.raw(batch) if raw else heads(batch) for batch in batches])


@torch.no_grad()
def recall_at(vectors: Tensor, pairs: TrainingPairs, known: Positives, *, count: int = RECALL_AT) -> float:
    """Share of pairs whose target is among the trigger's nearest items, its known positives left out."""
    found = 0
    queries = [np.arange(i, min(i + 256, len(pairs))) for i in range(0, len(pairs), 256)]
    for rows in queries:
        triggers, targets = pairs.triggers[rows], torch.from_numpy(pairs.targets[rows])[:, None]
        scores = (vectors[torch.from_numpy(triggers)] @ vectors.T).cpu()
        own = scores.gather(1, targets)
        for row, trigger in enumerate(triggers):
            scores[row, known.neighbors(trigger)] = -torch.inf
            scores[row, trigger] = -torch.inf
        found += int(((scores > own).sum(1) < count).sum())
    return found / len(pairs)


def train_heads(
    heads: Heads, pool: Pool, pairs: TrainingPairs, settings: EncoderConfig, *, seed: int
) -> list[dict[str, Any]]:
    """Train heads in place on pairs of the pool's items; a row of figures before and for each epoch.

    Raises:
        InputError: the loss is no finite number any more.
    """
    training = _Training(heads, pool, pairs, settings, seed)
    devices = [torch.cuda.current_device()] if pool.device == "cuda" else []
    with torch.random.fork_rng(devices=devices):
        torch.manual_seed(seed)
        return list(training.epochs())


class _Training:
    def __init__(
        self, heads: Heads, pool: Pool, pairs: TrainingPairs, settings: EncoderConfig, seed: int
    ) -> None:
        self.heads, self.pool, self.settings = heads, pool, settings
        self.random = np.random.default_rng([seed, 1])
        self.pairs, held = pairs.hold_out(VALID_SHARE, np.random.default_rng([seed, 2]))
        self.valid = held.take(slice(0, MOST_QUERIES))
        self.known = Positives(self.pairs.triggers, self.pairs.targets, items=pool.size)
        self.batch = min(settings.batch, len(self.pairs))
        self.per_epoch = max(1, len(self.pairs) // self.batch)
        wanted = max(settings.min_steps, settings.epochs * self.per_epoch)
        self.steps = min(settings.max_steps, wanted)
        self.log_temperature = torch.nn.Parameter(
            torch.tensor(math.log(settings.temperature), device=pool.device)
        )
        matrices = [p for p in heads.parameters() if p.ndim > 1]
        others = [p for p in heads.parameters() if p.ndim <= 1]
        self.optimizer = torch.optim.AdamW(
            [
                {"params": matrices, "weight_decay": settings.weight_decay},
                {"params": [*others, self.log_temperature], "weight_decay": 0.0},
            ],
            lr=settings.lr,
        )
        self.schedule = torch.optim.lr_scheduler.LambdaLR(self.optimizer, self._rate)

    def _rate(self, step: int) -> float:
        """Share of the learning rate: a linear warm-up, then half a cosine down to zero."""
        warm = max(1, round(WARM_UP * self.steps))
        if step < warm:
            return (step + 1) / warm
        return 0.5 * (1 + math.cos(math.pi * (step - warm) / max(1, self.steps - warm)))

    @property
    def temperature(self) -> Tensor:
        return self.log_temperature.exp().clamp(COLDEST, HOTTEST)

    def epochs(self) -> Iterator[dict[str, Any]]:
        yield self._figures(0, None)
        done = 0
        with tqdm(total=self.steps, disable=None, desc="align", unit="step") as bar:
            while done < self.steps:
                losses = []
                for pairs in self._batches(min(self.per_epoch, self.steps - done)):
                    losses.append(self._step(pairs, done))
                    done += 1
                    bar.update()
                yield self._figures(done, float(np.mean(losses)))

    def _batches(self, count: int) -> Iterator[TrainingPairs]:
        order = self.random.permutation(len(self.pairs))
        for i in range(count):
            yield self.pairs.take(order[i * self.batch : (i + 1) * self.batch])

    def _step(self, pairs: TrainingPairs, step: int) -> float:
        self.heads.train()
        loss = self._loss(pairs, dropped=self.settings.modality_dropout)
        value = float(loss.detach())
        if not math.isfinite(value):
            raise InputError(
                f"the loss is {value} at step {step}; lower encoder.lr = {self.settings.lr:g} "
                f"or raise encoder.temperature = {self.settings.temperature:g}"
            )
        self.optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        self.optimizer.step()
        self.schedule.step()
        return value

    def _loss(self, pairs: TrainingPairs, *, dropped: float) -> Tensor:
        items, places = np.unique(np.concatenate([pairs.triggers, pairs.targets]), return_inverse=True)
        batch = self.pool.batch(items)
        vectors = self.heads(batch, self._keep(batch.present, dropped))
        device = self.pool.device
        triggers, targets = torch.from_numpy(places.reshape(2, -1)).to(device)
        alike = torch.from_numpy(self.known.among(items)).to(device)
        weights = torch.from_numpy(pairs.weights).to(device)
        return contrastive_loss(
            vectors, triggers, targets, alike=alike, temperature=self.temperature, weights=weights
        )

    def _keep(self, present: Tensor, dropped: float) -> Tensor:
        """Modalities that stay, bool like `present`; no item loses all it has."""
        drawn = torch.from_numpy(self.random.random(tuple(present.shape))).to(present.device)
        keep = drawn >= dropped
        return keep | ~(keep & present).any(1, keepdim=True)

    def _figures(self, step: int, loss: float | None) -> dict[str, Any]:
        row = {
            "step": step,
            "loss": loss,
            "temperature": float(self.temperature.detach()),
            "valid_loss": None,
            f"valid_recall@{RECALL_AT}": None,
        }
        if len(self.valid):
            row["valid_loss"] = self._valid_loss()
            vectors = self.pool.vectors(self.heads)
            row[f"valid_recall@{RECALL_AT}"] = recall_at(vectors, self.valid, self.known)
        if step == 0 and len(self.valid):
            raw = self.pool.vectors(self.heads, raw=True)
            row[f"raw_recall@{RECALL_AT}"] = recall_at(raw, self.valid, self.known)
        return row

    @torch.no_grad()
    def _valid_loss(self) -> float:
        self.heads.eval()
        chunks = [self.valid.take(slice(i, i + self.batch)) for i in range(0, len(self.valid), self.batch)]
        losses = [float(self._loss(chunk, dropped=0.0)) for chunk in chunks]
        return float(np.average(losses, weights=[len(chunk) for chunk in chunks]))
