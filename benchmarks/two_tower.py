"""Speed of User2Item's two-tower model against the same model in torch, interleaved in one run.

`python benchmarks/two_tower.py` takes about a minute. torch trains with the softmax over a whole step, and
over groups as ours does, with `SparseAdam`; all on one thread, steps of 1,024 clicks, 64 numbers per vector.
The median of the rounds' ratios counts. Compilation and tables are apart.
"""

import argparse
import statistics
import time

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from qarm.config import User2ItemConfig
from qarm.pairs.two_tower import GROUP, _table, _train

USERS, ITEMS, CLICKS = 130_000, 50_000, 3_800_000


def clicks(seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Users, sorted, and items of the clicks; popularity falls as rank^-0.7."""
    random = np.random.default_rng(seed)
    edges = np.cumsum(np.arange(1, ITEMS + 1) ** -0.7)
    items = np.searchsorted(edges, random.random(CLICKS) * edges[-1])
    return np.sort(random.integers(0, USERS, CLICKS)), items.astype(np.int32)


class Torch:
    """The model as torch has it: embeddings with sparse gradients, cross-entropy, `SparseAdam`."""

    def __init__(self, users: np.ndarray, items: np.ndarray, settings: User2ItemConfig, group: int) -> None:
        self.pairs = torch.from_numpy(np.stack([users, items.astype(np.int64)], axis=1))
        self.settings, self.group = settings, group
        self.towers = [nn.Embedding(rows, settings.dim, sparse=True) for rows in (USERS, ITEMS)]
        self.optimizer = torch.optim.SparseAdam([tower.weight for tower in self.towers], lr=settings.lr)
        self.bias = (torch.bincount(self.pairs[:, 1], minlength=ITEMS).float() / CLICKS).log()

    def steps(self, count: int) -> None:
        """Steps over random batches of clicks."""
        for _ in range(count):
            self._step()

    def _step(self) -> None:
        batch = self.pairs[torch.randint(len(self.pairs), (self.settings.batch,))]
        users, items = batch.T.reshape(2, -1, self.group)
        queries, targets = (
            functional.normalize(t(r), dim=2) for t, r in zip(self.towers, (users, items), strict=True)
        )
        logits = torch.bmm(queries, targets.transpose(1, 2)) / self.settings.temperature
        repeated = items[:, :, None] == items[:, None]
        repeated.diagonal(dim1=1, dim2=2).fill_(False)
        logits = (logits - self.bias[items][:, None]).masked_fill(repeated, -torch.inf)
        right = torch.arange(self.group).repeat(len(items))
        loss = functional.cross_entropy(logits.reshape(-1, self.group), right)
        self.optimizer.zero_grad()
        torch.autograd.backward(loss)
        self.optimizer.step()


class Ours:
    """The same model by the kernel, from the same kind of batches."""

    def __init__(self, users: np.ndarray, items: np.ndarray, settings: User2ItemConfig) -> None:
        self.random, self.settings, self.done = np.random.default_rng(0), settings, 0
        self.pairs = np.stack([users, items.astype(np.int64)], axis=1)
        self.towers = [_table(self.random, rows, settings.dim) for rows in (USERS, ITEMS)]
        self.bias = np.log(np.bincount(items, minlength=ITEMS) / CLICKS).astype(np.float32)

    def steps(self, count: int) -> None:
        """Steps over random batches of clicks."""
        chosen, sizes = self.settings, (self.settings.batch, GROUP)
        pairs = self.pairs[self.random.integers(0, CLICKS, count * chosen.batch)]
        _train(pairs, *self.towers, self.bias, sizes, 1 / chosen.temperature, chosen.lr, self.done)
        self.done += count


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--rounds", type=int, default=5)
    args = parser.parse_args()
    torch.set_num_threads(1)
    users, items = clicks()
    settings = User2ItemConfig()
    rivals = {f"torch, groups of {n:,}": Torch(users, items, settings, n) for n in (settings.batch, GROUP)}
    models = {**rivals, f"ours, groups of {GROUP}": Ours(users, items, settings)}
    seconds: dict[str, list[float]] = {name: [] for name in models}
    for _ in range(args.rounds + 1):  # the first round compiles
        for name, model in models.items():
            start = time.perf_counter()
            model.steps(args.steps)
            seconds[name].append((time.perf_counter() - start) / args.steps)
    seconds = {name: times[1:] for name, times in seconds.items()}
    *_, own = seconds.values()
    for name, times in seconds.items():
        ratio = statistics.median(other / mine for other, mine in zip(times, own, strict=True))
        print(f"{name:24} {statistics.median(times) * 1e3:7.2f} ms a step, {ratio:5.1f} times ours")


if __name__ == "__main__":
    main()
