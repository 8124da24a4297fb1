"""Trainer of the alignment: batches, gradient caching, schedule, validation, resuming.

Everything random follows from the seed and the number of the step, so a training that was cut short goes on
with the same batches and the same dropout, on one process or on several.
"""

import math
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from qarm.config import EncoderConfig
from qarm.core.parallel.progress import Progress
from qarm.core.parallel.torchrun import Processes
from qarm.core.training_state import AlignmentState, restore_alignment_state, write_alignment_state
from qarm.encoder.alignment.hard_negatives import mine_hard_negatives
from qarm.encoder.alignment.loss import Positives, contrastive_loss
from qarm.encoder.alignment.model import AlignmentModel, Chunk
from qarm.encoder.alignment.pair_dataset import Shuffle, TrainingPairs
from qarm.encoder.alignment.schedule import rate_share
from qarm.encoder.feature_cache import ahead
from qarm.errors import InputError
from qarm.schemas.encoder import AlignStep

__all__ = ["Trainer", "recall_at", "train"]

COLDEST, HOTTEST = 0.01, 1.0
RECALL_AT = 10
DECODERS = 4

Ints = npt.NDArray[np.int64]


@torch.no_grad()
def recall_at(vectors: Tensor, pairs: TrainingPairs, known: Positives, *, count: int = RECALL_AT) -> float:
    """Share of pairs whose target is among the trigger's nearest items, its known positives left out."""
    found = 0
    queries = [np.arange(i, min(i + 256, len(pairs))) for i in range(0, len(pairs), 256)]
    for rows in queries:
        triggers = pairs.triggers[rows].astype(np.int64)
        targets = torch.from_numpy(pairs.targets[rows].astype(np.int64))[:, None]
        scores = (vectors[torch.from_numpy(triggers)] @ vectors.T).cpu()
        own = scores.gather(1, targets)
        for row, trigger in enumerate(triggers):
            scores[row, known.neighbors(trigger).astype(np.int64)] = -torch.inf
            scores[row, trigger] = -torch.inf
        found += int(((scores > own).sum(1) < count).sum())
    return found / len(pairs)


@dataclass(frozen=True)
class Plan:
    """One batch, ready for the model.

    pairs: of item numbers; items: int64 [m], those of the batch, each once; triggers, targets: int64 [b],
    places among them; hard: int64 [h], places of hard negatives; chunks: this process's share of the items.
    """

    pairs: TrainingPairs
    items: Ints
    triggers: Ints
    targets: Ints
    hard: Ints
    chunks: list[tuple[int, Chunk]]
    whole: bool


def train(
    model: AlignmentModel,
    pairs: TrainingPairs,
    valid: TrainingPairs,
    settings: EncoderConfig,
    *,
    seed: int,
    processes: Processes | None = None,
    progress: Path | None = None,
    key: str = "",
    scratch: Path | None = None,
) -> list[AlignStep]:
    """Train a model in place; a row of figures before and for each epoch.

    Args:
        pairs, valid: for training and for validation, as item numbers.
        settings: the training's.
        seed: of batches and dropout.
        processes: this process among torchrun's; each encodes its share of a batch's items, and all see all
            vectors.
        progress: file to go on from and to keep up to date; None: an interruption loses the training.
        key: hash of everything that the training depends on, so that only its own file is gone on from.
        scratch: folder for what may not fit in memory.

    Raises:
        InputError: the loss is no finite number any more; `progress` holds the last good weights.
    """
    training = Trainer(model, pairs, valid, settings, seed, processes or Processes(), scratch)
    devices = [torch.cuda.current_device()] if model.device == "cuda" else []
    with torch.random.fork_rng(devices=devices):
        return training.run(progress, key)


