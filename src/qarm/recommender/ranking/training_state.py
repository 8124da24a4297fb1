"""How far the training of a ranker has come, in one file: enough to end with the same bytes after a kill."""

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from qarm.core.atomic_io import atomic
from qarm.core.training_state import moments, opened, readable, set_moments

__all__ = ["FILE", "State", "fingerprint", "restore", "write"]

FILE = "progress.safetensors"
RANDOM, RANDOM_GPU = "random/cpu", "random/cuda"

Weights = dict[str, Tensor]


@dataclass
class State:
    """Between two epochs: epochs and steps done, the best epoch and its AUC, figures of each epoch.

    mean: running mean of the weights; kept: that of the best epoch; both by parameter name.
    """

    mean: Weights
    kept: Weights
    epoch: int = 0
    step: int = 0
    best: int = -1
    top: float = -1.0
    lines: list[dict[str, float | int | None]] = field(default_factory=list)


def fingerprint(parts: Iterable[npt.NDArray[Any] | None]) -> str:
    """SHA-256 of arrays: their types, shapes and bytes, in order."""
    found = hashlib.sha256()
    for part in parts:
        found.update(b"none" if part is None else f"{part.dtype.str}{part.shape}".encode())
        if part is not None:
            found.update(np.ascontiguousarray(part).data)
    return found.hexdigest()


def write(
    path: Path,
    state: State,
    parameters: Mapping[str, nn.Parameter],
    optimizer: torch.optim.Optimizer,
    random: np.random.Generator,
    *,
    key: str,
) -> None:
    """Write weights, optimizer and random states; the file is whole or as it was.

    Args:
        key: hash of everything that the training depends on.
    """
    tensors = {f"live/{name}": parameter.detach() for name, parameter in parameters.items()}
    for kind in ("mean", "kept"):
        tensors |= {f"{kind}/{name}": getattr(state, kind)[name] for name in parameters}
    tensors |= moments(optimizer, parameters)
    tensors[RANDOM] = torch.get_rng_state()
    if any(parameter.is_cuda for parameter in parameters.values()):
        tensors[RANDOM_GPU] = torch.cuda.get_rng_state()
    counts = {name: value for name, value in vars(state).items() if name not in ("mean", "kept")}
    metadata = {"key": key, "state": json.dumps(counts), "random": json.dumps(random.bit_generator.state)}
    with atomic(path) as temporary:
        save_file({n: t.cpu().contiguous() for n, t in tensors.items()}, temporary, metadata=metadata)


@torch.no_grad()
def restore(
    path: Path,
    parameters: Mapping[str, nn.Parameter],
    optimizer: torch.optim.Optimizer,
    random: np.random.Generator,
    *,
    key: str,
) -> State | None:
    """Set weights, optimizer and random states to what `write` left under the same key; None without it.

    Raises:
        ArtifactError: the file is damaged.
    """
    with readable(path):
        tensors, metadata = opened(path, key=key)
        if metadata is None:
            return None
        for name, parameter in parameters.items():
            parameter.copy_(tensors[f"live/{name}"])
        set_moments(optimizer, parameters, tensors)
        torch.set_rng_state(tensors[RANDOM])
        if RANDOM_GPU in tensors and torch.cuda.is_available():
            torch.cuda.set_rng_state(tensors[RANDOM_GPU])
        random.bit_generator.state = json.loads(metadata["random"])
        mean, kept = (
            {name: tensors[f"{kind}/{name}"].to(own.device) for name, own in parameters.items()}
            for kind in ("mean", "kept")
        )
        return State(mean, kept, **json.loads(metadata["state"]))
