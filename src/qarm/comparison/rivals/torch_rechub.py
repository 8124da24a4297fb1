"""DIN of torch-rechub as an anchor, trained by torch-rechub's trainer on the training rows of `id`."""

import io
from collections.abc import Callable, Iterator, Mapping
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from importlib.util import find_spec
from itertools import count, product

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from qarm.comparison.rivals.din import Din, ragged
from qarm.config import RankerConfig
from qarm.core.scratch import Scratch
from qarm.errors import MissingExtraError
from qarm.recommender.batches import Batch, batches
from qarm.recommender.examples import Examples, TrainingRows
from qarm.schemas.comparison import Setting
from qarm.schemas.results import Epoch

__all__ = ["DIN", "Rival", "fit_rival", "need_rechub", "rechub_din", "score_rival"]

DIN = "DIN of torch-rechub"
LRS = (1e-3, 5e-3)  # torch-rechub's default, and that of qarm
INITS = (1e-4, 0.1)  # standard deviation of the embeddings: torch-rechub's, which trains slowly, and qarm's
TRIAL = 3  # epochs of every pair of settings; after them the best alone is trained further
DECAY = 1e-5  # torch-rechub's default
HIDDEN, ATTENTION = (256, 128), (36,)  # of torch-rechub's example and of its activation unit

Flat = tuple[dict[str, Tensor], Tensor]


def need_rechub() -> None:
    """Check that torch-rechub is installed.

    Raises:
        MissingExtraError: it is not.
    """
    if find_spec("torch_rechub") is None:
        raise MissingExtraError("torch-rechub", "peers")


@dataclass(frozen=True)
class Rival:
    """A trained model of torch-rechub.

    table_rows: int64 [items], an item's row in its embedding table, 0 for items without a training event;
    best: the epoch that was kept; settings: the lr and init chosen.
    """

    model: nn.Module
    table_rows: Tensor
    epochs: list[Epoch]
    best: int
    settings: Setting


def rechub_din(items: int, *, dim: int, init: float = INITS[0]) -> nn.Module:
    """DIN of torch-rechub over `item` and `past`, which share one table of `items` rows, row 0 padding.

    As in torch-rechub's example, the candidate is target and profile feature at once.
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
    """DIN trained by torch-rechub's `CTRTrainer` with Adam on binary cross-entropy; the best epoch is kept.

    Each of `LRS` times `INITS` is trained for `TRIAL` epochs; the best by validation AUC is trained until
    `patience` epochs brought no better one, or all `epochs` are done. Where `valid` has one label only, the
    first is trained for all epochs. Negatives are drawn anew in every epoch, as for qarm's ranker; a history
    is padded to the longest of its batch, which changes no logit (a padded row is the zero vector).

    Args:
        rows: training rows; valid: rows for early stopping.
        settings: dim, epochs, patience, batch (rows).

    Raises:
        MissingExtraError: torch-rechub is not installed.
    """
    need_rechub()
    table_rows = torch.zeros(len(rows.events.item_ids), dtype=torch.int64)
    table_rows[torch.from_numpy(rows.trained.astype(np.int64))] = torch.arange(1, len(rows.trained) + 1)
    both = valid.labels.any() and not valid.labels.all()
    validation = _Rows(lambda: valid, table_rows, 4 * settings.batch) if both else None
    with Scratch() as scratch, torch.random.fork_rng(devices=[]):
        trials = [
            _Trial(rows, table_rows, settings, lr=lr, init=init, seed=seed, folder=str(scratch.path))
            for init, lr in (product(INITS, LRS) if validation else [(INITS[0], LRS[0])])
        ]
        for trial in trials:
            trial.train(min(TRIAL, settings.epochs), validation)
        best = max(trials, key=lambda trial: trial.reached)
        if not best.stopped and settings.epochs > TRIAL:
            best.train(settings.epochs - TRIAL, validation)
    return Rival(best.best_model(), table_rows, best.epochs, best.best, best.settings)


@torch.no_grad()
def score_rival(rival: Rival, examples: Examples, *, rows: int = 4096) -> npt.NDArray[np.float32]:
    """Logits float32 [n] of all examples, in batches of about `rows`, by `Din`: those of torch-rechub."""
    model, scores = Din.from_rechub(rival.model).eval(), np.zeros(len(examples), dtype=np.float32)
    for batch in batches(examples, rows):
        scores[batch.rows[batch.real.numpy()]] = model(ragged(batch, rival.table_rows)).numpy()
    return scores


class _Rows:
    """Data loader for torch-rechub's trainer: flat batches of the rows of each pass."""

    def __init__(
        self,
        examples: Callable[[], Examples],
        table_rows: Tensor,
        size: int,
        random: np.random.Generator | None = None,
    ) -> None:
        self.examples, self.table_rows, self.size, self.random = examples, table_rows, size, random

    def __iter__(self) -> Iterator[Flat]:
        for batch in batches(self.examples(), self.size, random=self.random):
            flat = _flat(batch, self.table_rows)
            if self.random is None or len(flat[1]) > 1:  # batch norm cannot train on a single row
                yield flat


