"""Trainer of the ranker: epochs, running mean of the weights, early stopping, resuming.

Alone a process takes whole batches. Under torchrun every process goes through the same batches, takes its
share of each one's events, and adds its gradients to the others', so that all hold the same weights.
"""

from functools import partial
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn import functional

from qarm.config import RankerConfig
from qarm.core.parallel.progress import Progress
from qarm.core.parallel.torchrun import Processes
from qarm.core.training_state import RankerState, restore_ranker_state, write_ranker_state
from qarm.recommender.batches import Batch, batches
from qarm.recommender.examples import Examples, TrainingRows
from qarm.recommender.metrics import auc, gauc, logloss
from qarm.recommender.ranking.model import Ranker, score_examples
from qarm.schemas.results import Epoch

__all__ = ["AVERAGE", "GAIN", "RankerTrainer", "decay_groups"]

AVERAGE = 0.99  # a step's share in the running mean falls by this factor with every later step
WARM_UP = 10
GAIN = 1e-5


class RankerTrainer:
    """Training of one ranker, in place.

    Args:
        ranker: as initialised.
        rows, valid, settings: as of `fit_ranker`.
        seed: of the batches' order; dropout draws from torch's own generator.
        processes: this process among torchrun's.
        name: of the training, beside its progress.
    """

    def __init__(
        self,
        ranker: Ranker,
        rows: TrainingRows,
        valid: Examples,
        settings: RankerConfig,
        *,
        seed: int,
        processes: Processes,
        name: str = "train",
    ) -> None:
        self.name = name
        self.ranker, self.rows, self.valid, self.settings = ranker, rows, valid, settings
        self.seed, self.processes = seed, processes
        self.random = np.random.default_rng(seed)
        self.weights = dict(ranker.named_parameters())
        self.optimizer = torch.optim.AdamW(decay_groups(self.weights, settings), lr=settings.lr)
        self.search, self.valid_search = ranker.search(rows.events.history), ranker.search(valid.history)
        self.device = ranker.bias.device

    def run(self, path: Path | None = None, *, key: str = "") -> RankerState:
        """All epochs from where the file says, or from the start; the ranker ends as its best epoch.

        Args:
            path: file to go on from and to write after every epoch; None: an interruption loses the training.
            key: hash of everything that the training depends on, so that only its own file is gone on from.
        """
        state = self._restored(path, key)
        bar = Progress(total=self.settings.epochs, initial=state.epoch, desc=self.name, unit="epoch")
        with bar:
            while (
                state.epoch < self.settings.epochs and state.epoch - 1 - state.best < self.settings.patience
            ):
                line = self._epoch(state)
                bar.set_postfix(loss=f"{line.loss:.4f}", auc=line.valid_auc)
                bar.update()
                if path is not None:
                    self._write(path, state, key)
        self._set(state.kept)
        return state

    def _restored(self, path: Path | None, key: str) -> RankerState:
        if path is not None:
            state = restore_ranker_state(path, self.weights, self.optimizer, self.random, key=key)
            if state is not None:
                return state
        start = self._copied()
        return RankerState(start, start)

    def _write(self, path: Path, state: RankerState, key: str) -> None:
        if self.processes.rank == 0:
            write_ranker_state(path, state, self.weights, self.optimizer, self.random, key=key)
        self.processes.wait()

    def _copied(self) -> dict[str, Tensor]:
        return {name: weight.detach().clone() for name, weight in self.weights.items()}

    @torch.no_grad()
    def _set(self, values: dict[str, Tensor]) -> None:
        for name, weight in self.weights.items():
            weight.copy_(values[name])

    # ---- epochs ---------------------------------------------------------------------------------

    def _epoch(self, state: RankerState) -> Epoch:
        """One pass over the rows, judged with the running mean; the weights go on as they are."""
        loss = self._pass(state)
        live = self._copied()
        self._set(state.mean)
        line = self._validated(Epoch(epoch=state.epoch, loss=loss, valid_auc=None, valid_logloss=None))
        state.lines.append(line)
        reached = line.valid_gauc if self.settings.select == "gauc" else line.valid_auc
        if reached is None or reached > state.top + GAIN:
            state.best, state.top = state.epoch, state.top if reached is None else reached
            state.kept = {name: value.clone() for name, value in state.mean.items()}
        self._set(live)
        state.epoch += 1
        return line

    def _pass(self, state: RankerState) -> float:
        """Steps over all batches; returns the mean loss."""
        self.ranker.train()
        examples = self.ranker.reading(self.rows.epoch(state.epoch))
        total = torch.zeros((), device=self.device)
        for batch in batches(examples, self.settings.batch, random=self.random, search=self.search):
            total += self._step(batch, state.step)
            state.step += 1
            share = 1 - min(AVERAGE, state.step / (state.step + WARM_UP))
            with torch.no_grad():
                for name, weight in self.weights.items():
                    state.mean[name].lerp_(weight, share)
        return float(self.processes.add_up(total)) / max(len(examples), 1)

    def _step(self, batch: Batch, step: int) -> Tensor:
        """One update; the sum of this process's losses."""
        self.optimizer.zero_grad(set_to_none=True)
        if self.processes.size == 1:
            losses, auxiliary = self._losses(batch)
            loss = losses.mean() if auxiliary is None else losses.mean() + auxiliary
            loss.backward()  # type: ignore[no-untyped-call]
        else:
            own, rows = batch.part(self.processes.rank, self.processes.size), int(batch.real.sum())
            torch.manual_seed(self._dropout_seed(step))
            losses, auxiliary = torch.zeros(0, device=self.device), None
            if len(own.items):
                losses, auxiliary = self._losses(own, whole=batch)
                loss = losses.sum() / rows if auxiliary is None else losses.sum() / rows + auxiliary
                loss.backward()  # type: ignore[no-untyped-call]
            self.processes.add_up_gradients(
                weight for weight in self.weights.values() if weight.requires_grad
            )
        self.optimizer.step()
        return losses.detach().sum()

    def _losses(self, batch: Batch, *, whole: Batch | None = None) -> tuple[Tensor, Tensor | None]:
        """Of every real row; and of auxiliary labels, where there are any, the sum of their means.

        A label's mean is over the rows of the whole batch where it is known.
        """
        counts = None if batch.auxiliary is None else _known(whole or batch).sum((0, 1)).clamp(min=1)
        batch = batch.to(self.device)
        entropy = partial(functional.binary_cross_entropy_with_logits, reduction="none")
        if batch.auxiliary is None or counts is None:
            return entropy(self.ranker(batch), batch.labels, weight=batch.weights)[batch.real], None
        logits = self.ranker.all_labels(batch)
        losses = entropy(logits[..., 0], batch.labels, weight=batch.weights)[batch.real]
        auxiliary = entropy(logits[..., 1:], batch.auxiliary.clamp(min=0))
        return losses, ((auxiliary * _known(batch)).sum((0, 1)) / counts.to(self.device)).sum()

    def _dropout_seed(self, step: int) -> int:
        """Processes drop other units, and a training that goes on drops what it would have dropped."""
        state = np.random.SeedSequence([self.seed, step, self.processes.rank]).generate_state(1, np.uint64)
        return int(state[0] >> 1)

    # ---- validation -----------------------------------------------------------------------------

    def _validated(self, line: Epoch) -> Epoch:
        """The epoch with the figures of the validation rows; as it was where there are none."""
        if not len(self.valid):
            return line
        logits, labels = self._scored(self.valid), self.valid.labels
        figures: dict[str, float | None] = {
            "valid_auc": auc(labels, logits),
            "valid_logloss": logloss(labels, logits),
        }
        if self.settings.select == "gauc":
            figures["valid_gauc"] = gauc(self.valid.users, labels, logits)
        return line.model_copy(update=figures)

    def _scored(self, examples: Examples) -> np.ndarray:
        """Logits of all rows, each event's computed by one process."""
        if self.processes.size == 1:
            return score_examples(self.ranker, examples, search=self.valid_search)
        edges = examples.groups()
        events = np.arange(len(edges) - 1) % self.processes.size == self.processes.rank
        own = np.repeat(events, np.diff(edges))
        logits = torch.zeros(len(examples), device=self.device)
        found = score_examples(self.ranker, examples.only(own), search=self.valid_search)
        logits[torch.from_numpy(np.flatnonzero(own))] = torch.from_numpy(found).to(self.device)
        total: npt.NDArray[np.float32] = self.processes.add_up(logits).cpu().numpy()
        return total


def decay_groups(weights: dict[str, nn.Parameter], settings: RankerConfig) -> list[dict[str, object]]:
    """Parameter groups of AdamW, one for each weight decay of the settings; frozen weights are left out."""
    groups: dict[float, list[nn.Parameter]] = {}
    for name, weight in weights.items():
        if weight.requires_grad:
            own = getattr(settings, f"{_part(name)}_decay", None)
            groups.setdefault(settings.weight_decay if own is None else own, []).append(weight)
    return [{"params": params, "weight_decay": decay} for decay, params in groups.items()]


def _part(name: str) -> str:
    """The part of the ranker that has a decay of its own: id, bias, code, or none of them."""
    if name.startswith(("item.id_bias.", "item.level_bias.")) or name == "bias":
        return "bias"
    if name.startswith("item.ids."):
        return "id"
    return "code" if name.startswith("item.code.") else ""


def _known(batch: Batch) -> Tensor:
    """Whether an auxiliary label is known, bool [g, c, tasks]."""
    assert batch.auxiliary is not None  # noqa: S101 - asked only where there are auxiliary labels
    return (batch.auxiliary >= 0) & batch.real[..., None]
