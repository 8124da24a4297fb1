"""Batches of examples as tensors: rows of one event share their history; log2 buckets of gaps of time."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from qarm.recommender.examples import Examples
from qarm.recommender.history_search import CodeSearch

__all__ = ["BUCKETS", "Batch", "batches", "gap_buckets"]

BUCKET = 16  # batches that are sorted by history length together


@dataclass(frozen=True)
class Batch:
    """g events with at most c candidates and histories of at most t items.

    items: int64 [g, c]; labels: float32 [g, c]; real: bool [g, c], False where padded;
    history: int64 [g, t], newest first; seen: bool [g, t], False where padded;
    rows: int64 [g, c], the example of each candidate; matched, kinds: int64 [g, c, k] and counts: float32
    [g, c, 3], what search by code found (see `Matches`), None without a search;
    auxiliary: float32 [g, c, tasks], labels, -1 where unknown; gaps: int64 [g, t], buckets of the time since
    each event of the history; user: int64 [g, features], the values of the user's features; each None
    for rankers that do not read it; weights: float32 [g, c], of the events in the loss, None where alike.
    """

    items: Tensor
    labels: Tensor
    real: Tensor
    history: Tensor
    seen: Tensor
    rows: npt.NDArray[np.int64]
    matched: Tensor | None = None
    kinds: Tensor | None = None
    counts: Tensor | None = None
    auxiliary: Tensor | None = None
    gaps: Tensor | None = None
    user: Tensor | None = None
    weights: Tensor | None = None

    def to(self, device: torch.device) -> "Batch":
        """The same batch with its tensors on a device."""
        there = {name: part for name, part in vars(self).items() if isinstance(part, Tensor)}
        moved: dict[str, Any] = {name: part.to(device) for name, part in there.items()}
        return replace(self, **moved)

    def part(self, number: int, of: int) -> "Batch":
        """Every `of`-th event, from `number` on."""
        parts: dict[str, Any] = {name: part for name, part in vars(self).items() if part is not None}
        return replace(self, **{name: part[number::of] for name, part in parts.items()})


def batches(
    examples: Examples,
    size: int,
    *,
    random: np.random.Generator | None = None,
    search: CodeSearch | None = None,
) -> Iterator[Batch]:
    """Batches of about `size` rows; shuffled when there is a generator, else by history length.

    search: an index of `examples.history`, for rankers that look into it by code.
    """
    edges = examples.groups()
    if len(edges) < 2:
        return
    lengths = (examples.end - examples.start)[edges[:-1]]
    events = max(1, size // max(1, round(len(examples) / len(lengths))))
    order = _order(lengths, events, random)
    starts = np.arange(0, len(order), events)
    if random is not None:
        random.shuffle(starts)
    for start in starts:
        batch = _batch(examples, edges, lengths, order[start : start + events])
        yield batch if search is None else _searched(batch, examples, search)


def _order(
    lengths: npt.NDArray[np.int64], events: int, random: np.random.Generator | None
) -> npt.NDArray[np.int64]:
    """Neighbours have histories of like length, so that little is padded."""
    if random is None:
        return np.argsort(lengths, kind="stable")
    order = random.permutation(len(lengths))
    for start in range(0, len(order), events * BUCKET):
        chunk = order[start : start + events * BUCKET]
        order[start : start + events * BUCKET] = chunk[np.argsort(lengths[chunk], kind="stable")]
    return order


def _batch(
    examples: Examples,
    edges: npt.NDArray[np.int64],
    lengths: npt.NDArray[np.int64],
    chosen: npt.NDArray[np.int64],
) -> Batch:
    first, count = edges[chosen][:, None], (edges[chosen + 1] - edges[chosen])[:, None]
    column = np.arange(count.max())
    real = column < count
    rows = np.where(real, first + column, first)
    place = np.arange(max(1, lengths[chosen].max()))
    seen = place < lengths[chosen][:, None]
    newest = examples.end[first] - 1 - place
    history = examples.history[np.where(seen, newest, 0)] if len(examples.history) else np.zeros(seen.shape)
    return Batch(
        items=torch.from_numpy(examples.items[rows].astype(np.int64)),
        labels=torch.from_numpy(examples.labels[rows].astype(np.float32)),
        real=torch.from_numpy(real),
        history=torch.from_numpy(np.where(seen, history, 0).astype(np.int64)),
        seen=torch.from_numpy(seen),
        rows=rows,
        **_more(examples, rows, np.where(seen, newest, 0)),
    )


def _more(
    examples: Examples, rows: npt.NDArray[np.int64], newest: npt.NDArray[np.int64]
) -> dict[str, Tensor]:
    """What only some rankers read: auxiliary labels, weights, gaps of time, features of users."""
    found, first = {}, rows[:, 0]
    if examples.auxiliary is not None:
        found["auxiliary"] = torch.from_numpy(examples.auxiliary[rows].astype(np.float32))
    if examples.weights is not None:
        found["weights"] = torch.from_numpy(examples.weights[rows])
    if examples.timed and examples.clock is not None:
        clock = examples.clock[newest] if len(examples.clock) else np.zeros_like(newest)
        found["gaps"] = torch.from_numpy(gap_buckets(examples.times[first][:, None] - clock))
    if examples.user_codes is not None:
        found["user"] = torch.from_numpy(examples.user_codes[examples.users[first]])
    return found


def _searched(batch: Batch, examples: Examples, search: CodeSearch) -> Batch:
    rows = batch.rows.ravel()
    found = search.find(examples.items[rows].astype(np.int64), examples.begin[rows], examples.end[rows])
    shape = *batch.rows.shape, -1
    return replace(
        batch,
        matched=torch.from_numpy(found.items.reshape(shape)),
        kinds=torch.from_numpy(found.kinds.reshape(shape)),
        counts=torch.from_numpy(found.counts.astype(np.float32).reshape(shape)),
    )


BUCKETS = 65


def gap_buckets(gaps: npt.NDArray[np.integer[Any]]) -> npt.NDArray[np.int64]:
    """0 for a gap of 0 or less, else 1 + the whole part of its binary logarithm; whatever its unit."""
    exponents: npt.NDArray[np.int32] = np.frexp(np.maximum(gaps, 0).astype(np.float64))[1]
    return exponents.astype(np.int64)