class Trainer:
    """One training of a model: its batches, steps and figures; arguments as of `train`."""

    def __init__(
        self,
        model: AlignmentModel,
        pairs: TrainingPairs,
        valid: TrainingPairs,
        settings: EncoderConfig,
        seed: int,
        processes: Processes,
        scratch: Path | None,
    ) -> None:
        self.model, self.settings, self.seed = model, settings, seed
        self.processes = processes
        self.pairs, self.valid = pairs, valid
        self.known = Positives(pairs.triggers, pairs.targets, items=model.size, folder=scratch)
        self.log_q = self._log_q() if settings.log_q else None
        self.batch = min(settings.batch, len(pairs))
        self.per_epoch = max(1, len(pairs) // (self.batch * settings.accumulate))
        self.steps = min(settings.max_steps, max(settings.min_steps, settings.epochs * self.per_epoch))
        start = torch.tensor(math.log(settings.temperature), device=model.device)
        self.log_temperature = torch.nn.Parameter(start)
        self.parameters = model.parameters() | {"log_temperature": self.log_temperature}
        self.optimizer = torch.optim.AdamW(self._groups())
        self.hard_negatives: Ints | None = None

    def _groups(self) -> list[dict[str, Any]]:
        """Heads at `lr`, towers at `tower_lr`; matrices decay, vectors and the temperature do not."""
        groups = []
        for towers, rate in ((False, self.settings.lr), (True, self.settings.tower_lr)):
            own = [p for name, p in self.parameters.items() if name.startswith("towers.") == towers]
            for decays, decay in ((True, self.settings.weight_decay), (False, 0.0)):
                chosen = [p for p in own if (p.ndim > 1) == decays]
                if chosen:
                    groups.append({"params": chosen, "lr": rate, "initial_lr": rate, "weight_decay": decay})
        return groups

    def _log_q(self) -> Tensor:
        """`log_q` times the log of the share of pairs that have the item as target, and as trigger.

        float32 [2, items].
        """
        counts = np.stack(
            [
                sum(np.bincount(side, minlength=self.model.size) for side in sides)
                for sides in (
                    (part.targets for part in self.pairs.parts()),
                    (part.triggers for part in self.pairs.parts()),
                )
            ]
        )
        shares = np.maximum(counts, 1) / len(self.pairs)
        logs = self.settings.log_q * np.log(shares)
        return torch.from_numpy(logs.astype(np.float32)).to(self.model.device)

    def _share_of_rate(self, step: int) -> float:
        """Share of the learning rate at a step."""
        settings = self.settings
        warm_up = max(1, round(settings.warm_up * self.steps))
        return rate_share(step, self.steps, warm_up=warm_up, schedule=settings.schedule)

    @property
    def temperature(self) -> Tensor:
        """Learned temperature, kept within its limits; float []."""
        return self.log_temperature.exp().clamp(COLDEST, HOTTEST)

    # ---- epochs ---------------------------------------------------------------------------------

    def run(self, path: Path | None, key: str) -> list[AlignStep]:
        """All steps from where the file says, or from the start."""
        found = (
            restore_alignment_state(path, self.parameters, self.optimizer, key=key)
            if path is not None
            else None
        )
        state = found or AlignmentState(0, [self._figures(0, None)], [])
        with (
            Progress(total=self.steps, initial=state.step, desc="align", unit="step") as bar,
            ThreadPoolExecutor(DECODERS) as pool,
        ):
            while state.step < self.steps:
                end = min((state.step // self.per_epoch + 1) * self.per_epoch, self.steps)
                state = self._epoch(state, end, path, key, bar, pool)
        return state.rows

    def _epoch(
        self, state: AlignmentState, end: int, path: Path | None, key: str, bar: Any, pool: ThreadPoolExecutor
    ) -> AlignmentState:
        self._mine_hard_negatives(state)
        losses = list(state.losses)
        for step, plans in zip(range(state.step, end), self.batches(state.step, end, pool), strict=True):
            losses.append(self.step(plans, step, path))
            bar.update()
            if path is not None and (step + 1) % self.settings.checkpoint_steps == 0 and step + 1 < end:
                self._write(path, key, AlignmentState(step + 1, state.rows, losses, self.hard_negatives))
        done = AlignmentState(end, [*state.rows, self._figures(end, float(np.mean(losses)))], [])
        if path is not None:
            self._write(path, key, done)
        return done

    def _write(self, path: Path, key: str, progress: AlignmentState) -> None:
        if self.processes.rank == 0:
            write_alignment_state(path, progress, self.parameters, self.optimizer, key=key)
        self.processes.wait()

    def _mine_hard_negatives(self, state: AlignmentState) -> None:
        """Hard negatives for the epoch, from the vectors as they are at its start."""
        if state.hard_negatives is not None:
            self.hard_negatives = state.hard_negatives
        elif self.settings.hard_negatives:
            vectors = self.model.all_vectors()
            self.hard_negatives = mine_hard_negatives(vectors, self.known, count=self.settings.hard_negatives)

    # ---- batches --------------------------------------------------------------------------------

    def batches(self, start: int, end: int, pool: ThreadPoolExecutor) -> Iterator[list[Plan]]:
        """The batches of steps start..end-1; the next ones are read and decoded while the model works."""
        accumulate = self.settings.accumulate

        def plan(step: int) -> list[Plan]:
            """Plan of a batch: distinct items, their rows as triggers and targets, chunks, hard negatives."""
            first = (step % self.per_epoch) * accumulate
            order = Shuffle(len(self.pairs), seed=[self.seed, 1, step // self.per_epoch])
            parts = range(first, first + accumulate)
            rows = [order.take(part * self.batch, (part + 1) * self.batch) for part in parts]
            return [
                self.plan(self.pairs.take(np.sort(chosen)), step * accumulate + part, pool)
                for part, chosen in enumerate(rows)
            ]

        return ahead(plan, range(start, end))

    def plan(self, pairs: TrainingPairs, number: int | None, pool: ThreadPoolExecutor | None = None) -> Plan:
        """A batch made ready; with a number, modalities are hidden at random and hard negatives added."""
        ends = np.concatenate([pairs.triggers, pairs.targets]).astype(np.int64)
        hard = np.empty(0, dtype=np.int64)
        if self.hard_negatives is not None and number is not None:
            near = self.hard_negatives[np.unique(pairs.triggers)]
            hard = np.setdiff1d(near[near >= 0], pairs.targets)
        items, places = np.unique(np.concatenate([ends, hard]), return_inverse=True)
        keep = self._keep(items, number)
        chunks = self.model.chunks(items)
        own = self.processes.share(len(chunks))
        ready = [(k, self.model.ready(chunks[k], items[chunks[k]], keep[chunks[k]], pool=pool)) for k in own]
        triggers, targets = places[: len(ends)].reshape(2, -1)
        return Plan(pairs, items, triggers, targets, places[len(ends) :], ready, len(chunks) == 1)

    def _keep(self, items: Ints, number: int | None) -> npt.NDArray[np.bool_]:
        """Parts that stay, bool [items, parts]; no item loses all it has."""
        there = self.model.there(items)
        if number is None:
            return np.ones_like(there)
        drawn = np.random.default_rng([self.seed, 3, number]).random(there.shape)
        keep = drawn >= self.settings.modality_dropout
        keep |= ~(keep & there).any(axis=1, keepdims=True)
        return keep

    # ---- gradients ------------------------------------------------------------------------------

    def step(self, plans: list[Plan], step: int, path: Path | None = None) -> float:
        """One update from the batches of a step; returns their loss."""
        self.model.train(True)
        self.optimizer.zero_grad()
        values = [
            self._backward(plan, step * len(plans) + k, share=1 / len(plans)) for k, plan in enumerate(plans)
        ]
        value = float(np.mean(values))
        if not math.isfinite(value):
            raise InputError(self._advice(value, step, path))
        for group in self.optimizer.param_groups:
            group["lr"] = group["initial_lr"] * self._share_of_rate(step)
        self.optimizer.step()
        return value

    def _advice(self, value: float, step: int, path: Path | None) -> str:
        kept = f"; the last good weights are in {path}" if path is not None and path.is_file() else ""
        rates = f"encoder.lr = {self.settings.lr:g}"
        if self.model.tuned:
            rates += f" and encoder.tower_lr = {self.settings.tower_lr:g}"
        return (
            f"the loss is {value} at step {step}; lower {rates} "
            f"or raise encoder.temperature = {self.settings.temperature:g}{kept}"
        )

    def _backward(self, plan: Plan, number: int, *, share: float) -> float:
        """Add the gradients of `share` times the loss of one batch; returns the loss.

        A batch of several chunks goes through the model twice (gradient caching, Gao et al. 2021): once for
        the vectors, from which the loss and its gradient by vector follow, and once, chunk by chunk, to take
        that gradient on. Memory is bounded by the chunk, whatever the batch; the last `kept_chunks` are small
        enough to be kept as they are, and need no second pass.
        """
        if plan.whole and self.processes.size == 1:
            ((_, chunk),) = plan.chunks
            torch.manual_seed(self._dropout_seed(number, 0))
            loss = self._loss(plan, self.model.vectors(chunk))
            (share * loss).backward()  # type: ignore[no-untyped-call]
            return float(loss.detach())
        vectors, kept = self._gathered(plan, number, keep=self.settings.kept_chunks)
        vectors.requires_grad_()
        loss = self._loss(plan, vectors)
        (share * loss).backward()  # type: ignore[no-untyped-call]
        if not math.isfinite(float(loss.detach())):
            return float(loss.detach())
        assert vectors.grad is not None  # noqa: S101 - the loss depends on it
        before = {p: p.grad for p in self._shared()} if self.processes.size > 1 else {}
        for parameter in before:
            parameter.grad = None
        for k, chunk in reversed(plan.chunks):
            found = kept.pop(k) if k in kept else self._forward(chunk, number, k)
            places = torch.from_numpy(chunk.places).to(vectors.device)
            found.backward(vectors.grad.index_select(0, places))  # type: ignore[no-untyped-call]
        if self.processes.size > 1:
            self.processes.add_up_gradients(before)
            for parameter, earlier in before.items():
                if earlier is not None and parameter.grad is not None:
                    parameter.grad += earlier
        return float(loss.detach())

    def _shared(self) -> list[torch.nn.Parameter]:
        """Parameters whose gradients the processes add up; the temperature's is the same on all."""
        return [p for name, p in self.parameters.items() if name != "log_temperature"]

    def _gathered(self, plan: Plan, number: int | None, *, keep: int = 0) -> tuple[Tensor, dict[int, Tensor]]:
        """Vectors of all items of a batch, each computed by one process, float [m, dim], without a gradient.

        Those of this process's last `keep` chunks come with theirs as well, by number of the chunk.
        """
        table = torch.zeros(len(plan.items), self.model.heads.length, device=self.model.device)
        kept = {}
        for place, (k, chunk) in enumerate(plan.chunks):
            with torch.set_grad_enabled(place >= len(plan.chunks) - keep):
                found = self._forward(chunk, number, k).float()
            if found.requires_grad:
                kept[k] = found
            table[torch.from_numpy(chunk.places).to(table.device)] = found.detach()
        return self.processes.add_up(table), kept

    def _forward(self, chunk: Chunk, number: int | None, k: int) -> Tensor:
        if number is not None:
            torch.manual_seed(self._dropout_seed(number, k))
        return self.model.vectors(chunk)

    def _dropout_seed(self, number: int, chunk: int) -> int:
        return int(np.random.SeedSequence([self.seed, 4, number, chunk]).generate_state(1, np.uint64)[0] >> 1)

    def _loss(self, plan: Plan, vectors: Tensor) -> Tensor:
        device = vectors.device
        log_q = None if self.log_q is None else self.log_q[:, torch.from_numpy(plan.items).to(device)]
        return contrastive_loss(
            vectors,
            torch.from_numpy(plan.triggers).to(device),
            torch.from_numpy(plan.targets).to(device),
            alike=torch.from_numpy(self.known.among(plan.items)).to(device),
            temperature=self.temperature,
            weights=torch.from_numpy(np.asarray(plan.pairs.weights)).to(device),
            symmetric=self.settings.symmetric,
            log_q=log_q,
            hard=torch.from_numpy(plan.hard).to(device) if len(plan.hard) else None,
        )

    # ---- figures --------------------------------------------------------------------------------

    def _figures(self, step: int, loss: float | None) -> AlignStep:
        row = AlignStep(
            step=step,
            loss=loss,
            temperature=float(self.temperature.detach()),
            valid_loss=None,
            valid_recall=None,
        )
        if not len(self.valid):
            return row
        row.valid_loss = self._valid_loss()
        if step in (0, self.steps) or not self.model.tuned:  # all items through a live tower take long
            row.valid_recall = recall_at(self.model.all_vectors(), self.valid, self.known)
        if step == 0:
            row.raw_recall = recall_at(self.model.all_vectors(raw=True), self.valid, self.known)
        return row

    @torch.no_grad()
    def _valid_loss(self) -> float:
        self.model.train(False)
        chunks = [self.valid.take(slice(i, i + self.batch)) for i in range(0, len(self.valid), self.batch)]
        losses = []
        for chunk in chunks:
            plan = self.plan(chunk, None)
            losses.append(float(self._loss(plan, self._gathered(plan, None)[0])))
        return float(np.average(losses, weights=[len(chunk) for chunk in chunks]))
