"""Training of sequence models: epochs over histories, cosine decay, early stopping by NDCG."""

import math
from collections.abc import Callable, Iterator
from functools import partial
from typing import TypeVar

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from qarm.config.retriever import RetrieverConfig
from qarm.core.parallel.allocator import kept_memory
from qarm.core.parallel.progress import Progress
from qarm.encoder.alignment.schedule import rate_share
from qarm.recommender.retrieval.histories import Histories
from qarm.recommender.retrieval.models.item_vectors import ItemContent
from qarm.recommender.retrieval.models.sampled_softmax import SampledSoftmax
from qarm.recommender.retrieval.models.sequence_model import RetrievalModel, SequenceModel
from qarm.schemas.retrieval import RetrieverShape, TrainedEpoch

__all__ = ["new_sequence_model", "train_model", "train_sequence_model"]

WARM_UP = 50  # steps in which the step size rises
GAIN = 1e-6  # least improvement that counts
BUCKET = 8  # batches are made of histories of about equal length, to the nearest of this many events

Loss = Callable[[Tensor, Tensor], Tensor]


Model = TypeVar("Model", bound=RetrievalModel)
Validate = Callable[[Model], float | None]


def new_sequence_model(
    content: ItemContent, counts: npt.NDArray[np.int64], config: RetrieverConfig, *, seed: int
) -> SequenceModel:
    """Sequence model with random weights that reads the config's fields.

    Args:
        content: of all items. counts: training events of each item, int64 [items]. seed: of the weights.
    """
    levels = len(content.widths) if "rq" in config.fields else 0
    listed = (
        0
        if content.codes is None or "vq" not in config.fields
        else content.codes.shape[1] - len(content.widths)
    )
    attributes = content.attributes if "attributes" in config.fields else None
    vectors = content.vectors if "vector" in config.fields else None
    shape = RetrieverShape(
        items=len(counts),
        ids="id" in config.fields,
        widths=content.widths[:levels],
        nearest=listed,
        pool=content.pool if listed else 0,
        attributes=0 if attributes is None else int(attributes[1].max(initial=-1)) + 1,
        vector=0 if vectors is None else vectors.shape[1],
        dim=config.dim,
        length=config.history,
        reader=config.reader,
        lags=config.lags,
        blocks=config.blocks,
        heads=config.heads,
        similarity=config.similarity,
        temperature=config.temperature,
        dropout=config.dropout,
    )
    first = 0 if levels else len(content.widths)
    codes = None if content.codes is None else content.codes[:, first : len(content.widths) + listed]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = SequenceModel(shape, values=0 if attributes is None else len(attributes[1]))
    used = ItemContent(codes, shape.widths, shape.pool, attributes, vectors)
    model.items.set_items(used, counts, shrinkage=config.shrinkage)
    return model


