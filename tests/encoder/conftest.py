"""Catalogues and encoders small enough to follow by hand."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from qarm.data.catalog import Catalog
from qarm.errors import InputError


class FakeTower:
    """Content that is its own feature: numbers in a text, or float32 bytes in a file."""

    name = "fake"

    def __init__(self, modality: str, *, shape: tuple[int, ...] = (-1,), revision: str = "1") -> None:
        self.fingerprint = f"{modality}-{revision}" + "0" * 16
        self.shape = shape
        self.encoded = 0

    def load(self, content: Any) -> np.ndarray:
        if isinstance(content, str):
            return np.array(content.split(), dtype=np.float32)
        if len(content) % 4:
            raise InputError("no whole number of floats")
        return np.frombuffer(content, dtype=np.float32).reshape(self.shape)

    def encode(self, inputs: Sequence[np.ndarray]) -> np.ndarray:
        self.encoded += len(inputs)
        return np.stack(inputs)

    def save(self, folder: Path) -> None:
        folder.mkdir(parents=True)


def numbers(values: np.ndarray) -> str:
    return " ".join(f"{value:.6g}" for value in values)


@pytest.fixture
def fake() -> type[FakeTower]:
    return FakeTower


@pytest.fixture
def make_catalog(tmp_path: Path) -> Callable[..., Catalog]:
    """A catalogue from arrays [n, d] (None: without the modality); `missing` blanks single cells."""

    def make(
        text: np.ndarray | None = None,
        image: np.ndarray | None = None,
        audio: np.ndarray | None = None,
        *,
        missing: dict[str, list[int]] | None = None,
        ids: Sequence[str] | None = None,
    ) -> Catalog:
        count = len(next(values for values in (text, image, audio) if values is not None))
        columns: dict[str, Any] = {"item_id": ids or [f"i{row}" for row in range(count)]}
        for name, values in (("text", text), ("image", image), ("audio", audio)):
            cells: list[Any] = [None] * count
            if values is not None:
                asis = numbers if name == "text" else lambda row: row.astype(np.float32).tobytes()
                gone = (missing or {}).get(name, [])
                cells = [None if i in gone else asis(row) for i, row in enumerate(values)]
            kind = pl.Binary if name != "text" and values is not None else pl.String
            columns[name] = pl.Series(name, cells, dtype=kind)
        return Catalog(pl.DataFrame(columns), tmp_path)

    return make


@pytest.fixture
def world(make_catalog: Callable[..., Catalog]) -> tuple[Catalog, pl.DataFrame]:
    """80 items in 8 groups; only a twentieth of the content's variance tells of the group."""
    random = np.random.default_rng(0)
    group = np.arange(80) % 8
    centres = random.normal(size=(8, 4))
    noise = random.normal(size=(80, 24)) * 3
    text = np.hstack([centres[group] + 0.1 * random.normal(size=(80, 4)), noise])
    image = random.normal(size=(80, 5))
    catalog = make_catalog(text, image, missing={"image": [3, 17]})
    rows = [(f"i{a}", f"i{b}") for a in range(80) for b in range(a) if group[a] == group[b]]
    return catalog, pl.DataFrame(rows, schema=["trigger_id", "target_id"], orient="row")
