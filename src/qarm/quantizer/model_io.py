"""Quantiser files: config.json and model.safetensors, bound together by a hash, no pickle."""

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from safetensors import SafetensorError
from safetensors.numpy import load, save

from qarm.core.atomic_io import atomic, read_json, sha256_file, write_json
from qarm.core.run_folder import verify
from qarm.errors import ArtifactError, InputError

__all__ = ["complete", "numbered", "numbered_tensors", "read_model", "tensor", "write_model"]

FloatRows = npt.NDArray[np.float32]
CONFIG, MODEL = "config.json", "model.safetensors"


def write_model(
    folder: Path, config: Mapping[str, Any], tensors: Mapping[str, npt.NDArray[Any]], *, kind: str
) -> None:
    """Write the two files; the config also holds the kind and the SHA-256 of the tensors."""
    ordered = {name: np.ascontiguousarray(tensors[name]) for name in sorted(tensors)}
    with atomic(folder / MODEL) as temporary:
        temporary.write_bytes(save(ordered))
    write_json(folder / CONFIG, {**config, "kind": kind, "sha256": sha256_file(folder / MODEL)})


def read_model(folder: Path, *, kind: str) -> tuple[dict[str, Any], dict[str, npt.NDArray[Any]]]:
    """Config and tensors as they were written.

    Raises:
        InputError: the folder holds another kind of quantiser, or none.
        ArtifactError: a file is missing, truncated or was changed.
    """
    if not (folder / CONFIG).is_file():
        raise InputError(f"{folder}: no {CONFIG}; give a folder that save_pretrained wrote")
    verify(folder)
    config = read_json(folder / CONFIG)
    found = config.get("kind") if isinstance(config, dict) else None
    if found != kind:
        raise InputError(f"{folder}: holds {found}, need {kind}; use its own from_pretrained")
    if not (folder / MODEL).is_file():
        raise ArtifactError(f"{folder / MODEL} is missing; save the quantiser again")
    if sha256_file(folder / MODEL) != config.get("sha256"):
        raise ArtifactError(
            f"{folder / MODEL} is not the file that {CONFIG} names: truncated or changed; save it again"
        )
    try:
        return config, load((folder / MODEL).read_bytes())
    except (SafetensorError, json.JSONDecodeError) as error:
        raise ArtifactError(f"{folder / MODEL}: not readable as safetensors: {error}") from error


def tensor(
    tensors: Mapping[str, npt.NDArray[Any]], name: str, shape: tuple[int, ...], *, folder: Path
) -> npt.NDArray[np.float32]:
    """The named float32 tensor, checked to be of that shape and finite.

    Raises:
        ArtifactError: it is missing, of another shape or type, or holds NaN or infinity.
    """
    values = tensors.get(name)
    if values is None:
        raise ArtifactError(f"{folder / MODEL}: no tensor {name!r}; save the quantiser again")
    if values.shape != shape or values.dtype != np.float32:
        raise ArtifactError(
            f"{folder / MODEL}: {name} is {values.dtype} {list(values.shape)}, need float32 {list(shape)}"
        )
    if not np.isfinite(values).all():
        raise ArtifactError(f"{folder / MODEL}: {name} holds NaN or infinity; save the quantiser again")
    return np.asarray(values, dtype=np.float32)


@contextmanager
def complete(folder: Path) -> Iterator[None]:
    """A block that reads a config; a missing or wrong entry is a damaged file.

    Raises:
        ArtifactError: an entry is missing or of another type.
    """
    try:
        yield
    except (KeyError, TypeError, ValueError) as error:
        raise ArtifactError(f"{folder}: {CONFIG} lacks {error}; save the quantiser again") from error


def numbered(name: str, arrays: Sequence[FloatRows]) -> dict[str, FloatRows]:
    """Tensors `name_0`, `name_1`, ... of arrays in order."""
    return {f"{name}_{place}": array for place, array in enumerate(arrays)}


def numbered_tensors(
    tensors: Mapping[str, npt.NDArray[Any]], name: str, shapes: Sequence[tuple[int, ...]], *, folder: Path
) -> list[FloatRows]:
    """What `numbered` named, each checked as by `tensor`."""
    return [tensor(tensors, f"{name}_{n}", shape, folder=folder) for n, shape in enumerate(shapes)]
