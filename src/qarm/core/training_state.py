"""How far a training has come, in one file without pickle: enough to go on as if nothing had happened."""

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from qarm.core.atomic_io import atomic
from qarm.errors import ArtifactError

__all__ = ["Progress", "moments", "opened", "readable", "restore", "set_moments", "write_progress"]

MOMENTS = ("exp_avg", "exp_avg_sq", "step")


@dataclass(frozen=True)
class Progress:
    """Steps done, the rows of figures so far, and of the epoch under way its losses and hard negatives."""

    step: int
    rows: list[dict[str, Any]]
    losses: list[float]
    strangers: npt.NDArray[np.int64] | None = None


def write_progress(
    path: Path,
    progress: Progress,
    parameters: Mapping[str, nn.Parameter],
    optimizer: torch.optim.Optimizer,
    *,
    key: str,
) -> None:
    """Write weights, optimizer state and figures; the file is whole or as it was.

    Args:
        key: hash of everything that the training depends on.
    """
    tensors: dict[str, Tensor] = {}
    for name, parameter in parameters.items():
        tensors[f"weights/{name}"] = parameter.detach()
    tensors |= moments(optimizer, parameters)
    if progress.strangers is not None:
        tensors["strangers"] = torch.from_numpy(progress.strangers)
    about = {"step": progress.step, "rows": progress.rows, "losses": progress.losses}
    metadata = {"key": key, "progress": json.dumps(about)}
    with atomic(path) as temporary:
        save_file({n: t.cpu().contiguous() for n, t in tensors.items()}, temporary, metadata=metadata)


@torch.no_grad()
def restore(
    path: Path, parameters: Mapping[str, nn.Parameter], optimizer: torch.optim.Optimizer, *, key: str
) -> Progress | None:
    """Set weights and optimizer to what was written under the same key; None where there is no such file.

    Raises:
        ArtifactError: the file is damaged.
    """
    with readable(path):
        tensors, metadata = opened(path, key=key)
        if metadata is None:
            return None
        for name, parameter in parameters.items():
            parameter.copy_(tensors[f"weights/{name}"])
        set_moments(optimizer, parameters, tensors)
        near = tensors["strangers"].numpy() if "strangers" in tensors else None
        return Progress(**json.loads(metadata["progress"]), strangers=near)


def opened(path: Path, *, key: str) -> tuple[dict[str, Tensor], dict[str, str] | None]:
    """Tensors and metadata of a file that was written under this key; nothing and None without one."""
    if not path.is_file():
        return {}, None
    with safe_open(path, framework="pt") as file:
        metadata = file.metadata() or {}
        if metadata.get("key") != key:
            return {}, None
        return {name: file.get_tensor(name) for name in file.keys()}, metadata  # noqa: SIM118 - no mapping


@contextmanager
def readable(path: Path) -> Iterator[None]:
    """What goes wrong while the file is read is its damage."""
    try:
        yield
    except (OSError, SafetensorError, ValueError, KeyError) as error:
        raise ArtifactError(f"{path}: not readable ({error}); delete it to start the training anew") from None


def moments(optimizer: torch.optim.Optimizer, parameters: Mapping[str, nn.Parameter]) -> dict[str, Tensor]:
    """What AdamW keeps of each parameter, as `exp_avg/<name>` and so on."""
    return {
        f"{moment}/{name}": optimizer.state[parameter][moment]
        for name, parameter in parameters.items()
        for moment in MOMENTS
        if moment in optimizer.state.get(parameter, {})
    }


def set_moments(
    optimizer: torch.optim.Optimizer, parameters: Mapping[str, nn.Parameter], tensors: Mapping[str, Tensor]
) -> None:
    """Give AdamW what `moments` took from it."""
    for name, parameter in parameters.items():
        state = {m: tensors[f"{m}/{name}"] for m in MOMENTS if f"{m}/{name}" in tensors}
        if state:
            optimizer.state[parameter] = {
                m: tensor if m == "step" else tensor.to(parameter.device) for m, tensor in state.items()
            }
