"""An anchor from outside: torch-rechub's DIN, trained by its own trainer on the rows that `id` gets."""

import io
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from importlib.util import find_spec
from itertools import count, product
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from qarm.comparison.rivals.din import Din, ragged
from qarm.config import RankerConfig
from qarm.errors import MissingExtraError
from qarm.recommender.batches import Batch, batches
from qarm.recommender.examples import Examples, TrainingRows

__all__ = ["DIN", "Rival", "fit_rival", "need_rechub", "rechub_din", "score_rival"]

DIN = "DIN of torch-rechub"
LRS = (1e-3, 5e-3)  # theirs, and ours
INITS = (1e-4, 0.1)  # standard deviation of the embeddings: theirs, from which they wake slowly, and ours
TRIAL = 3  # epochs that every pair of settings gets before the best goes on alone
DECAY = 1e-5  # theirs
HIDDEN, ATTENTION = (256, 128), (36,)  # of their example and of their activation unit

Flat = tuple[dict[str, Tensor], Tensor]


def need_rechub() -> None:
    """Raises MissingExtraError where torch-rechub is not installed."""
    if find_spec("torch_rechub") is None:
        raise MissingExtraError("torch-rechub", "peers")


@dataclass(frozen=True)
class Rival:
    """A trained model of theirs.

    known: int64 [items], an item's row in its table, 0 for those without a training event; epochs: epoch,
    loss, valid_auc and valid_logloss of each; best: the kept one; settings: the lr and init chosen.
    """

    model: nn.Module
    known: Tensor
    epochs: list[dict[str, float | int | None]]
    best: int
    settings: dict[str, float]


def rechub_din(items: int, *, dim: int, init: float = INITS[0]) -> nn.Module:
    """Their DIN over the features `item` and `past`, which share one table of `items` rows, row 0 padding.

    As in their example, the candidate is target and profile feature at once.
    """
    from torch_rechub.basic.features import SequenceFeature, SparseFeature
    from torch_rechub.basic.initializers import RandomNormal
    from torch_rechub.models import ranking

    item = SparseFeature(
        "item", vocab_size=items, embed_dim=dim, padding_idx=0, initializer=RandomNormal(0, init)
    )
    past = SequenceFeature(
        "past", vocab_size=items, embed_dim=dim, pooling="concat", shared_with="item", padding_idx=0
    )
    model: nn.Module = ranking.DIN(
        features=[item],
        history_features=[past],
        target_features=[item],
        mlp_params={"dims": list(HIDDEN)},
        attention_mlp_params={"dims": list(ATTENTION)},
    )
    return model


def fit_rival(rows: TrainingRows, valid: Examples, *, settings: RankerConfig, seed: int = 0) -> Rival:
    """Train with their `CTRTrainer`: Adam, binary cross-entropy, the epoch of the best validation AUC.

    Each of `LRS` times `INITS` runs for `TRIAL` epochs; the best by validation AUC goes on until `patience`
    epochs brought no better one, or all `epochs` are done. Where `valid` has one label only, the first runs
    for all epochs. Every epoch has its own negatives, as for our ranker; a history is padded to the longest
    of its batch, which changes no logit (a padded row is the zero vector and is summed with weight).

    Args:
        rows: training rows; valid: rows to stop by.
        settings: dim, epochs, patience, batch (rows).

    Raises:
        MissingExtraError: torch-rechub is not installed.
    """
    need_rechub()
    known = torch.zeros(len(rows.events.item_ids), dtype=torch.int64)
    known[torch.from_numpy(rows.trained.astype(np.int64))] = torch.arange(1, len(rows.trained) + 1)
    both = valid.labels.any() and not valid.labels.all()
    judged = _Rows(lambda: valid, known, 4 * settings.batch) if both else None
    with tempfile.TemporaryDirectory() as folder, torch.random.fork_rng(devices=[]):
        trials = [
            _Trial(rows, known, settings, lr=lr, init=init, seed=seed, folder=folder)
            for init, lr in (product(INITS, LRS) if judged else [(INITS[0], LRS[0])])
        ]
        for trial in trials:
            trial.run(min(TRIAL, settings.epochs), judged)
        best = max(trials, key=lambda trial: trial.reached)
        if not best.stopped and settings.epochs > TRIAL:
            best.run(settings.epochs - TRIAL, judged)
    return Rival(best.kept(), known, best.epochs, best.best, best.settings)


