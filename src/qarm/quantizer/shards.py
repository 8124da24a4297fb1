"""Rows divided among the processes of torchrun; alone, everything is one process's.

Every process holds, or maps, all rows and works on its own stretch of them. What is summed is integers, so
one, two and three processes come to the same bytes.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import torch.distributed as dist

from qarm.core.parallel.torchrun import PATIENCE, join
from qarm.errors import InputError

__all__ = ["Shard", "alone", "current", "sharded"]


@dataclass(frozen=True)
class Shard:
    """This process's share of the work: rank of world, and the group that adds up."""

    rank: int = 0
    world: int = 1
    group: Any = None

    def stretch(self, n: int, *, rank: int | None = None) -> tuple[int, int]:
        """First and last + 1 of this process's rows."""
        who = self.rank if rank is None else rank
        return n * who // self.world, n * (who + 1) // self.world

    def add_up(self, *sums: npt.NDArray[np.int64]) -> None:
        """Make each array the sum over all processes, in place."""
        if self.world > 1:
            for values in sums:
                dist.all_reduce(torch.from_numpy(values), group=self.group)

    def largest(self, value: float) -> float:
        """The largest value that any process has."""
        if self.world == 1:
            return value
        held = torch.tensor([value], dtype=torch.float64)
        dist.all_reduce(held, op=dist.ReduceOp.MAX, group=self.group)
        return float(held.item())

    def fill(self, values: npt.NDArray[Any]) -> None:
        """Fill an array [n], of which each process knows its own stretch, in place."""
        if self.world == 1:
            return
        for rank in range(self.world):
            start, stop = self.stretch(len(values), rank=rank)
            part = torch.from_numpy(np.ascontiguousarray(values[start:stop]))
            dist.broadcast(part, group_src=rank, group=self.group)
            values[start:stop] = part.numpy()

    def agree(self, what: str, value: object) -> None:
        """Refuse to go on where processes were given different things, which would hang or mix them up.

        Raises:
            InputError: on every process.
        """
        if self.world == 1:
            return
        everybody: list[Any] = [None] * self.world
        dist.all_gather_object(everybody, value, group=self.group)
        if any(other != everybody[0] for other in everybody):
            raise InputError(f"processes disagree on {what}: {everybody}; give all of them the same")


_alone = Shard()
_current = [_alone]


def current() -> Shard:
    """The share of this process in what is being fitted."""
    return _current[-1]


@contextmanager
def alone() -> Iterator[None]:
    """Let every process do all of what follows, for small things."""
    _current.append(_alone)
    try:
        yield
    finally:
        _current.pop()


@contextmanager
def sharded() -> Iterator[Shard]:
    """Divide what follows among the processes of torchrun, over gloo; alone where there are none.

    All processes have to come here.
    """
    if len(_current) > 1:
        yield current()
        return
    if not join():
        yield _alone
        return
    group = dist.new_group(backend="gloo", timeout=PATIENCE)
    _current.append(Shard(dist.get_rank(), dist.get_world_size(), group))
    try:
        yield current()
    finally:
        _current.pop()
        dist.destroy_process_group(group)
