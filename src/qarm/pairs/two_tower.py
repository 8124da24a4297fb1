"""Two-tower id model: a vector per user and per item, trained by softmax over the clicks of a group."""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module

import numpy as np
import numpy.typing as npt

from qarm.config import User2ItemConfig
from qarm.core.parallel.numba_jit import compiled
from qarm.core.parallel.progress import Progress

__all__ = ["GROUP", "two_tower"]

GROUP = 256  # clicks that are each other's negatives; lifts of 256 and of 1,024 are alike, see docs/log.md
ROUND = 64  # steps between two signs of progress
DECAYS, EPSILON = (0.9, 0.999), 1e-8  # of Adam
SERIES = tuple(np.float32(1 / math.factorial(n)) for n in range(5, -1, -1))  # of exp, below its 1 / 6!

Floats = npt.NDArray[np.float32]
Ints = npt.NDArray[np.int64]
Int32s = npt.NDArray[np.int32]


def two_tower(
    users: npt.NDArray[np.integer], items: npt.NDArray[np.int32], settings: User2ItemConfig, *, seed: int
) -> Floats:
    """Item vectors of an id model with a tower for users and one for items, float32 [items, dim].

    Unit vectors, softmax over each `GROUP` of a step's clicks with the items' log frequencies subtracted from
    the logits (Yi et al. 2019, "Sampling-Bias-Corrected Neural Modeling for Large Corpus Item
    Recommendations"); an item that occurs twice in a group is no negative of itself. Lazy Adam: rows outside
    a step cost nothing. A kernel of our own, since torch's sparse Adam and its passes over the logits
    take most of a step (benchmarks/two_tower.py); one thread, so that the same seed gives the same bytes.

    Args:
        users, items: numbers of the clicks' users, sorted, and items.
        settings: of the model.
        seed: of the initial vectors and of the order of the clicks.
    """
    random = np.random.default_rng(seed)
    user, item = (_table(random, int(numbers.max()) + 1, settings.dim) for numbers in (users, items))
    shares = np.bincount(items) / len(items)
    with np.errstate(divide="ignore"):
        bias = np.log(shares).astype(np.float32)
    steps = min(settings.max_steps, settings.epochs * math.ceil(len(items) / settings.batch))
    pairs = np.stack([users.astype(np.int64), items.astype(np.int64)], axis=1)
    done, sizes = 0, (settings.batch, GROUP)
    with _one_thread(), Progress(desc="user2item", total=steps) as bar:
        while done < steps:
            rows = random.permutation(len(pairs))
            for start in range(0, len(rows), ROUND * settings.batch):
                some = pairs[rows[start : start + ROUND * settings.batch]]
                some = some[: (steps - done) * settings.batch]
                _train(some, user, item, bias, sizes, 1 / settings.temperature, settings.lr, done)
                done += math.ceil(len(some) / settings.batch)
                bar.update(done - bar.n)
    vectors: Floats = item[0]
    return vectors


def _table(random: np.random.Generator, rows: int, dim: int) -> Floats:
    """Vectors and Adam's first and second moments, float32 [3, rows, dim]."""
    table = np.zeros((3, rows, dim), dtype=np.float32)
    random.standard_normal(dtype=np.float32, out=table[0])
    table[0] /= dim**0.5
    return table


@contextmanager
def _one_thread() -> Iterator[None]:
    """One thread of BLAS inside; more gain nothing for small products, and lose much on a busy machine."""
    import_module("scipy.linalg.cython_blas")  # numba's products; it must be loaded to be limited
    with import_module("threadpoolctl").threadpool_limits(1, "blas"):
        yield


@compiled(division="numpy")
def _train(
    pairs: Ints,
    user: Floats,
    item: Floats,
    bias: Floats,
    sizes: tuple[int, int],
    sharpness: float,
    lr: float,
    done: int,
) -> None:
    """Steps over the clicks in their order, in place.

    sizes: clicks of a step and of a group; done: steps before these.
    """
    batch, size = sizes
    gradients = np.empty((2, batch, user.shape[2]), dtype=np.float32)
    slots = np.full(user.shape[1], -1), np.full(item.shape[1], -1)
    for start in range(0, len(pairs), batch):
        done += 1
        step = pairs[start : start + batch]
        for first in range(0, len(step), size):
            group = step[first : first + size]
            _contrast(group, user[0], item[0], bias, sharpness, len(step), gradients[:, first : first + size])
        _descend(step[:, 0], gradients[0], user, slots[0], lr, done)
        _descend(step[:, 1], gradients[1], item, slots[1], lr, done)


