"""Training one ranker: columnar batches, a running mean of the weights, early stopping on validation."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional
from tqdm import tqdm

from qarm.artifacts import Codes, Embeddings
from qarm.behavior.log import Log
from qarm.behavior.split import split_log
from qarm.config import RankerConfig
from qarm.errors import InputError
from qarm.recommender.batches import batches
from qarm.recommender.examples import Examples, TrainingRows, evaluation_rows, read_examples
from qarm.recommender.features import ItemTable, item_table
from qarm.recommender.fields import Shape
from qarm.recommender.metrics import auc, logloss, prior_of
from qarm.recommender.ranker import Ranker, score_examples, set_items
from qarm.recommender.search import CodeSearch

__all__ = ["Fitted", "built", "fit_ranker", "thinned", "train_ranker"]

AVERAGE = 0.99  # a step's share in the running mean falls by this factor with every later step
WARM_UP = 10
VALID_NEGATIVES = 20  # per validation positive; the positives carry the noise, more negatives only cost
GAIN = 1e-5


@dataclass(frozen=True)
class Fitted:
    """A trained ranker; epochs: epoch, loss, valid_auc and valid_logloss of each; best: the kept one."""

    ranker: Ranker
    epochs: list[dict[str, float | int | None]]
    best: int


def fit_ranker(
    rows: TrainingRows, valid: Examples, items: ItemTable, *, settings: RankerConfig, seed: int = 0
) -> Fitted:
    """Train with AdamW on binary cross-entropy; keep the epoch with the best validation AUC.

    Every epoch is judged with the running mean of the weights (Polyak and Juditsky, 1992), and training
    stops when `settings.patience` epochs brought no better one. Without both labels in `valid` it runs
    all epochs and keeps the last. On a CPU the same seed gives the same bytes.

    Args:
        rows: training rows; valid: rows to stop by; items: features, for the same vocabulary.
        settings: dim, hidden, dropout, id_dropout, history, epochs, patience, batch (rows), lr, weight_decay.

    Raises:
        InputError: the vocabularies differ.
    """
    if items.item_ids != rows.events.item_ids:
        raise InputError(
            f"features of {len(items.item_ids)} items for a vocabulary of {len(rows.events.item_ids)}"
        )
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    valid = thinned(valid)
    with _seeded(seed, device):
        ranker = built(rows, items, settings).to(device)
        if items.fixed and ranker.item.code is not None:
            ranker.item.code.requires_grad_(False)
        return _run(ranker, rows, valid, settings, seed)


def train_ranker(
    past: Log,
    codes: Codes,
    *,
    variant: str | None = None,
    embeddings: Embeddings | None = None,
    valid_share: float = 0.1,
    config: RankerConfig | None = None,
    seed: int = 0,
) -> Ranker:
    """A ranker fitted on a log and the codes of its items, ready for `compare(ranker, future)`.

    Args:
        past: all that may be learned from; its last `valid_share` decides when to stop.
        codes: of every item that there is, with or without events.
        variant: what the ranker knows of an item, features of `item_table` joined by +; by default
            all that `codes` holds: `id+rq+vq`, or `id+rq` without a VQ code.
        embeddings: vectors for `frozen`.
        config: the settings of training; defaults to `RankerConfig()`.

    Raises:
        InputError: items of the log without codes, one label only, numbers that are not finite.
    """
    settings = config or RankerConfig()
    variant = variant or ("id+rq" if codes.vq is None else "id+rq+vq")
    split = split_log(past, test=0.0, valid=valid_share, seed=seed)
    table = item_table(
        codes.item_ids, variant, codes=codes, embeddings=embeddings, scale_by=split.train.items
    )
    rows = TrainingRows(
        split.train,
        item_ids=table.item_ids,
        explicit=past.explicit,
        history=settings.history,
        long_history=settings.long_history,
        negatives=settings.negatives.train,
        seed=seed,
    )
    frame = evaluation_rows(
        {"valid": split.valid},
        split.train,
        item_ids=table.item_ids,
        trained_items=split.train.items,
        negatives=min(settings.negatives.eval, VALID_NEGATIVES),
        seed=seed,
    )
    valid = read_examples(
        frame, [past], item_ids=table.item_ids, history=settings.history, long_history=settings.long_history
    )
    ranker = fit_ranker(rows, valid, table, settings=settings, seed=seed).ranker
    ranker.past = past
    return ranker


def built(rows: TrainingRows, items: ItemTable, settings: RankerConfig) -> Ranker:
    """The ranker of a variant, not trained yet; weights come from torch's own generator."""
    widths = () if items.rq is None else tuple(int(top) + 1 for top in items.rq.max(axis=0))
    shape = Shape(
        items=len(items.item_ids),
        known=len(rows.trained),
        widths=widths,
        nearest=0 if items.vq is None else items.vq.shape[1],
        pool=0 if items.vq is None else int(items.vq.max()) + 1,
        vector=0 if items.vectors is None else items.vectors.shape[1],
        ids=items.ids,
        cross=settings.cross if items.cross else 0,
        dim=settings.dim,
        hidden=tuple(settings.hidden),
        dropout=settings.dropout,
        id_dropout=settings.id_dropout,
        history=settings.history,
    )
    ranker = Ranker(shape, items.item_ids)
    parts = [part for part in (items.rq, items.vq) if part is not None]
    codes = np.concatenate(parts, axis=1) if parts else None
    set_items(
        ranker,
        rows.trained.astype(np.int64),
        codes=codes,
        vectors=items.vectors,
        pool=items.pool if items.cross else None,
    )
    ranker.prior.fill_(prior_of(rows.epoch(0).labels))
    return ranker


