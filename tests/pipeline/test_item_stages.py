"""Stages of the items, for a shop whose items come with vectors and attributes and have no text or media."""

from pathlib import Path

import numpy as np
import polars as pl
import pytest

from qarm.config import Config, load_config
from qarm.core.atomic_io import read_model
from qarm.data.embeddings import Embeddings
from qarm.pipeline import run_stages
from qarm.quantizer.coder import Coder, encode
from qarm.schemas.encoder import EmbeddingQuality
from qarm.serving.bundle import Bundle, export_bundle

ITEMS = 40
FLAGS = {
    **{"data.items.text": "[]", "data.items.image": "null", "data.items.audio": "null"},
    **{
        "data.items.vectors": "[clip, bert.npy]",
        "data.items.attributes": "{brand: categorical, price: number}",
    },
    **{"pairs.user2item.epochs": "1", "encoder.epochs": "1", "encoder.min_steps": "1", "encoder.dim": "8"},
    **{"encoder.hidden": "8", "quantizer.width": "4", "quantizer.nearest": "3", "retriever.epochs": "1"},
    **{"retriever.min_steps": "1", "ranker.variants": "[id+rq]", "ranker.epochs": "1", "ranker.dim": "4"},
    **{"ranker.negatives.eval": "5"},
}


def rows(first: int, count: int, folder: Path) -> pl.DataFrame:
    random = np.random.default_rng(first)
    folder.mkdir(parents=True, exist_ok=True)
    np.save(folder / "bert.npy", random.normal(size=(count, 3)).astype(np.float32))
    return pl.DataFrame(
        {
            "item_id": [f"i{first + n}" for n in range(count)],
            "clip": [None if n == 1 else v.tolist() for n, v in enumerate(random.normal(size=(count, 4)))],
            "brand": [None if n == 2 else f"b{n % 3}" for n in range(count)],
            "price": random.uniform(1, 9, count),
        }
    )


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("shop")
    rows(0, ITEMS, folder).write_parquet(folder / "items.parquet")
    rows(ITEMS, 4, folder / "new").write_parquet(folder / "new" / "items.parquet")
    random = np.random.default_rng(0)
    events = [(f"u{u}", f"i{random.integers(ITEMS)}", 10 * t + u % 7) for u in range(30) for t in range(12)]
    log = pl.DataFrame(events, schema=["user_id", "item_id", "timestamp"], orient="row")
    log.write_parquet(folder / "interactions.parquet")
    return folder


def config_of(shop: Path) -> Config:
    return load_config(flags={"data.root": str(shop), **FLAGS}, environment={})


@pytest.fixture(scope="module")
def run(shop: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("run")
    list(run_stages(config_of(shop), folder))
    return folder


def test_every_modality_has_its_worth(run: Path) -> None:
    quality = read_model(run / "embeddings" / "quality.json", EmbeddingQuality)
    methods = {row.method for row in quality.hit_rates}
    for name in ("attributes", "vector_clip", "vector_bert"):
        assert {f"raw, {name} alone", f"aligned, without {name}"} <= methods


def test_new_items_get_codes_of_what_they_come_with(run: Path, shop: Path) -> None:
    codes = encode(run, shop / "new" / "items.parquet")
    assert codes.item_ids == ["i40", "i41", "i42", "i43"]
    assert len(Embeddings.read(run / "embeddings" / "embeddings.parquet")) == ITEMS


def test_files_of_vectors_count_as_input(run: Path, shop: Path) -> None:
    assert all(done.fresh for done in run_stages(config_of(shop), run))
    before = np.load(shop / "bert.npy")
    np.save(shop / "bert.npy", before + 1)
    try:
        stale = [done.stage for done in run_stages(config_of(shop), run, last="check") if not done.fresh]
    finally:
        np.save(shop / "bert.npy", before)
    list(run_stages(config_of(shop), run))
    assert stale == ["check"]


def test_the_service_codes_what_encode_codes(run: Path, shop: Path, tmp_path: Path) -> None:
    export_bundle(run, tmp_path / "bundle", items=(shop / "items.parquet",), media=True)
    bundle = Bundle.load(tmp_path / "bundle")
    table = pl.read_parquet(shop / "new" / "items.parquet")
    vectors = np.load(shop / "new" / "bert.npy")
    given = [{**row, "bert": vectors[n].tolist()} for n, row in enumerate(table.iter_rows(named=True))]
    found, codes = bundle.code(bundle.catalog_of(given))
    expected = encode(run, shop / "new" / "items.parquet")
    assert codes.rq.tolist() == expected.rq.tolist()
    coder = Coder.read(run)
    assert len(found) == 4
    assert coder.encoder.modalities == ["attributes", "vector_bert", "vector_clip"]
