"""Vector tower: vectors that the items come with, made by an encoder elsewhere."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from qarm.core.atomic_io import digest, read_model, write_json
from qarm.errors import InputError
from qarm.schemas.encoder import VectorSettings

__all__ = ["VectorTower"]

FILE = "config.json"
REVISION = 1
Floats = npt.NDArray[np.float32]


class VectorTower:
    """Vectors of a column or file of `data.items.vectors`, as they are.

    Args:
        settings: name of the vectors, and how many numbers each has.
    """

    def __init__(self, settings: VectorSettings) -> None:
        self.settings = settings
        self.name = settings.name
        self.modalities = (settings.name,)
        self.fingerprint = digest(settings.content())

    @classmethod
    def of(cls, name: str, content: bytes) -> "VectorTower":
        """The tower for vectors as long as this one."""
        return cls(VectorSettings(revision=REVISION, name=name, width=len(content) // 4))

    @classmethod
    def read(cls, folder: Path) -> "VectorTower":
        """The tower that `save` wrote."""
        return cls(read_model(folder / FILE, VectorSettings))

    def load(self, content: bytes) -> Floats:
        """The vector of one item, float32 [d]."""
        vector = np.frombuffer(content, dtype="<f4").astype(np.float32)
        if len(vector) != self.settings.width:
            raise InputError(f"got {len(vector)} numbers, need {self.settings.width}, as in training")
        return vector

    def encode(self, inputs: Sequence[Floats]) -> Floats:
        """Vectors of loaded items, float32 [n, d]."""
        return np.stack(inputs)

    def save(self, folder: Path) -> None:
        """Files of the tower in the folder: its settings."""
        write_json(folder / FILE, self.settings)
