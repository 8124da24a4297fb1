"""The whole judgement on a small planted world, and the gallery and hidden modalities behind it."""

from base64 import b64decode
from collections.abc import Callable
from io import BytesIO
from typing import Any

import numpy as np
import polars as pl
import pytest
from PIL import Image

from qarm.data.catalog import Catalog
from qarm.data.embeddings import Embeddings
from qarm.data.interactions import Log
from qarm.data.splits import Split, split_log
from qarm.encoder.alignment.align import align
from qarm.encoder.evaluation.modality_ablation import ablated_versions, only_modalities
from qarm.encoder.evaluation.neighbour_examples import neighbours
from qarm.encoder.evaluation.quality import embedding_quality
from qarm.schemas.encoder import EmbeddingQuality

ITEMS = [f"i{number:02d}" for number in range(40)]


@pytest.fixture(scope="module")
def split() -> Split:
    """30 users stay within one of four groups of ten items; the last item of each group is never seen."""
    random = np.random.default_rng(0)
    rows = [
        (f"u{user:02d}", f"i{10 * (user % 4) + item:02d}", time, 1)
        for user in range(30)
        for time, item in enumerate([*random.permutation(9)[:7], 9])
    ]
    frame = pl.DataFrame(rows, schema=["user_id", "item_id", "time", "label"], orient="row")
    frame = frame.with_columns(pl.col("label").cast(pl.Int8)).with_row_index("row")
    return split_log(
        Log(frame.with_columns(pl.col("row").cast(pl.Int64))), kind="user_tail", test=0.25, valid=0.13
    )


def circle(steps: np.ndarray) -> Embeddings:
    angles = 2 * np.pi * steps / 40
    return Embeddings(ITEMS, np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32))


def test_good_vectors_find_what_follows_and_the_figures_have_their_shape(split: Split) -> None:
    order = np.random.default_rng(1).permutation(40)
    versions = {"raw": circle(order), "aligned": circle(np.arange(40) // 10 * 10 + np.arange(40) % 10 / 10)}
    pairs = pl.DataFrame({"trigger_id": ["i00"], "target_id": ["i01"]})
    found = embedding_quality(versions, split, pairs, ITEMS, draws=100).content()
    EmbeddingQuality.model_validate(found, strict=True)
    assert (found["users"], found["clicks"], found["items"]) == (30, 60, 40)
    assert found["cutoffs"] == {"10": 10, "50": 50, "200": 200, "1%": 1, "5%": 2}
    # the last of a user's eight clicks is an item of no training event
    assert [found["slices"][name]["clicks"] for name in ("all", "warm", "cold")] == [60, 30, 30]
    rates = {(row["method"], row["slice"]): row["hit_rate"] for row in found["hit_rates"]}
    assert rates["aligned", "all"]["10"] == 1.0  # only four items of a user's group are new
    assert rates["raw", "all"]["10"] < 0.6
    assert rates["item-kNN", "cold"]["200"] == 0.0
    assert rates["item-kNN", "warm"]["10"] == 1.0
    assert rates["popularity", "all"]["50"] == 1.0
    gain = next(row for row in found["differences"] if (row["against"], row["cutoff"]) == ("raw", "10"))
    assert gain["difference"] == pytest.approx(1.0 - rates["raw", "all"]["10"])
    assert gain["difference_interval"][0] > 0
    assert found["geometry"]["aligned"]["alignment"] < found["geometry"]["raw"]["alignment"]
    assert found["pairs"]["recall"]["aligned"]["10"] == 1.0
    popularity = sum(found["slices"][f"popularity {group}"]["clicks"] for group in range(1, 6))
    assert popularity == found["slices"]["warm"]["clicks"]


def test_equal_versions_differ_by_nothing_and_twice_is_the_same(split: Split) -> None:
    versions = {"raw": circle(np.arange(40.0)), "aligned": circle(np.arange(40.0))}
    pairs = pl.DataFrame({"trigger_id": ["i00"], "target_id": ["i01"]})
    found = embedding_quality(versions, split, pairs, ITEMS, draws=20).content()
    gains = [row for row in found["differences"] if row["against"] == "raw"]
    assert {row["difference"] for row in gains} <= {0.0, None}
    assert embedding_quality(versions, split, pairs, ITEMS, draws=20).content() == found


def test_hidden_modalities_leave_what_the_others_give(
    world: tuple[Catalog, pl.DataFrame], fake: Any, make_catalog: Callable[..., Catalog]
) -> None:
    catalog, pairs = world
    towers = {m: fake(m) for m in ("text", "image")}
    encoder = align(catalog, pairs, towers=towers, dim=8, hidden=8, batch=64, epochs=1, min_steps=1)
    versions = dict(ablated_versions(encoder, catalog))
    assert list(versions) == [f"{v}, {m} alone" for m in ("image", "text") for v in ("raw", "aligned")]
    assert len(versions["raw, image alone"]) == 78  # two items have no picture
    raw = encoder.raw(catalog).vectors
    alone = versions["raw, text alone"].vectors[:, 5:]
    both = raw[:, 5:] / np.linalg.norm(raw[:, 5:], axis=1, keepdims=True)
    assert np.allclose(alone, both, atol=1e-6)
    other = catalog.frame.with_columns(pl.col("image").shift(1))
    changed = dict(ablated_versions(encoder, Catalog(other, catalog.folder)))
    assert np.array_equal(changed["aligned, text alone"].vectors, versions["aligned, text alone"].vectors)
    assert only_modalities(make_catalog(np.ones((2, 3))), ["audio"]) is None


def test_the_gallery_shows_nearest_items_with_small_pictures(tmp_path: Any) -> None:
    for number in range(0, 40, 2):
        Image.new("RGB", (200, 100), (6 * number, 0, 0)).save(tmp_path / f"{number}.png")
    pictures = [f"{number}.png" if number % 2 == 0 else None for number in range(40)]
    frame = pl.DataFrame({"item_id": ITEMS, "text": ["x" * 99 + "\nmore"] * 39 + [None], "image": pictures})
    frame = frame.with_columns(audio=pl.lit(None, dtype=pl.String))
    found = neighbours(
        Catalog(frame, tmp_path), circle(np.arange(40.0)), circle(np.arange(40) * 3 % 40)
    ).content()
    assert len(found["items"]) == 10
    for entry in found["items"]:
        own = ITEMS.index(entry["item"])
        assert set(entry["raw"][:4]) == {ITEMS[(own + step) % 40] for step in (-2, -1, 1, 2)}
        assert {entry["item"], *entry["raw"], *entry["aligned"]} <= set(found["cards"])
    card = found["cards"][found["items"][0]["item"]]
    assert card["title"] == "x" * 60
    shown = next(card["picture"] for card in found["cards"].values() if card["picture"])
    picture = Image.open(BytesIO(b64decode(shown.removeprefix("data:image/webp;base64,"))))
    assert picture.size == (96, 48)
    assert (
        neighbours(
            Catalog(frame, tmp_path), circle(np.arange(40.0)), circle(np.arange(40) * 3 % 40)
        ).content()
        == found
    )
