"""Fitting of one ranker: from rows and item features, or from a log and codes."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from qarm.config import RankerConfig
from qarm.core.atomic_io import digest
from qarm.core.parallel.allocator import kept_memory
from qarm.core.parallel.torchrun import processes
from qarm.core.training_state import RANKER_FILE, fingerprint
from qarm.data.codes import Codes
from qarm.data.embeddings import Embeddings
from qarm.data.interactions import Log
from qarm.data.splits import split_log
from qarm.errors import InputError
from qarm.recommender.examples import Examples, TrainingRows, evaluation_rows, read_examples
from qarm.recommender.item_features import ItemTable, item_table
from qarm.recommender.metrics import prior_of
from qarm.recommender.ranking.model import Ranker, set_items
from qarm.recommender.ranking.trainer import RankerTrainer
from qarm.recommender.user_fields import vocabularies
from qarm.schemas.results import Epoch, RankerShape

__all__ = ["FittedRanker", "build_ranker", "fit_ranker", "thin_examples", "train_ranker"]

VALID_NEGATIVES = 20  # per validation positive; the positives carry the noise, more negatives only cost


@dataclass(frozen=True)
class FittedRanker:
    """A trained ranker, the figures of each epoch, and the number of the epoch that was kept."""

    ranker: Ranker
    epochs: list[Epoch]
    best: int


def fit_ranker(
    rows: TrainingRows,
    valid: Examples,
    items: ItemTable,
    *,
    settings: RankerConfig,
    seed: int = 0,
    checkpoint: Path | None = None,
    name: str = "train",
) -> FittedRanker:
    """A ranker trained with AdamW on binary cross-entropy, as of the epoch with the best validation AUC.

    Every epoch is judged with the running mean of the weights (Polyak and Juditsky, 1992), and training
    stops when `settings.patience` epochs brought no better one. Without both labels in `valid` it runs
    all epochs and keeps the last. On a CPU the same seed gives the same bytes, also where the training was
    killed and went on from a checkpoint. Under torchrun the processes share the events of each batch, and all
    return the same ranker: that of one process up to rounding and to what dropout drew.

    Args:
        rows: training rows; valid: rows to stop by; items: features, for the same vocabulary.
        settings: dim, hidden, dropout, id_dropout, history, epochs, patience, batch (rows), lr, weight_decay.
        checkpoint: folder whose `progress.safetensors` is written after every epoch and gone on from, where
            rows, features, settings and seed are the same; a finished training is read back from it. None:
            an interruption loses the training.
        name: of the training, beside its progress.

    Raises:
        InputError: the vocabularies differ.
        ArtifactError: the checkpoint is damaged.
    """
    if items.item_ids != rows.events.item_ids:
        raise InputError(
            f"features of {len(items.item_ids)} items for a vocabulary of {len(rows.events.item_ids)}"
        )
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    valid = thin_examples(valid)
    with _seeded(seed, device), kept_memory():
        ranker = build_ranker(rows, items, settings).to(device)
        if items.fixed and ranker.item.code is not None:
            ranker.item.code.requires_grad_(False)
        here = processes(device.type)
        alone = checkpoint is None and here.size == 1
        content = {} if alone else _content(ranker, rows, valid, items, settings, seed)
        here.agree("the ranker's training", content)
        trainer = RankerTrainer(ranker, rows, valid, settings, seed=seed, processes=here, name=name)
        state = trainer.run(None if checkpoint is None else checkpoint / RANKER_FILE, key=digest(content))
        return FittedRanker(ranker.eval(), state.lines, state.best)


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


def build_ranker(rows: TrainingRows, items: ItemTable, settings: RankerConfig) -> Ranker:
    """The ranker of a variant, not trained yet; weights come from torch's own generator."""
    widths = () if items.rq is None else tuple(int(top) + 1 for top in items.rq.max(axis=0))
    books = _centroids(items, widths) if settings.start == "codebooks" and items.rq is not None else None
    widths = widths if books is None else tuple(len(book) for book in books)
    about = rows.events.about
    pool, spare = items.pool if items.cross else None, bool(items.without)
    near = _pool_vectors(items) if settings.start == "pool" and items.vq is not None else None
    listed = len(near) if near is not None else 0 if pool is None else len(pool) + spare
    values = {} if about is None else vocabularies(about, rows.events.user_ids)
    shape = RankerShape(
        items=len(items.item_ids),
        known=len(rows.trained),
        widths=widths,
        nearest=0 if items.vq is None else items.vq.shape[1],
        pool=0 if items.vq is None else max(int(items.vq.max()) + 1, listed),
        vector=0 if items.vectors is None else items.vectors.shape[1],
        ids=items.ids,
        cross=settings.cross if items.cross else 0,
        dim=settings.dim,
        hidden=tuple(settings.hidden),
        dropout=settings.dropout,
        id_dropout=settings.id_dropout,
        history=settings.history,
        prefixes=settings.prefixes if items.rq is not None else 0,
        ngrams=settings.ngrams if items.rq is not None else 0,
        tiers=settings.tiers if items.vectors is not None else 0,
        shrinkage=settings.shrinkage if items.ids else 0.0,
        weighted=settings.nearest_weights and items.vq is not None,
        spare=spare,
        time=settings.time,
        labels=rows.events.tasks,
        users=tuple(len(known) for known in values.values()),
        long_history=settings.long_history,
    )
    ranker = Ranker(shape, items.item_ids, values=values)
    parts = [part for part in (items.rq, items.vq) if part is not None]
    codes = np.concatenate(parts, axis=1) if parts else None
    if codes is not None and spare:
        last = [width - 1 for width in widths] + [shape.pool - 1] * shape.nearest
        codes[np.isin(items.item_ids, items.without)] = last
    set_items(
        ranker,
        rows.trained.astype(np.int64),
        codes=codes,
        vectors=items.vectors,
        pool=pool,
        events=np.bincount(rows.events.items, minlength=len(items.item_ids)),
    )
    if books is not None and ranker.item.code is not None:
        ranker.item.code.start_from(books)
    if near is not None and ranker.item.code is not None:
        ranker.item.code.start_from_pool(near)
    ranker.prior.fill_(prior_of(rows.epoch(0).labels))
    return ranker