@torch.no_grad()
def score_rival(rival: Rival, examples: Examples, *, rows: int = 4096) -> npt.NDArray[np.float32]:
    """Logits float32 [n] of all examples, in batches of about `rows`, by `Din`, whose logits are theirs."""
    model, scores = Din.from_rechub(rival.model).eval(), np.zeros(len(examples), dtype=np.float32)
    for batch in batches(examples, rows):
        scores[batch.rows[batch.real.numpy()]] = model(ragged(batch, rival.known)).numpy()
    return scores


class _Rows:
    """What their trainer takes for a data loader: flat batches of the rows that each pass asks for."""

    def __init__(
        self,
        made: Callable[[], Examples],
        known: Tensor,
        size: int,
        random: np.random.Generator | None = None,
    ) -> None:
        self.made, self.known, self.size, self.random = made, known, size, random

    def __iter__(self) -> Iterator[Flat]:
        for batch in batches(self.made(), self.size, random=self.random):
            flat = _flat(batch, self.known)
            if self.random is None or len(flat[1]) > 1:  # batch norm cannot train on a single row
                yield flat


class _Trial:
    """One model with its trainer; `epochs` grows by what the trainer logs."""

    def __init__(
        self,
        rows: TrainingRows,
        known: Tensor,
        settings: RankerConfig,
        *,
        lr: float,
        init: float,
        seed: int,
        folder: str,
    ) -> None:
        from torch_rechub.trainers import CTRTrainer

        torch.manual_seed(seed)
        number = count()
        self.settings = {"lr": lr, "init": init}
        self.epochs: list[dict[str, float | int | None]] = []
        self.rows = _Rows(
            lambda: rows.epoch(next(number)), known, settings.batch, np.random.default_rng(seed)
        )
        self.trainer = CTRTrainer(
            rechub_din(len(rows.trained) + 1, dim=settings.dim, init=init),
            optimizer_params={"lr": lr, "weight_decay": DECAY},
            earlystop_patience=settings.patience,
            device="cuda" if torch.cuda.is_available() else "cpu",
            model_path=folder,
            model_logger=self,
        )

    def run(self, epochs: int, judged: _Rows | None) -> None:
        self.trainer.n_epoch = epochs
        with redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
            self.trainer.fit(self.rows, judged)

    @property
    def reached(self) -> float:
        return max((line["valid_auc"] or 0.0 for line in self.epochs), default=0.0)

    @property
    def best(self) -> int:
        """The kept epoch; the last one where nothing was validated."""
        of = [line["valid_auc"] for line in self.epochs]
        return len(of) - 1 if None in of else of.index(self.reached)

    @property
    def stopped(self) -> bool:
        patience: int = self.trainer.early_stopper.patience
        return len(self.epochs) - 1 - self.best >= patience

    def kept(self) -> nn.Module:
        """The model with the weights of its best epoch, which the trainer takes only when it stops early."""
        model: nn.Module = self.trainer.model
        if self.trainer.early_stopper.best_weights is not None:
            model.load_state_dict(self.trainer.early_stopper.best_weights)
        return model.eval()

    def log_hyperparams(self, content: Mapping[str, Any]) -> None:
        """Theirs to call; nothing here needs them."""

    def log_metrics(self, content: Mapping[str, float], step: int) -> None:
        if "train/loss" in content:
            line = {"epoch": len(self.epochs), "loss": content["train/loss"]}
            self.epochs.append({**line, "valid_auc": None, "valid_logloss": None})
        if "val/auc" in content:
            self.epochs[-1]["valid_auc"] = float(content["val/auc"])

    def finish(self) -> None:
        """Theirs to call at the end of a fit."""


def _flat(batch: Batch, known: Tensor) -> Flat:
    """A row per candidate, each with its own copy of the history, 0 where padded; labels float32 [n]."""
    event = batch.real.nonzero()[:, 0]
    past = torch.where(batch.seen, known[batch.history], 0)
    return {"item": known[batch.items][batch.real], "past": past[event]}, batch.labels[batch.real]