class _Trial:
    """One model with its trainer; `epochs` are those that the trainer has logged."""

    def __init__(
        self,
        rows: TrainingRows,
        table_rows: Tensor,
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
        self.epochs: list[Epoch] = []
        self.rows = _Rows(
            lambda: rows.epoch(next(number)), table_rows, settings.batch, np.random.default_rng(seed)
        )
        self.trainer = CTRTrainer(
            rechub_din(len(rows.trained) + 1, dim=settings.dim, init=init),
            optimizer_params={"lr": lr, "weight_decay": DECAY},
            earlystop_patience=settings.patience,
            device="cuda" if torch.cuda.is_available() else "cpu",
            model_path=folder,
            model_logger=self,
        )

    def train(self, epochs: int, validation: _Rows | None) -> None:
        """Train for so many epochs more."""
        self.trainer.n_epoch = epochs
        with redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
            self.trainer.fit(self.rows, validation)

    @property
    def reached(self) -> float:
        """Best validation AUC."""
        return max((line.valid_auc or 0.0 for line in self.epochs), default=0.0)

    @property
    def best(self) -> int:
        """Epoch with the best validation AUC; the last one without validation."""
        aucs = [line.valid_auc for line in self.epochs]
        return len(aucs) - 1 if None in aucs else aucs.index(self.reached)

    @property
    def stopped(self) -> bool:
        """Whether `patience` epochs brought no better AUC."""
        patience: int = self.trainer.early_stopper.patience
        return len(self.epochs) - 1 - self.best >= patience

    def best_model(self) -> nn.Module:
        """The model with its best epoch's weights, which the trainer restores only when it stops early."""
        model: nn.Module = self.trainer.model
        if self.trainer.early_stopper.best_weights is not None:
            model.load_state_dict(self.trainer.early_stopper.best_weights)
        return model.eval()

    def log_hyperparams(self, content: Mapping[str, object]) -> None:
        """Hook of torch-rechub's trainer; the settings are not logged."""

    def log_metrics(self, content: Mapping[str, float], step: int) -> None:
        """Hook of torch-rechub's trainer; adds an epoch, then its validation AUC."""
        if "train/loss" in content:
            loss = float(content["train/loss"])
            self.epochs.append(Epoch(epoch=len(self.epochs), loss=loss, valid_auc=None, valid_logloss=None))
        if "val/auc" in content:
            self.epochs[-1].valid_auc = float(content["val/auc"])

    def finish(self) -> None:
        """Hook of torch-rechub's trainer at the end of a fit."""


def _flat(batch: Batch, table_rows: Tensor) -> Flat:
    """A row per candidate, each with its own copy of the history, 0 where padded; labels float32 [n]."""
    event = batch.real.nonzero()[:, 0]
    past = torch.where(batch.seen, table_rows[batch.history], 0)
    return {"item": table_rows[batch.items][batch.real], "past": past[event]}, batch.labels[batch.real]
