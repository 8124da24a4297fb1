"""User2Item: an id model of users and items, and the past item it holds nearest to each click."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import numpy as np
import numpy.typing as npt
import polars as pl
import torch
from torch import Tensor, nn
from torch.nn import functional
from tqdm import tqdm

from qarm.behavior.log import Log
from qarm.behavior.triggers import NONE, similar_triggers
from qarm.errors import Problems

__all__ = ["user2item"]


def user2item(
    log: Log,
    *,
    window: int = 50,
    dim: int = 64,
    epochs: int = 10,
    batch: int = 1024,
    lr: float = 0.01,
    temperature: float = 0.2,
    seed: int = 0,
) -> pl.DataFrame:
    """One (trigger, target) row for every positive click that has a past.

    Two tables of vectors, one row per user and per item, are trained so that a user is nearer to what
    she clicked than to what others in the batch clicked. The trigger of a click is then the item whose
    vector is nearest, by cosine, among the user's latest `window` distinct other items clicked strictly
    before it; `similar_triggers` says how ties and repetitions count. A user's first click, and those of
    the same moment, have no past and no row.

    Training: softmax over the batch with the items' log frequencies subtracted from the logits (Yi et al.
    2019, "Sampling-Bias-Corrected Neural Modeling for Large Corpus Item Recommendations"), unit vectors,
    lazy Adam; an item that stands twice in a batch is no negative of itself. On the CPU: the steps are
    small; on one thread, so that the same seed gives the same bytes on any number of cores.

    Args:
        log: events; only positives count.
        window: past items that compete.
        dim: numbers per vector.
        epochs: passes over the clicks.
        batch: clicks per step, each other's negatives.
        lr: step size of Adam.
        temperature: divides the cosines before the softmax.
        seed: of the first vectors and of the order of clicks.

    Returns:
        user_id str, trigger_id str, target_id str, score f32 (cosine), in the order of the log.

    Raises:
        InputError: an argument is out of range, or the log has no positive event.
    """
    numbers = {"window": window, "dim": dim, "epochs": epochs, "batch": batch}
    clicks = log.positives().frame
    _check(clicks, numbers, {"lr": lr, "temperature": temperature})
    item_ids = clicks["item_id"].unique().sort()
    users = clicks["user_id"].rle_id().to_numpy()
    items = clicks["item_id"].cast(pl.Enum(item_ids)).to_physical().to_numpy().astype(np.int32)
    with _one_thread():
        vectors = _item_vectors(users, items, dim, epochs, batch, lr, temperature, seed)
    starts, times = np.concatenate(([0], np.cumsum(np.bincount(users)))), clicks["time"].to_numpy()
    triggers, scores = similar_triggers(vectors, items, starts=starts, times=times, window=window)
    kept = np.flatnonzero(triggers != NONE)
    columns = {
        "user_id": clicks["user_id"].gather(kept),
        "trigger_id": item_ids.gather(triggers[kept]),
        "target_id": clicks["item_id"].gather(kept),
        "score": scores[kept],
    }
    return pl.DataFrame(columns)


def _check(clicks: pl.DataFrame, counts: Mapping[str, int], sizes: Mapping[str, float]) -> None:
    problems = Problems()
    if not clicks.height:
        problems.add("the log has no positive event; check the label column")
    for name, count in counts.items():
        if count < 1:
            problems.add(f"got {name}={count}, need at least 1")
    for name, size in sizes.items():
        if not size > 0.0:
            problems.add(f"got {name}={size:g}, need more than 0")
    problems.raise_any()


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
    seed: int,
) -> npt.NDArray[np.float32]:
    """Train both towers on the clicks; returns the item vectors, [items, dim]."""
    towers = _Towers(int(users[-1]) + 1, int(items.max()) + 1, dim, seed)
    users_n, items_n = torch.from_numpy(users.astype(np.int64)), torch.from_numpy(items.astype(np.int64))
    shares = torch.bincount(items_n).double() / len(items_n)
    bias = shares.log().float()
    optimizer: torch.optim.Optimizer = torch.optim.SparseAdam(towers.parameters(), lr=lr)
    generator = torch.Generator().manual_seed(seed)
    for _ in tqdm(range(epochs), desc="user2item", disable=None):
        for rows in torch.split(torch.randperm(len(items_n), generator=generator), batch):
            targets = items_n[rows]
            logits = towers(users_n[rows], targets) / temperature - bias[targets]
            repeated = (targets[:, None] == targets).fill_diagonal_(False)
            loss = functional.cross_entropy(logits.masked_fill(repeated, -torch.inf), torch.arange(len(rows)))
            optimizer.zero_grad()
            torch.autograd.backward(loss)
            optimizer.step()
    vectors: npt.NDArray[np.float32] = towers.item.weight.detach().numpy()
    return vectors
