"""Twelve items with media, and their codes."""

from pathlib import Path

import numpy as np
import polars as pl
import pytest
import soundfile
from PIL import Image

from qarm.data.catalog import Catalog
from qarm.data.codes import Codes

IDS = [f"i{number}" for number in range(12)]
ROWS = [(number // 6, number // 3 % 2, number % 3) for number in range(12)]


@pytest.fixture
def catalog(tmp_path: Path) -> Catalog:
    """i0 has everything; i1 no picture and no sound; the others a picture."""
    for number in range(12):
        Image.new("RGB", (300, 150), (20 * number, 0, 0)).save(tmp_path / f"{number}.png")
    soundfile.write(tmp_path / "0.wav", np.sin(np.arange(80_000) / 5), 16_000)
    frame = pl.DataFrame(
        {
            "item_id": IDS,
            "text": [f"Thing {number}\nof group {number // 6}" for number in range(12)],
            "image": [None if number == 1 else f"{number}.png" for number in range(12)],
            "audio": ["0.wav", *[None] * 11],
        }
    )
    return Catalog(frame, tmp_path)


@pytest.fixture
def codes() -> Codes:
    """Of the twelve items, and of one that was appended and stands in no catalogue."""
    return Codes([*IDS, "new"], np.array([*ROWS, (1, 1, 2)], dtype=np.int32))
