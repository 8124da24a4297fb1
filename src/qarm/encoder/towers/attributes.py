"""Attributes tower: hashed categories and binned numbers, a block of equal weight for each attribute."""

import hashlib
import json
from collections.abc import Iterable, Sequence
from functools import lru_cache
from pathlib import Path

import numpy as np
import numpy.typing as npt

from qarm.core.atomic_io import digest, read_model, write_json
from qarm.errors import InputError
from qarm.schemas.encoder import AttributesSettings

__all__ = ["ATTRIBUTES", "AttributesTower"]

ATTRIBUTES = "attributes"
FILE = "config.json"
WIDTH = 64  # numbers for each attribute
QUANTILES = 17
SPREAD = 0.1  # of a number's bins, in shares of the items
REVISION = 1
Floats = npt.NDArray[np.float32]


class AttributesTower:
    """Features of an item's attributes, float32 [64 x attributes].

    A category is 64 signs from a hash of its name and value, so that one that was never seen has a code of
    its own, nearly orthogonal to the others; a list is the sum of its values' codes at unit length. A number
    is its quantile among the items that the tower was fitted on, spread over 64 bins; beyond the range it is
    the nearest end. What is missing is zeros.

    Args:
        settings: names of the attributes, and the quantiles of those that are numbers.
    """

    name = ATTRIBUTES

    def __init__(self, settings: AttributesSettings) -> None:
        self.settings = settings
        self.fingerprint = digest(settings.content())
        self._names = sorted([*settings.categories, *settings.numbers])

    @classmethod
    def fit(cls, contents: Iterable[str]) -> "AttributesTower":
        """The tower for items with these attributes."""
        values: dict[str, list[float]] = {}
        categories: set[str] = set()
        for content in contents:
            for name, value in json.loads(content).items():
                if isinstance(value, list):
                    categories.add(name)
                else:
                    values.setdefault(name, []).append(float(value))
        numbers = {
            name: np.unique(np.quantile(seen, np.linspace(0, 1, QUANTILES))).tolist()
            for name, seen in sorted(values.items())
        }
        return cls(AttributesSettings(revision=REVISION, categories=sorted(categories), numbers=numbers))

    @classmethod
    def read(cls, folder: Path) -> "AttributesTower":
        """The tower that `save` wrote."""
        return cls(read_model(folder / FILE, AttributesSettings))

    def load(self, content: str) -> Floats:
        """Features of one item's attributes; one that the tower was not fitted on says nothing."""
        given = json.loads(content)
        blocks = [self._block(name, given.get(name)) for name in self._names]
        return np.concatenate(blocks)

    def _block(self, name: str, value: list[str] | float | None) -> Floats:
        if value is None:
            return np.zeros(WIDTH, dtype=np.float32)
        quantiles = self.settings.numbers.get(name)
        if isinstance(value, list) == (quantiles is not None):
            wanted = "a number" if quantiles is not None else "a category"
            raise InputError(f"attribute {name} = {value!r}, need {wanted}, as in training")
        if isinstance(value, list):
            return _unit(np.sum([_code(name, one) for one in value], axis=0))
        shares = np.linspace(0, 1, len(quantiles or ()))
        share = np.interp(value, quantiles or (), shares)
        return _unit(np.exp(-0.5 * np.square((share - np.linspace(0, 1, WIDTH)) / SPREAD)))

    def encode(self, inputs: Sequence[Floats]) -> Floats:
        """Features of loaded items, float32 [n, d]."""
        return np.stack(inputs)

    def save(self, folder: Path) -> None:
        """Files of the tower in the folder: its settings."""
        write_json(folder / FILE, self.settings)


@lru_cache(maxsize=1 << 16)
def _code(name: str, value: str) -> npt.NDArray[np.float64]:
    found = hashlib.sha256(f"{name}\0{value}".encode()).digest()[: WIDTH // 8]
    return 2 * np.unpackbits(np.frombuffer(found, dtype=np.uint8)).astype(np.float64) - 1


def _unit(values: npt.NDArray[np.float64]) -> Floats:
    length = float(np.linalg.norm(values))
    return np.asarray(values / length if length else values, dtype=np.float32)