@compiled(division="numpy")
def _contrast(
    group: Ints, user: Floats, item: Floats, bias: Floats, sharpness: float, clicks: int, gradients: Floats
) -> None:
    """Gradients of the group's part of the step's mean loss by each click's user and item vector."""
    queries, query_norms = _unit(user, group[:, 0])
    targets, target_norms = _unit(item, group[:, 1])
    logits = np.dot(queries, targets.T)
    items, offsets = group[:, 1].astype(np.int32), bias[group[:, 1]]
    powers = np.empty(len(group), dtype=np.int32)
    share = np.float32(sharpness / clicks)
    for row in range(len(group)):
        _softmax(logits[row], row, items, offsets, np.float32(sharpness), powers)
        for column in range(len(group)):
            logits[row, column] *= share
        logits[row, row] -= share
    _through_norm(np.dot(logits, targets), queries, query_norms, gradients[0])
    _through_norm(np.dot(np.ascontiguousarray(logits.T), queries), targets, target_norms, gradients[1])


@compiled(division="numpy", reorder=True)
def _unit(table: Floats, rows: Ints) -> tuple[Floats, Floats]:
    """Unit vectors of rows of a table, and their lengths."""
    made, norms = (
        np.empty((len(rows), table.shape[1]), dtype=np.float32),
        np.empty(len(rows), dtype=np.float32),
    )
    for n in range(len(rows)):
        vector = table[rows[n]]
        total = np.float32(0)
        for d in range(len(vector)):
            total += vector[d] * vector[d]
        norms[n] = max(np.sqrt(total), np.float32(1e-12))
        for d in range(len(vector)):
            made[n, d] = vector[d] / norms[n]
    return made, norms


@compiled(division="numpy", reorder=True)
def _softmax(
    logits: Floats, target: int, items: Int32s, offsets: Floats, factor: np.float32, powers: Int32s
) -> None:
    """Softmax of a row of cosines, in place; the target's item elsewhere in the row gets 0."""
    top, total = np.float32(-3e38), np.float32(0)
    for column in range(len(logits)):
        logits[column] = logits[column] * factor - offsets[column]
        top = max(top, logits[column])
    for column in range(len(logits)):
        logits[column] -= top
    _exponentiate(logits, powers)
    for column in range(len(logits)):
        if items[column] == items[target] and column != target:
            logits[column] = np.float32(0)
        total += logits[column]
    for column in range(len(logits)):
        logits[column] /= total


@compiled(division="numpy", reorder=True, inline=True)
def _exponentiate(values: Floats, powers: Int32s) -> None:
    """Exp of values of at most 0, in place, to 1e-6 of it: 2 ** whole * 2 ** rest, the latter by its series.

    The compiler has no exp for several numbers at a time; this loop is one. Below 2 ** -126 it is 0.
    """
    scales = powers.view(np.float32)
    for n in range(len(values)):
        exponent = max(values[n] * np.float32(1.4426950408889634), np.float32(-126))
        whole = np.int32(exponent - np.float32(0.5))
        rest = (exponent - np.float32(whole)) * np.float32(0.6931471805599453)
        series = np.float32(1 / 720)
        for divisor in SERIES:
            series = series * rest + divisor
        values[n] = series if exponent > np.float32(-126) else np.float32(0)
        powers[n] = (whole + np.int32(127)) << np.int32(23)
    for n in range(len(values)):
        values[n] *= scales[n]


@compiled(division="numpy", reorder=True)
def _through_norm(gradients: Floats, units: Floats, norms: Floats, out: Floats) -> None:
    """Gradients by vectors from those by their unit vectors."""
    for n in range(len(units)):
        along = np.float32(0)
        for d in range(units.shape[1]):
            along += gradients[n, d] * units[n, d]
        for d in range(units.shape[1]):
            out[n, d] = (gradients[n, d] - along * units[n, d]) / norms[n]


@compiled(division="numpy", reorder=True)
def _descend(rows: Ints, gradients: Floats, table: Floats, slots: Ints, lr: float, done: int) -> None:
    """A step of lazy Adam for the rows; gradients of a row that occurs twice are added up."""
    for n in range(len(rows)):
        first = slots[rows[n]]
        if first < 0:
            slots[rows[n]] = n
            continue
        for d in range(table.shape[2]):
            gradients[first, d] += gradients[n, d]
    rate = np.float32(lr * np.sqrt(1 - DECAYS[1] ** done) / (1 - DECAYS[0] ** done))
    first_decay, second_decay = np.float32(DECAYS[0]), np.float32(DECAYS[1])
    for n in range(len(rows)):
        row = rows[n]
        if slots[row] != n:
            continue
        for d in range(table.shape[2]):
            gradient = gradients[n, d]
            mean = first_decay * table[1, row, d] + (np.float32(1) - first_decay) * gradient
            square = second_decay * table[2, row, d] + (np.float32(1) - second_decay) * gradient * gradient
            table[1, row, d], table[2, row, d] = mean, square
            table[0, row, d] -= rate * mean / (np.sqrt(square) + np.float32(EPSILON))
    for n in range(len(rows)):
        slots[rows[n]] = -1
