"""Vectors and attributes that items come with, aligned, saved and embedded without any checkpoint."""

from pathlib import Path

import numpy as np
import polars as pl
import pytest

from qarm.data.catalog import Catalog, read_catalog
from qarm.encoder.alignment.align import align
from qarm.encoder.encoder import Encoder
from qarm.encoder.evaluation.modality_ablation import ablated_versions
from qarm.encoder.towers.vectors import VectorTower
from qarm.errors import InputError

SETTINGS = {"dim": 8, "hidden": 16, "epochs": 2, "min_steps": 4, "batch": 16}


@pytest.fixture
def shop() -> tuple[Catalog, pl.DataFrame]:
    """40 items of 4 groups; vectors are noise but for a tenth of them, the brand is the group."""
    random, group = np.random.default_rng(0), np.arange(40) % 4
    clip = random.normal(size=(40, 6)).astype(np.float32)
    frame = pl.DataFrame(
        {
            "item_id": [f"i{n}" for n in range(40)],
            "clip": [None if n == 3 else vector.tolist() for n, vector in enumerate(clip)],
            "brand": [None if n == 5 else f"b{g}" for n, g in enumerate(group)],
            "price": group * 10.0,
        }
    )
    catalog = read_catalog(
        frame,
        text=[],
        image=None,
        audio=None,
        vectors=["clip"],
        attributes={"brand": "categorical", "price": "number"},
    )
    rows = [(f"i{a}", f"i{b}") for a in range(40) for b in range(a) if group[a] == group[b]]
    return catalog, pl.DataFrame(rows, schema=["trigger_id", "target_id"], orient="row")


def test_what_items_come_with_is_aligned_without_any_tower(
    shop: tuple[Catalog, pl.DataFrame], tmp_path: Path
) -> None:
    catalog, pairs = shop
    encoder = align(catalog, pairs, **SETTINGS)
    assert encoder.modalities == ["attributes", "vector_clip"]
    raw, vectors = encoder.raw(catalog), encoder.embed(catalog)
    assert (raw.vectors.shape, vectors.vectors.shape) == ((40, 128 + 6), (40, 8))
    same, other = raw.vectors[0] @ raw.vectors[4], raw.vectors[0] @ raw.vectors[1]
    assert same > other + 0.3  # the raw cosine knows the brand
    encoder.save_pretrained(tmp_path / "encoder")
    again = Encoder.from_pretrained(tmp_path / "encoder")
    assert again.embed(catalog).vectors.tobytes() == vectors.vectors.tobytes()
    assert again.raw(catalog).vectors.tobytes() == raw.vectors.tobytes()
    names = [name for name, _ in ablated_versions(encoder, catalog)]
    assert names == [f"{kind}, {m} alone" for m in encoder.modalities for kind in ("raw", "aligned")]


def test_items_that_lack_a_column_are_encoded_by_the_others(shop: tuple[Catalog, pl.DataFrame]) -> None:
    catalog, pairs = shop
    encoder = align(catalog, pairs, **SETTINGS)
    bare = Catalog(catalog.frame.drop("attributes"), catalog.folder)
    found = encoder.embed(bare.only(["i0", "i1"]))
    assert np.isfinite(found.vectors).all()
    with pytest.raises(InputError, match="items i3 have no attributes, vector_clip"):
        encoder.embed(bare)


def test_vectors_of_another_length_name_the_item(shop: tuple[Catalog, pl.DataFrame], tmp_path: Path) -> None:
    catalog, pairs = shop
    encoder = align(catalog, pairs, **SETTINGS)
    other = read_catalog(
        pl.DataFrame({"item_id": ["n"], "clip": [[1.0, 2.0]]}),
        text=[],
        image=None,
        audio=None,
        vectors=["clip"],
    )
    with pytest.raises(InputError, match="item 'n': vector_clip got 2 numbers, need 6, as in training"):
        encoder.embed(other)
    tower = VectorTower.of("vector_clip", bytes(24))
    tower.save(tmp_path / "v")
    assert VectorTower.read(tmp_path / "v").fingerprint == tower.fingerprint
