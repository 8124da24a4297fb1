"""The id model: a vector per user and per item, near where the user clicked the item."""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import islice

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn import functional
from tqdm import tqdm

__all__ = ["two_tower"]


def two_tower(
    users: npt.NDArray[np.integer],
    items: npt.NDArray[np.int32],
    *,
    dim: int,
    epochs: int,
    batch: int,
    lr: float,
    temperature: float,
    max_steps: int,
    seed: int,
) -> npt.NDArray[np.float32]:
    """Train both towers on the clicks; returns the item vectors, float32 [items, dim].

    Softmax over the batch with the items' log frequencies subtracted from the logits (Yi et al. 2019,
    "Sampling-Bias-Corrected Neural Modeling for Large Corpus Item Recommendations"), unit vectors, lazy
    Adam; an item that stands twice in a batch is no negative of itself. On the CPU: the steps are small;
    on one thread, so that the same seed gives the same bytes on any number of cores.
    """
    with _one_thread():
        return _item_vectors(users, items, dim, epochs, batch, lr, temperature, max_steps, seed)


@contextmanager
def _one_thread() -> Iterator[None]:
    """Torch on one thread, then as before: more gain nothing here, and lose much on a busy machine."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


class _Towers(nn.Module):
    """A vector per user and per item; rows that a batch does not touch cost nothing in its step."""

    def __init__(self, users: int, items: int, dim: int, seed: int) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        self.user, self.item = (
            nn.Embedding(
                rows, dim, sparse=True, _weight=torch.randn(rows, dim, generator=generator) / dim**0.5
            )
            for rows in (users, items)
        )

    def forward(self, users: Tensor, items: Tensor) -> Tensor:
        """Cosines of every user with every item, [users, items]."""
        return functional.normalize(self.user(users), dim=1) @ functional.normalize(self.item(items), dim=1).T


def _item_vectors(
    users: npt.NDArray[np.integer],
    items: npt.NDArray[np.int32],
    dim: int,
    epochs: int,
    batch: int,
    lr: float,
    temperature: float,
    max_steps: int,
    seed: int,
) -> npt.NDArray[np.float32]:
    towers = _Towers(int(users[-1]) + 1, int(items.max()) + 1, dim, seed)
    users_n, items_n = torch.from_numpy(users.astype(np.int64)), torch.from_numpy(items.astype(np.int64))
    shares = torch.bincount(items_n).double() / len(items_n)
    bias = shares.log().float()
    optimizer: torch.optim.Optimizer = torch.optim.SparseAdam(towers.parameters(), lr=lr)
    generator = torch.Generator().manual_seed(seed)
    steps = min(max_steps, epochs * math.ceil(len(items_n) / batch))
    batches = (
        rows
        for _ in range(epochs)
        for rows in torch.split(torch.randperm(len(items_n), generator=generator), batch)
    )
    for rows in tqdm(islice(batches, steps), desc="user2item", total=steps, disable=None):
        targets = items_n[rows]
        logits = towers(users_n[rows], targets) / temperature - bias[targets]
        repeated = (targets[:, None] == targets).fill_diagonal_(False)
        loss = functional.cross_entropy(logits.masked_fill(repeated, -torch.inf), torch.arange(len(rows)))
        optimizer.zero_grad()
        torch.autograd.backward(loss)
        optimizer.step()
    vectors: npt.NDArray[np.float32] = towers.item.weight.detach().numpy()
    return vectors
