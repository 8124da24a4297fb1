"""Processes of torchrun: joining them, sharing out work, and adding up what each has computed.

What k-means sums over processes is integers, so one, two and three processes give the same bytes.
"""

import atexit
import os
import reprlib
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import torch.distributed as dist
from torch import Tensor

from qarm.core.parallel.ranks import launched
from qarm.errors import InputError, shown

__all__ = ["PATIENCE", "Processes", "alone", "current", "join", "processes", "sharded"]

PATIENCE = timedelta(minutes=30)


def join(backend: str = "gloo") -> bool:
    """Join torchrun's processes; False where this one is alone.

    An initialised process group is used as it is; else one is made from torchrun's variables and kept until
    the process ends. All processes have to come here.
    """
    if not dist.is_available():
        return False
    if dist.is_initialized():
        return True
    if not launched():
        return False
    dist.init_process_group(backend, timeout=PATIENCE)
    atexit.register(_end)  # not before: a second group would find the addresses of the first
    return True


def _end() -> None:
    if dist.is_initialized():
        dist.destroy_process_group()


@dataclass(frozen=True)
class Processes:
    """This process among those that work together: its rank, their number, and their group."""

    rank: int = 0
    size: int = 1
    group: Any = None

    def share(self, count: int) -> range:
        """Numbers of this process's pieces of `count` pieces of work: every `size`-th."""
        return range(self.rank, count, self.size)

    def stretch(self, n: int, *, rank: int | None = None) -> tuple[int, int]:
        """First and last + 1 of this process's rows of n."""
        who = self.rank if rank is None else rank
        return n * who // self.size, n * (who + 1) // self.size

    def add_up(self, tensor: Tensor) -> Tensor:
        """The sum over all processes, in place."""
        if self.size > 1:
            dist.all_reduce(tensor, group=self.group)
        return tensor

    def add_up_arrays(self, *sums: npt.NDArray[np.int64]) -> None:
        """Make each array the sum over all processes, in place."""
        for values in sums:
            self.add_up(torch.from_numpy(values))

    def add_up_gradients(self, parameters: Iterable[torch.nn.Parameter]) -> None:
        """Make each gradient the sum over all processes; a process without one brings zeros."""
        if self.size == 1:
            return
        trained = list(parameters)
        flat = torch.cat([(torch.zeros_like(p) if p.grad is None else p.grad).flatten() for p in trained])
        dist.all_reduce(flat, group=self.group)
        for parameter, part in zip(trained, torch.split(flat, [p.numel() for p in trained]), strict=True):
            parameter.grad = part.view_as(parameter).clone()

    def largest(self, value: float) -> float:
        """The largest value that any process has."""
        if self.size == 1:
            return value
        held = torch.tensor([value], dtype=torch.float64)
        dist.all_reduce(held, op=dist.ReduceOp.MAX, group=self.group)
        return float(held.item())

    def fill(self, values: npt.NDArray[Any]) -> None:
        """Fill an array [n], of which each process knows its stretch, in place."""
        if self.size == 1:
            return
        for rank in range(self.size):
            start, stop = self.stretch(len(values), rank=rank)
            part = torch.from_numpy(np.ascontiguousarray(values[start:stop]))
            dist.broadcast(part, group_src=rank, group=self.group)
            values[start:stop] = part.numpy()

    def agree(self, what: str, values: Mapping[str, object]) -> None:
        """Refuse to go on where processes were given different values, which would hang or mix them up.

        Args:
            what: the values' name in the message.
            values: by name, maps within maps named with a point; those that differ are reported.

        Raises:
            InputError: on every process.
        """
        if self.size == 1:
            return
        everybody: list[Any] = [None] * self.size
        dist.all_gather_object(everybody, dict(_flat(values)), group=self.group)
        problems = []
        for name in sorted(set().union(*everybody)):
            found = [held.get(name) for held in everybody]
            other = next((rank for rank, value in enumerate(found) if value != found[0]), None)
            if other is not None:
                here, there = reprlib.repr(found[0]), reprlib.repr(found[other])
                problems.append(f"{name} is {here} on rank 0 and {there} on rank {other}")
        if problems:
            raise InputError(
                f"processes disagree on {what}: {shown(problems)}; give all of them the same, and start again"
            )

    def wait(self) -> None:
        """Wait until all processes are here."""
        if self.size > 1:
            dist.barrier(group=self.group)


def _flat(values: Mapping[str, object], prefix: str = "") -> Iterator[tuple[str, object]]:
    for name, value in values.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


def processes(device: str = "cpu") -> Processes:
    """This process among torchrun's, over NCCL on GPUs and gloo elsewhere."""
    if device == "cuda" and "LOCAL_RANK" in os.environ:
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    if not join("nccl" if device == "cuda" else "gloo"):
        return Processes()
    return Processes(dist.get_rank(), dist.get_world_size())


# ---- one fit divided among processes -----------------------------------------------------------

_ALONE = Processes()
_current = [_ALONE]


def current() -> Processes:
    """The processes that share what is being fitted."""
    return _current[-1]


@contextmanager
def alone() -> Iterator[None]:
    """A block that every process does in full, for small things."""
    _current.append(_ALONE)
    try:
        yield
    finally:
        _current.pop()


@contextmanager
def sharded() -> Iterator[Processes]:
    """A block that is divided among torchrun's processes, over gloo; alone where there are none.

    All processes have to come here.
    """
    if len(_current) > 1:
        yield current()
        return
    if not join():
        yield _ALONE
        return
    group = dist.new_group(backend="gloo", timeout=PATIENCE)
    _current.append(Processes(dist.get_rank(), dist.get_world_size(), group))
    try:
        yield current()
    finally:
        _current.pop()
        dist.destroy_process_group(group)
