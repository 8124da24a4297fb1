"""Batches: every row once, its own history newest first, and little padding."""

from collections.abc import Callable

import numpy as np
import pytest
import torch

from qarm.recommender.batches import batches
from qarm.recommender.examples import Examples

MakeExamples = Callable[..., Examples]


@pytest.fixture(scope="module")
def ragged(make_examples: MakeExamples) -> Examples:
    """60 events with 1 to 4 candidates and histories of 0 to 9 items."""
    random = np.random.default_rng(0)
    events = []
    for _ in range(60):
        size = random.integers(1, 5)
        labels = [1] + [0] * (size - 1)
        events.append((random.integers(0, 10, size), labels, random.integers(0, 10, random.integers(0, 10))))
    return make_examples(events)


@pytest.mark.parametrize("seed", [None, 0])
@pytest.mark.parametrize("size", [1, 7, 40, 10_000])
def test_every_row_comes_once_with_its_own_history(ragged: Examples, size: int, seed: int | None) -> None:
    random = None if seed is None else np.random.default_rng(seed)
    met = []
    for batch in batches(ragged, size, random=random):
        assert batch.items.dtype == batch.history.dtype == torch.int64
        assert batch.labels.dtype == torch.float32
        for g in range(len(batch.items)):
            rows = batch.rows[g][batch.real[g].numpy()]
            met += rows.tolist()
            assert len(set(ragged.events[rows])) == 1
            assert batch.items[g][batch.real[g]].tolist() == ragged.items[rows].tolist()
            assert batch.labels[g][batch.real[g]].tolist() == ragged.labels[rows].tolist()
            own = ragged.history[ragged.start[rows[0]] : ragged.end[rows[0]]]
            assert batch.history[g][batch.seen[g]].tolist() == own[::-1].tolist()
            assert (batch.seen[g].int().diff() <= 0).all()  # padding only behind
    assert sorted(met) == list(range(len(ragged)))


def test_by_hand(make_examples: MakeExamples) -> None:
    examples = make_examples([([3, 4], [1, 0], [7, 8, 9]), ([5], [1], [])])
    (batch,) = batches(examples, 100)  # shortest history first
    assert batch.items.tolist() == [[5, 5], [3, 4]]
    assert batch.real.tolist() == [[True, False], [True, True]]
    assert batch.history.tolist() == [[0, 0, 0], [9, 8, 7]]
    assert batch.seen.tolist() == [[False] * 3, [True] * 3]
    assert batch.rows[batch.real.numpy()].tolist() == [2, 0, 1]


def test_batches_hold_about_the_asked_rows(make_examples: MakeExamples) -> None:
    examples = make_examples([([1, 2, 3, 4, 5], [1, 0, 0, 0, 0], [6])] * 23)
    assert [len(batch.items) for batch in batches(examples, 20)] == [4, 4, 4, 4, 4, 3]
    assert [len(batch.items) for batch in batches(examples, 3)] == [1] * 23


def test_the_generator_decides_the_order(ragged: Examples) -> None:
    def order(seed: int) -> list[int]:
        found = batches(ragged, 12, random=np.random.default_rng(seed))
        return [row for batch in found for row in batch.rows[batch.real.numpy()].tolist()]

    assert order(0) == order(0)
    assert order(0) != order(1)
    random = np.random.default_rng(0)
    first, second = ([b.rows.tolist() for b in batches(ragged, 12, random=random)] for _ in range(2))
    assert first != second


def test_shuffled_batches_hold_histories_of_like_length(make_examples: MakeExamples) -> None:
    random = np.random.default_rng(0)
    lengths = random.permutation(np.arange(320) % 40)
    examples = make_examples([([1], [1], [2] * int(length)) for length in lengths])
    padded = sum(int((~batch.seen).sum()) for batch in batches(examples, 20, random=random))
    assert padded < 0.1 * lengths.sum()  # in any order it would be about as much as the histories


def test_shuffled_batches_do_not_come_by_length(make_examples: MakeExamples) -> None:
    """Training would otherwise end every round on the longest histories."""
    examples = make_examples([([1], [1], [2] * (n % 16)) for n in range(160)])
    widths = [b.history.shape[1] for b in batches(examples, 10, random=np.random.default_rng(0))]
    assert len(widths) == 16
    assert widths != sorted(widths)


def test_no_rows_no_batches(make_examples: MakeExamples) -> None:
    assert list(batches(make_examples([]), 10)) == []


def test_moving_keeps_everything(ragged: Examples) -> None:
    batch = next(batches(ragged, 12))
    moved = batch.to(torch.device("cpu"))
    for name in ("items", "labels", "real", "history", "seen"):
        assert torch.equal(getattr(moved, name), getattr(batch, name))
    assert moved.rows is batch.rows
