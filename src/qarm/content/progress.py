"""How far a training has come, in one file without pickle: enough to go on as if nothing had happened."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from qarm.artifacts import atomic
from qarm.errors import ArtifactError

__all__ = ["Progress", "restore", "write_progress"]

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
        for moment in MOMENTS:
            if moment in optimizer.state.get(parameter, {}):
                tensors[f"{moment}/{name}"] = optimizer.state[parameter][moment]
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
    if not path.is_file():
        return None
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            if metadata.get("key") != key:
                return None
            names = set(file.keys())
            for name, parameter in parameters.items():
                parameter.copy_(file.get_tensor(f"weights/{name}"))
                there = [m for m in MOMENTS if f"{m}/{name}" in names]
                if there:
                    state = {m: file.get_tensor(f"{m}/{name}") for m in there}
                    moved = {m: t if m == "step" else t.to(parameter.device) for m, t in state.items()}
                    optimizer.state[parameter] = moved
            near = file.get_tensor("strangers").numpy() if "strangers" in names else None
            return Progress(**json.loads(metadata["progress"]), strangers=near)
    except (OSError, SafetensorError, ValueError) as error:
        raise ArtifactError(f"{path}: not readable ({error}); delete it to start the training anew") from None
