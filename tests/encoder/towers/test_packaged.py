"""The packaged encoders, from files to vectors and through a saved folder."""

from pathlib import Path

import numpy as np
import polars as pl
import pytest
import soundfile
from PIL import Image

from qarm.data.catalog import read_catalog
from qarm.encoder.alignment.align import align
from qarm.encoder.encoder import Encoder

COLOURS = {"red": (200, 30, 30), "green": (30, 180, 40), "blue": (40, 40, 200)}


@pytest.fixture
def shop(tmp_path: Path) -> Path:
    """30 items: a word, a picture and a tone for each of three groups."""
    random = np.random.default_rng(0)
    rows = []
    for number in range(30):
        name = list(COLOURS)[number % 3]
        noise = random.integers(-30, 30, (48, 48, 3))
        pixels = np.clip(np.array(COLOURS[name]) + noise, 0, 255).astype(np.uint8)
        Image.fromarray(pixels).save(tmp_path / f"{number}.png")
        time = np.arange(8_000) / 16_000
        tone = np.sin(2 * np.pi * 300 * (1 + number % 3) * time) + 0.1 * random.normal(size=8_000)
        soundfile.write(tmp_path / f"{number}.wav", 0.3 * tone, 16_000)
        rows.append((f"i{number}", f"A {name} thing, number {number}", f"{number}.png", f"{number}.wav"))
    columns = ["item_id", "title", "image_path", "audio_path"]
    pl.DataFrame(rows, schema=columns, orient="row").write_parquet(tmp_path / "items.parquet")
    return tmp_path


@pytest.mark.slow
def test_three_modalities_from_files_to_the_same_vectors_again(shop: Path) -> None:
    catalog = read_catalog(shop / "items.parquet", text=["title"])
    known = catalog.only([f"i{number}" for number in range(24)])
    rows = [(f"i{a}", f"i{b}") for a in range(24) for b in range(a) if a % 3 == b % 3]
    pairs = pl.DataFrame(rows, schema=["trigger_id", "target_id"], orient="row")
    encoder = align(known, pairs, cache=shop / "cache", batch=32, epochs=4, min_steps=1)
    assert encoder.modalities == ["audio", "image", "text"]
    vectors = encoder.embed(catalog, cache=shop / "cache")
    scores = vectors.vectors @ vectors.vectors.T - 2 * np.eye(30)
    assert np.array_equal(scores.argmax(axis=1) % 3, np.arange(30) % 3)  # the six new items as well
    assert encoder.raw(catalog).vectors.shape == (30, 128 + 1280 + 384)
    encoder.save_pretrained(shop / "encoder")
    again = Encoder.from_pretrained(shop / "encoder")
    assert again.embed(catalog).vectors.tobytes() == vectors.vectors.tobytes()
    alone = again.embed(catalog.only(["i29"]))
    assert np.abs(alone.vectors - vectors.rows(["i29"])).max() < 1e-5
    kinds = {path.suffix for path in (shop / "encoder").rglob("*") if path.is_file()}
    assert kinds == {".json", ".safetensors", ".txt", ".md"}