class _Trainer:
    """Optimisers, batches and schedule of one training; loss: of histories [b, t] and cold items [items]."""

    def __init__(
        self,
        model: nn.Module,
        loss: Loss,
        histories: Histories,
        items: int,
        config: RetrieverConfig,
        random: np.random.Generator,
        *,
        decay: int,
    ) -> None:
        self.model, self.loss, self.config, self.random, self.items = model, loss, config, random, items
        self.histories = histories.latest(config.history + 1)
        self.users = np.flatnonzero(self.histories.lengths >= 2)
        targets = int((self.histories.lengths[self.users] - 1).sum())
        steps = max(1, math.ceil(targets / config.batch))
        self.passes = max(1, math.ceil(config.min_steps / (config.epochs * steps)))
        self.optimizers = _optimizers(model, config)
        total = decay * self.passes * steps
        warm_up = min(WARM_UP, total // 4 + 1)

        schedule = torch.optim.lr_scheduler.LambdaLR
        share = partial(rate_share, steps=total, warm_up=warm_up)
        self.schedules = [schedule(optimizer, share) for optimizer in self.optimizers]

    def epoch(self) -> float:
        """One pass over the users, or as many as make up for few users; the mean loss per step."""
        self.model.train()
        losses = []
        for _ in range(self.passes):
            cold = torch.from_numpy(self.random.random(self.items) < self.config.id_dropout)
            losses += [self._step(torch.from_numpy(table), cold) for table in self._batches()]
        return float(torch.stack(losses).mean()) if losses else 0.0

    def _batches(self) -> Iterator[npt.NDArray[np.int64]]:
        """Padded histories [b, t] of all users, in random batches of like length and `batch` events."""
        lengths = self.histories.lengths[self.users]
        order = np.argsort(lengths // BUCKET + self.random.random(len(lengths)), kind="stable")
        ends = np.cumsum(lengths[order] - 1)
        edges = np.arange(self.config.batch, ends[-1] if len(ends) else 0, self.config.batch)
        batches = np.split(self.users[order], np.unique(np.searchsorted(ends, edges) + 1))
        for number in self.random.permutation(len(batches)):
            part = self.histories.only(batches[number])
            if len(part):
                yield part.padded(int(part.lengths.max()))

    def _step(self, table: Tensor, cold: Tensor) -> Tensor:
        loss = self.loss(table, cold)
        for optimizer in self.optimizers:
            optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        for optimizer, schedule in zip(self.optimizers, self.schedules, strict=True):
            optimizer.step()
            schedule.step()
        return loss.detach()


def _optimizers(model: nn.Module, config: RetrieverConfig) -> list[torch.optim.Optimizer]:
    """AdamW of all weights, but SparseAdam of the tables that take sparse updates."""
    sparse = [table.weight for table in model.modules() if isinstance(table, nn.Embedding) and table.sparse]
    names = {id(weight) for weight in sparse}
    dense = [weight for weight in model.parameters() if id(weight) not in names]
    found: list[torch.optim.Optimizer] = [
        torch.optim.AdamW(dense, lr=config.lr, weight_decay=config.weight_decay)
    ]
    return [*found, torch.optim.SparseAdam(sparse, lr=config.lr)] if sparse else found


def train_sequence_model(
    model: SequenceModel,
    histories: Histories,
    config: RetrieverConfig,
    *,
    seed: int,
    validate: "Validate[SequenceModel] | None" = None,
    epochs: int | None = None,
    decay: int | None = None,
) -> list[TrainedEpoch]:
    """Train a sequence model with sampled softmax; arguments and result as of `train_model`."""
    random = np.random.default_rng([seed, 29])
    counts = histories.counts(model.shape.items)
    loss = SampledSoftmax(
        model, counts, len(histories), negatives=config.negatives, log_q=config.log_q, random=random
    )
    return train_model(
        model, loss, histories, config, seed=seed, validate=validate, epochs=epochs, decay=decay
    )


def train_model(
    model: Model,
    loss: Loss,
    histories: Histories,
    config: RetrieverConfig,
    *,
    seed: int,
    validate: "Validate[Model] | None" = None,
    epochs: int | None = None,
    decay: int | None = None,
) -> list[TrainedEpoch]:
    """Train on every event of the histories; the model ends as its best epoch by `validate`.

    An epoch treats `id_dropout` of the items as cold (pseudo-cold items: their ids are read nowhere).

    Args:
        model: changed. loss: of histories int64 [b, t] and cold items bool [items].
        histories: the training part, rows of the model's items.
        validate: a figure of the frozen model, higher is better; None: the last epoch is kept.
        epochs: most epochs; decay: epochs over which the step size falls to 0; None: as configured.

    Returns:
        Loss and figure of each epoch.
    """
    random = np.random.default_rng([seed, 43])
    trainer = _Trainer(model, loss, histories, model.item_count, config, random, decay=decay or config.epochs)
    lines: list[TrainedEpoch] = []
    best, kept = -math.inf, None
    with kept_memory(), torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        bar = Progress(range(config.epochs if epochs is None else epochs), desc="retriever", unit="epoch")
        for number in bar:
            mean = trainer.epoch()
            model.freeze()
            figure = None if validate is None else validate(model)
            lines.append(TrainedEpoch(epoch=number, loss=mean, valid_ndcg=figure))
            bar.set_postfix(loss=f"{mean:.3f}", ndcg=figure)
            if figure is not None and figure > best + GAIN:
                best = figure
                kept = {name: value.clone() for name, value in model.state_dict().items()}
            elif figure is not None and number - _best(lines) >= config.patience:
                break
    if kept is not None:
        model.load_state_dict(kept)
    model.freeze()
    return lines


def _best(lines: list[TrainedEpoch]) -> int:
    return max(lines, key=lambda line: (line.valid_ndcg or 0.0, -line.epoch)).epoch
