"""The kernel of the two-tower model against torch: autograd, cross-entropy and sparse Adam."""

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from qarm.config import User2ItemConfig
from qarm.pairs.two_tower import _exponentiate, _table, _train, two_tower

USERS, ITEMS, DIM, CLICKS = 30, 12, 6, 110


def by_torch(
    tables: list[np.ndarray], pairs: np.ndarray, bias: np.ndarray, sizes: tuple[int, int], sharpness: float
) -> list[np.ndarray]:
    """Vectors after one pass, each group's softmax over its own clicks, losses averaged over the step."""
    towers = [
        nn.Embedding.from_pretrained(torch.from_numpy(table[0].copy()), freeze=False, sparse=True)
        for table in tables
    ]
    optimizer = torch.optim.SparseAdam([tower.weight for tower in towers], lr=0.03)
    for step in torch.from_numpy(pairs).split(sizes[0]):
        losses = []
        for group in step.split(sizes[1]):
            queries, targets = (
                functional.normalize(tower(group[:, side]), dim=1) for side, tower in enumerate(towers)
            )
            items = group[:, 1]
            logits = queries @ targets.T * sharpness - torch.from_numpy(bias)[items]
            repeated = (items[:, None] == items).fill_diagonal_(False)
            logits = logits.masked_fill(repeated, -torch.inf)
            losses.append(functional.cross_entropy(logits, torch.arange(len(group)), reduction="sum"))
        optimizer.zero_grad()
        torch.autograd.backward(torch.stack(losses).sum() / len(step))
        optimizer.step()
    return [tower.weight.detach().numpy() for tower in towers]


@pytest.mark.parametrize("sizes", [(40, 40), (40, 16), (200, 7)])
def test_steps_are_torchs(sizes: tuple[int, int]) -> None:
    random = np.random.default_rng(3)
    pairs = np.stack([random.integers(0, USERS, CLICKS), random.integers(0, ITEMS, CLICKS) ** 2 // ITEMS], 1)
    tables = [_table(random, rows, DIM) for rows in (USERS, ITEMS)]
    bias = np.log((1 + np.bincount(pairs[:, 1], minlength=ITEMS)) / CLICKS).astype(np.float32)
    expected = by_torch(tables, pairs, bias, sizes, 5.0)
    before = [table[0].copy() for table in tables]
    _train(pairs, *tables, bias, sizes, 5.0, 0.03, 0)
    for table, vectors, start in zip(tables, expected, before, strict=True):
        assert np.abs(vectors - start).max() > 0.02
        assert np.abs(table[0] - vectors).max() < 1e-4
    untouched = np.setdiff1d(np.arange(USERS), pairs[:, 0])
    assert (tables[0][0][untouched] == before[0][untouched]).all()


def test_calls_that_share_a_pass_are_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """The moments and the number of steps go on from call to call."""
    random = np.random.default_rng(1)
    users, items = (
        np.sort(random.integers(0, USERS, CLICKS)),
        random.integers(0, ITEMS, CLICKS, dtype=np.int32),
    )
    settings = User2ItemConfig(dim=DIM, batch=16, epochs=3)
    whole = two_tower(users, items, settings, seed=2)
    monkeypatch.setattr("qarm.pairs.two_tower.ROUND", 1)
    assert two_tower(users, items, settings, seed=2).tobytes() == whole.tobytes()
    few = settings.model_copy(update={"max_steps": 5})
    assert two_tower(users, items, few, seed=2).tobytes() != whole.tobytes()


def test_the_exponential_of_many_numbers() -> None:
    values = np.concatenate([[0.0, -0.3465, -0.3466, -87.0, -88.0, -1e4], -np.geomspace(1e-6, 87, 500)])
    found = values.astype(np.float32)
    _exponentiate(found, np.empty(len(found), dtype=np.int32))
    whole = values >= -87
    assert np.abs(found[whole] / np.exp(values[whole].astype(np.float32).astype(np.float64)) - 1).max() < 1e-5
    assert found[0] == 1
    assert (found[~whole] < 1e-37).all()
