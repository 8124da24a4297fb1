"""Two-tower id model: a vector per user and per item, trained by softmax over the batch."""

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

from qarm.config import User2ItemConfig

__all__ = ["two_tower"]


def two_tower(
    users: npt.NDArray[np.integer], items: npt.NDArray[np.int32], settings: User2ItemConfig, *, seed: int
) -> npt.NDArray[np.float32]:
    """Item vectors of an id model with a tower for users and one for items, float32 [items, dim].

    Softmax over the batch with the items' log frequencies subtracted from the logits (Yi et al. 2019,
    "Sampling-Bias-Corrected Neural Modeling for Large Corpus Item Recommendations"), unit vectors, lazy
    Adam; an item that occurs twice in a batch is no negative of itself. On the CPU: the steps are small;
    on one thread, so that the same seed gives the same bytes on any number of cores.
    """
    with _one_thread():
        return _item_vectors(users, items, settings, seed)


@contextmanager
def _one_thread() -> Iterator[None]:
    """One thread of torch inside; more gain nothing for small steps, and lose much on a busy machine."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


class _Towers(nn.Module):
    """Vectors of users and of items; rows outside a batch cost nothing in its step."""

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
    users: npt.NDArray[np.integer], items: npt.NDArray[np.int32], settings: User2ItemConfig, seed: int
) -> npt.NDArray[np.float32]:
    towers = _Towers(int(users[-1]) + 1, int(items.max()) + 1, settings.dim, seed)
    users_n, items_n = torch.from_numpy(users.astype(np.int64)), torch.from_numpy(items.astype(np.int64))
    shares = torch.bincount(items_n).double() / len(items_n)
    bias = shares.log().float()
    optimizer: torch.optim.Optimizer = torch.optim.SparseAdam(towers.parameters(), lr=settings.lr)
    generator = torch.Generator().manual_seed(seed)
    steps = min(settings.max_steps, settings.epochs * math.ceil(len(items_n) / settings.batch))
    batches = (
        rows
        for _ in range(settings.epochs)
        for rows in torch.split(torch.randperm(len(items_n), generator=generator), settings.batch)
    )
    for rows in tqdm(islice(batches, steps), desc="user2item", total=steps, disable=None):
        targets = items_n[rows]
        logits = towers(users_n[rows], targets) / settings.temperature - bias[targets]
        repeated = (targets[:, None] == targets).fill_diagonal_(False)
        loss = functional.cross_entropy(logits.masked_fill(repeated, -torch.inf), torch.arange(len(rows)))
        optimizer.zero_grad()
        torch.autograd.backward(loss)
        optimizer.step()
    vectors: npt.NDArray[np.float32] = towers.item.weight.detach().numpy()
    return vectors
