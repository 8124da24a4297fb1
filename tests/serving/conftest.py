"""A finished run and its bundle, tiny, built once: 40 items of text, picture and sound, 8 more to come."""

import shutil
import string
from pathlib import Path

import polars as pl
import pytest
import torch
from transformers import BertConfig, BertModel, BertTokenizerFast

from qarm.config import load_config
from qarm.demo import WorldSpec, build_world
from qarm.pipeline import run_stages
from qarm.quantizer.versions.lifecycle import append_items, refit_codes
from qarm.serving.bundle import Bundle, export_bundle

SMALL = {
    "pairs.user2item.epochs": "1",
    "encoder.epochs": "1",
    "encoder.min_steps": "1",
    "retriever.min_steps": "1",
    "retriever.epochs": "1",
    "encoder.dim": "16",
    "encoder.hidden": "16",
    "quantizer.width": "4",
    "quantizer.nearest": "5",
    "ranker.variants": "[id, id+rq+vq]",
    "ranker.epochs": "1",
    "ranker.dim": "4",
    "ranker.negatives.eval": "5",
}


def tiny_text_encoder(folder: Path) -> Path:
    """A random BERT of one layer that reads letters, in a folder as transformers saves it."""
    letters = [*string.ascii_lowercase, *string.digits]
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *letters, *(f"##{letter}" for letter in letters)]
    folder.mkdir(parents=True)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        sizes = {"hidden_size": 16, "intermediate_size": 16, "max_position_embeddings": 256}
        config = BertConfig(
            vocab_size=len(words), num_hidden_layers=1, num_attention_heads=2, initializer_range=0.5, **sizes
        )
        BertModel(config).save_pretrained(folder)
    BertTokenizerFast(vocab={word: n for n, word in enumerate(words)}).save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A demo world of 40 items; `new.parquet` beside its tables has 8 more."""
    folder = tmp_path_factory.mktemp("serving") / "world"
    build_world(folder, seed=3, spec=WorldSpec(items=48, users=40, events_per_user=14))
    items, log = pl.read_parquet(folder / "items.parquet"), pl.read_parquet(folder / "interactions.parquet")
    first = items.head(40)
    items.tail(8).write_parquet(folder / "new.parquet")
    first.write_parquet(folder / "items.parquet")
    log.filter(pl.col("item_id").is_in(first["item_id"].implode())).write_parquet(
        folder / "interactions.parquet"
    )
    return folder


@pytest.fixture(scope="session")
def run(world: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run; tests that change it take a copy."""
    folder = tmp_path_factory.mktemp("serving")
    text = tiny_text_encoder(folder / "encoders")
    flags = {"data.root": str(world), "encoder.text": str(text), **SMALL}
    list(run_stages(load_config(flags=flags, environment={}), folder / "run"))
    return folder / "run"


@pytest.fixture(scope="session")
def exported(run: Path, world: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Its bundle with media; tests that change it take a copy."""
    folder = tmp_path_factory.mktemp("serving") / "bundle"
    export_bundle(run, folder, items=(world / "items.parquet",), media=True)
    return folder


@pytest.fixture(scope="session")
def bundle(exported: Path) -> Bundle:
    return Bundle.load(exported)


@pytest.fixture(scope="session")
def refitted(run: Path, world: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run with 8 items appended and its codebooks fitted again: versions 1 and 2."""
    copy = Path(shutil.copytree(run, tmp_path_factory.mktemp("serving") / "run"))
    append_items(copy, world / "new.parquet")
    refit_codes(copy)
    return copy
