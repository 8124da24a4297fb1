"""The processes of torchrun: joining them, and adding up what each has computed."""

import atexit
import os
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import timedelta

import torch
import torch.distributed as dist
from torch import Tensor

__all__ = ["PATIENCE", "World", "join", "world"]

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
    if int(os.environ.get("WORLD_SIZE", "1")) == 1 or "RANK" not in os.environ:
        return False
    dist.init_process_group(backend, timeout=PATIENCE)
    atexit.register(_end)  # not before: a second group would find the addresses of the first
    return True


def _end() -> None:
    if dist.is_initialized():
        dist.destroy_process_group()


@dataclass(frozen=True)
class World:
    """This process's place: rank of size."""

    rank: int = 0
    size: int = 1

    def share(self, count: int) -> range:
        """Which of `count` pieces of work are this process's: every `size`-th."""
        return range(self.rank, count, self.size)

    def add_up(self, tensor: Tensor) -> Tensor:
        """The sum over all processes, in place."""
        if self.size > 1:
            dist.all_reduce(tensor)
        return tensor

    def largest(self, value: float) -> float:
        """The largest value that any process has."""
        if self.size == 1:
            return value
        held = torch.tensor([value], dtype=torch.float64)
        dist.all_reduce(held, op=dist.ReduceOp.MAX)
        return float(held.item())

    def add_up_gradients(self, parameters: Iterable[torch.nn.Parameter]) -> None:
        """Make each gradient the sum over all processes; a process without one brings zeros."""
        if self.size == 1:
            return
        own = list(parameters)
        flat = torch.cat([(torch.zeros_like(p) if p.grad is None else p.grad).flatten() for p in own])
        dist.all_reduce(flat)
        for parameter, part in zip(own, torch.split(flat, [p.numel() for p in own]), strict=True):
            parameter.grad = part.view_as(parameter).clone()

    def wait(self) -> None:
        """Until all processes are here."""
        if self.size > 1:
            dist.barrier()


def world(device: str = "cpu") -> World:
    """Where this process stands among torchrun's, over NCCL on GPUs and gloo elsewhere."""
    if device == "cuda" and "LOCAL_RANK" in os.environ:
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    if not join("nccl" if device == "cuda" else "gloo"):
        return World()
    return World(dist.get_rank(), dist.get_world_size())
