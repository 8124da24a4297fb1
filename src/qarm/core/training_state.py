"""Training state in one file without pickle: weights, optimizer and random states, figures so far."""

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
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
from qarm.schemas.encoder import AlignStep
from qarm.schemas.results import Epoch

__all__ = [
    "RANKER_FILE",
    "AlignmentState",
    "RankerState",
    "fingerprint",
    "moments",
    "opened",
    "readable",
    "restore_alignment_state",
    "restore_ranker_state",
    "set_moments",
    "write_alignment_state",
    "write_ranker_state",
]

MOMENTS = ("exp_avg", "exp_avg_sq", "step")


@dataclass(frozen=True)
class AlignmentState:
    """State of an alignment: steps done, figures so far, losses and hard negatives of the epoch under way."""

    step: int
    rows: list[AlignStep]
    losses: list[float]
    hard_negatives: npt.NDArray[np.int64] | None = None


def write_alignment_state(
    path: Path,
    progress: AlignmentState,
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
    if progress.hard_negatives is not None:
        tensors["strangers"] = torch.from_numpy(progress.hard_negatives)
    rows = [row.content() for row in progress.rows]
    about = {"step": progress.step, "rows": rows, "losses": progress.losses}
    metadata = {"key": key, "progress": json.dumps(about)}
    with atomic(path) as temporary:
        save_file({n: t.cpu().contiguous() for n, t in tensors.items()}, temporary, metadata=metadata)


@torch.no_grad()
def restore_alignment_state(
    path: Path, parameters: Mapping[str, nn.Parameter], optimizer: torch.optim.Optimizer, *, key: str
) -> AlignmentState | None:
    """State that was written under the same key, with weights and optimizer set to it; None without one.

    Raises:
        ArtifactError: the file is damaged.
    """
    with readable(path):
        tensors, metadata = _restored(path, parameters, optimizer, key=key, prefix="weights")
        if metadata is None:
            return None
        near = tensors["strangers"].numpy() if "strangers" in tensors else None
        about = json.loads(metadata["progress"])
        rows = [AlignStep.model_validate(row) for row in about["rows"]]
        return AlignmentState(about["step"], rows, about["losses"], hard_negatives=near)


def opened(path: Path, *, key: str) -> tuple[dict[str, Tensor], dict[str, str] | None]:
    """Tensors and metadata of a file that was written under this key; nothing and None without one."""
    if not path.is_file():
        return {}, None
    with safe_open(path, framework="pt") as file:
        metadata = file.metadata() or {}
        if metadata.get("key") != key:
            return {}, None
        return {name: file.get_tensor(name) for name in file.keys()}, metadata  # noqa: SIM118 - no mapping


def _restored(
    path: Path,
    parameters: Mapping[str, nn.Parameter],
    optimizer: torch.optim.Optimizer,
    *,
    key: str,
    prefix: str,
) -> tuple[dict[str, Tensor], dict[str, str] | None]:
    """As `opened`, after the weights, named `<prefix>/<parameter>`, and the optimizer were set."""
    tensors, metadata = opened(path, key=key)
    if metadata is not None:
        for name, parameter in parameters.items():
            parameter.copy_(tensors[f"{prefix}/{name}"])
        set_moments(optimizer, parameters, tensors)
    return tensors, metadata


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


RANKER_FILE = "progress.safetensors"
RANDOM, RANDOM_GPU = "random/cpu", "random/cuda"

Weights = dict[str, Tensor]


@dataclass
class RankerState:
    """State of a ranker's training between two epochs: epochs and steps done, the best epoch and its AUC.

    mean: running mean of the weights; kept: that of the best epoch; both by parameter name; lines: figures
    of each epoch.
    """

    mean: Weights
    kept: Weights
    epoch: int = 0
    step: int = 0
    best: int = -1
    top: float = -1.0
    lines: list[Epoch] = field(default_factory=list)


def fingerprint(parts: Iterable[npt.NDArray[Any] | None]) -> str:
    """SHA-256 of arrays: their types, shapes and bytes, in order."""
    checksum = hashlib.sha256()
    for part in parts:
        checksum.update(b"none" if part is None else f"{part.dtype.str}{part.shape}".encode())
        if part is not None:
            checksum.update(np.ascontiguousarray(part).data)
    return checksum.hexdigest()


def write_ranker_state(
    path: Path,
    state: RankerState,
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
    counts["lines"] = [line.content() for line in state.lines]
    metadata = {"key": key, "state": json.dumps(counts), "random": json.dumps(random.bit_generator.state)}
    with atomic(path) as temporary:
        save_file({n: t.cpu().contiguous() for n, t in tensors.items()}, temporary, metadata=metadata)


@torch.no_grad()
def restore_ranker_state(
    path: Path,
    parameters: Mapping[str, nn.Parameter],
    optimizer: torch.optim.Optimizer,
    random: np.random.Generator,
    *,
    key: str,
) -> RankerState | None:
    """State that was written under the same key, with weights, optimizer and random states set; None without.

    Raises:
        ArtifactError: the file is damaged.
    """
    with readable(path):
        tensors, metadata = _restored(path, parameters, optimizer, key=key, prefix="live")
        if metadata is None:
            return None
        torch.set_rng_state(tensors[RANDOM])
        if RANDOM_GPU in tensors and torch.cuda.is_available():
            torch.cuda.set_rng_state(tensors[RANDOM_GPU])
        random.bit_generator.state = json.loads(metadata["random"])
        mean, kept = (
            {name: tensors[f"{kind}/{name}"].to(there.device) for name, there in parameters.items()}
            for kind in ("mean", "kept")
        )
        counts = json.loads(metadata["state"])
        lines = [Epoch.model_validate(line) for line in counts.pop("lines")]
        return RankerState(mean, kept, lines=lines, **counts)