def _run(ranker: Ranker, rows: TrainingRows, valid: Examples, settings: RankerConfig, seed: int) -> Fitted:
    random = np.random.default_rng(seed)
    learning = [weight for weight in ranker.parameters() if weight.requires_grad]
    optimizer = torch.optim.AdamW(learning, lr=settings.lr, weight_decay=settings.weight_decay)
    mean = {name: value.detach().clone() for name, value in ranker.state_dict().items()}
    best, kept, top, history, step = -1, mean, -1.0, [], 0
    search = ranker.search(rows.events.history)
    for epoch in (bar := tqdm(range(settings.epochs), disable=None, desc="train", unit="epoch")):
        examples = rows.epoch(epoch)
        loss, step = _epoch(ranker, examples, optimizer, mean, settings.batch, random, step, search)
        live = {name: value.detach().clone() for name, value in ranker.state_dict().items()}
        ranker.load_state_dict(mean)
        line = {"epoch": epoch, "loss": loss, **_validate(ranker, valid)}
        history.append(line)
        bar.set_postfix(loss=f"{loss:.4f}", auc=line["valid_auc"])
        reached = line["valid_auc"]
        if reached is None or reached > top + GAIN:
            best, top = epoch, top if reached is None else reached
            kept = {name: value.clone() for name, value in mean.items()}
        elif epoch - best >= settings.patience:
            break
        ranker.load_state_dict(live)
    ranker.load_state_dict(kept)
    return Fitted(ranker.eval(), history, best)


def _epoch(
    ranker: Ranker,
    examples: Examples,
    optimizer: torch.optim.Optimizer,
    mean: dict[str, Tensor],
    size: int,
    random: np.random.Generator,
    step: int,
    search: CodeSearch | None,
) -> tuple[float, int]:
    """One pass over the rows; keeps the running mean of the weights, returns mean loss and steps so far."""
    ranker.train()
    total = torch.zeros((), device=ranker.bias.device)
    for batch in batches(examples, size, random=random, search=search):
        batch = batch.to(ranker.bias.device)
        losses = functional.binary_cross_entropy_with_logits(ranker(batch), batch.labels, reduction="none")[
            batch.real
        ]
        optimizer.zero_grad(set_to_none=True)
        losses.mean().backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        total += losses.detach().sum()
        step += 1
        share = 1 - min(AVERAGE, step / (step + WARM_UP))
        with torch.no_grad():
            for name, value in ranker.named_parameters():
                mean[name].lerp_(value, share)
    return float(total) / max(len(examples), 1), step


def _validate(ranker: Ranker, valid: Examples) -> dict[str, float | None]:
    if not len(valid):
        return {"valid_auc": None, "valid_logloss": None}
    logits = score_examples(ranker, valid)
    return {"valid_auc": auc(valid.labels, logits), "valid_logloss": logloss(valid.labels, logits)}


def thinned(examples: Examples, *, negatives: int = VALID_NEGATIVES, events: int | None = None) -> Examples:
    """The first `1 + negatives` rows of every event; drawn negatives stand in random order.

    events: as many of them at most, evenly spaced.
    """
    edges = examples.groups()
    number = np.repeat(np.arange(len(edges) - 1), np.diff(edges))
    keep = np.arange(len(examples)) - edges[number] <= negatives
    if events is not None and len(edges) - 1 > events:
        chosen = np.zeros(len(edges) - 1, dtype=bool)
        chosen[np.linspace(0, len(chosen) - 1, events).astype(np.int64)] = True
        keep &= chosen[number]
    fields = ("users", "items", "labels", "times", "events", "cold", "start", "end", "begin")
    return replace(examples, **{name: getattr(examples, name)[keep] for name in fields})


@contextmanager
def _seeded(seed: int, device: torch.device) -> Iterator[None]:
    """Torch's own generator serves dropout and initialisation; the caller's state comes back afterwards."""
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(seed)
        yield
