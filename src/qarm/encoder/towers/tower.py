"""Tower protocol: what every pretrained encoder of one modality offers; running several side by side."""

import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Protocol, TypeVar

import numpy as np
import numpy.typing as npt
import torch

__all__ = ["Learnable", "Tower", "default_device", "reads", "reads_parts", "side_by_side", "tensors_digest"]

Given = TypeVar("Given")
Made = TypeVar("Made")


class Tower(Protocol):
    """A frozen encoder of one modality: content in, a fixed feature out.

    An item's feature must not depend on the items that are encoded beside it.
    """

    @property
    def name(self) -> str:
        """What a config calls it."""

    @property
    def fingerprint(self) -> str:
        """Changes whenever the features would: weights, settings and preprocessing."""

    def load(self, content: Any) -> Any:
        """Decode one item's content (str for text, else a file's bytes); is called from threads.

        Raises:
            InputError: the content cannot be decoded.
        """

    def encode(self, inputs: Sequence[Any]) -> npt.NDArray[np.floating[Any]]:
        """Features of loaded inputs, float16 or float32 [n, ...]."""

    def save(self, folder: Path) -> None:
        """Write everything the tower needs, without pickle, to a folder that does not exist yet."""


class Learnable(Tower, Protocol):
    """A tower whose weights can learn; `Learnable.fresh` is what is tuned, the tower itself stays frozen."""

    @property
    def network(self) -> torch.nn.Module:
        """What learns."""

    @property
    def adaptable(self) -> torch.nn.Module | None:
        """The transformer in it that LoRA is put into; None where there is none."""

    def fresh(self) -> "Learnable":
        """The same tower with weights of its own."""

    def collate(self, inputs: Sequence[Any]) -> Any:
        """Loaded inputs as one batch, on the host; is called from threads."""

    def vectors(self, batch: Any) -> torch.Tensor:
        """Features of a collated batch, float [n, ...], with their gradient."""

    def learned(self) -> "Learnable":
        """A frozen tower with the weights as they are now."""


def reads(name: str, tower: Tower) -> tuple[str, ...]:
    """The modalities that a tower of that name reads: its own word for it, else its name without a number."""
    found: tuple[str, ...] = getattr(tower, "modalities", (name.rstrip("0123456789"),))
    return found


def reads_parts(name: str, tower: Tower) -> bool:
    """Whether a tower takes an item's parts by modality, and not the content of its only one."""
    return hasattr(tower, "modalities") and reads(name, tower) != (name,)


def default_device() -> str:
    """Name of the device for the towers: `cuda` where there is a GPU, else `cpu`."""
    return "cuda" if torch.cuda.is_available() else "cpu"


def side_by_side(function: Callable[[Given], Made], inputs: Iterable[Given]) -> list[Made]:
    """`[function(x) for x in inputs]` with one torch thread for each input, as many as torch has.

    Small models gain more from this than from threads inside an operator, which also spin against
    any other process; and a result does not depend on the number of threads.
    """
    threads = torch.get_num_threads()
    with ThreadPoolExecutor(threads, initializer=torch.set_num_threads, initargs=(1,)) as pool:
        try:
            return list(pool.map(function, inputs))
        finally:
            torch.set_num_threads(threads)  # new threads take over what was set last, wherever it was


def tensors_digest(tensors: Mapping[str, torch.Tensor]) -> str:
    """SHA-256 over the names, types, shapes and values of tensors, in the order of their names."""
    found = hashlib.sha256()
    for name, tensor in sorted(tensors.items()):
        values = tensor.detach().cpu().contiguous().numpy()
        found.update(f"{name} {values.dtype} {values.shape}\n".encode())
        found.update(values.tobytes())
    return found.hexdigest()