def _centroids(items: ItemTable, widths: tuple[int, ...]) -> list[npt.NDArray[np.float32]]:
    """Of each level; that of items without codes is the others' mean."""
    books = items.codebooks
    if books is None:
        raise InputError("ranker.start=codebooks needs the codes' codebooks; give item_table codebooks=")
    spare = int(bool(items.without))
    sizes = [len(book) for book in books]
    if len(sizes) != len(widths) or any(
        width - spare > size for width, size in zip(widths, sizes, strict=True)
    ):
        raise InputError(f"got codebooks of {sizes} centroids for codes below {[w - spare for w in widths]}")
    return [np.vstack([book, book.mean(axis=0, keepdims=True)]) if spare else book for book in books]


def _pool_vectors(items: ItemTable) -> npt.NDArray[np.float32]:
    """Of the pool; that of items without codes is the others' mean."""
    vectors = items.pool_vectors
    if vectors is None or items.vq is None:
        raise InputError("ranker.start=pool needs the pool's vectors; give item_table pool_vectors=")
    most = int(items.vq[~np.isin(items.item_ids, items.without)].max()) + 1
    most = max(most, 0 if items.pool is None else len(items.pool))
    if len(vectors) < most:
        raise InputError(f"got {len(vectors)} pool vectors for VQ codes below {most}")
    return np.vstack([vectors, vectors.mean(axis=0, keepdims=True)]) if items.without else vectors


def _content(
    ranker: Ranker, rows: TrainingRows, valid: Examples, items: ItemTable, settings: RankerConfig, seed: int
) -> dict[str, object]:
    """Everything that the weights depend on."""
    names = ["users", "items", "labels", "times", "events", "start", "end", "begin", "history"]
    names += ["auxiliary", "clock", "user_codes"] + ["weights"] * (rows.events.weights is not None)
    read = [ranker.reading(part) for part in (rows.epoch(0), valid)]
    examples = [getattr(part, name) for part in read for name in names]
    arrays = fingerprint([*examples, rows.trained, items.rq, items.vq, items.vectors, items.pool])
    kind = {"ids": items.ids, "cross": items.cross, "fixed": items.fixed, "items": items.item_ids}
    kind |= {"labels": rows.events.tasks, "values": ranker.values}
    near = [] if items.pool_vectors is None else [items.pool_vectors]
    kind["start"] = fingerprint([*(items.codebooks or []), *near])
    chosen = settings.model_dump(mode="json", exclude={"variants", "seeds"})
    return {"arrays": arrays, "kind": kind, "settings": chosen, "seeds": [seed, rows.seed]}


def thin_examples(
    examples: Examples, *, negatives: int = VALID_NEGATIVES, events: int | None = None
) -> Examples:
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
    return examples.only(keep)


@contextmanager
def _seeded(seed: int, device: torch.device) -> Iterator[None]:
    """Torch's own generator serves dropout and initialisation; the caller's state comes back afterwards."""
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(seed)
        yield
