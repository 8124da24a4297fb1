"""Checkpoints that read several modalities: tiny random CLIP and CLAP models, made on the spot."""

import io
import json
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import soundfile
import torch
from PIL import Image
from transformers import (
    ClapConfig,
    ClapFeatureExtractor,
    ClapModel,
    ClapProcessor,
    CLIPConfig,
    CLIPImageProcessorPil,
    CLIPModel,
    CLIPProcessor,
    CLIPTokenizerFast,
)

from qarm.data.catalog import Catalog
from qarm.encoder.alignment.align import align
from qarm.encoder.encoder import Encoder
from qarm.encoder.towers.multimodal import ItemTower
from qarm.errors import InputError

LETTERS = "abcdefghijklmnopqrstuvwxyz0123456789<|>/.:![]"
SMALL = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}


def tokenizer() -> CLIPTokenizerFast:
    pieces = [letter + end for letter in LETTERS for end in ("", "</w>")]
    vocab = {piece: n for n, piece in enumerate([*pieces, "<|startoftext|>", "<|endoftext|>"])}
    return CLIPTokenizerFast(vocab=vocab, merges=[])


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("clip")
    words = tokenizer()
    text = SMALL | {"vocab_size": len(words), "max_position_embeddings": 77, "bos_token_id": 90}
    text |= {"eos_token_id": 91, "pad_token_id": 91}
    vision = SMALL | {"image_size": 32, "patch_size": 8}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = CLIPModel(CLIPConfig(text_config=text, vision_config=vision, projection_dim=8))
    model.save_pretrained(folder)
    pictures = CLIPImageProcessorPil(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32})
    CLIPProcessor(image_processor=pictures, tokenizer=words).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def clap(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("clap")
    words = tokenizer()
    text = SMALL | {"vocab_size": len(words), "max_position_embeddings": 80, "pad_token_id": 1}
    audio = {"spec_size": 64, "num_mel_bins": 64, "patch_embeds_hidden_size": 8, "hidden_size": 64}
    audio |= {"depths": [1, 1, 1, 1], "num_attention_heads": [1, 1, 2, 2], "window_size": 2}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        config = ClapConfig(text_config=text, audio_config=audio, projection_dim=8)
        ClapModel(config).save_pretrained(folder)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # some of the default mel filters are empty
        listener = ClapFeatureExtractor(max_length_s=1, hop_length=960, truncation="rand_trunc")
    ClapProcessor(feature_extractor=listener, tokenizer=words).save_pretrained(folder)
    return folder


def picture(seed: int) -> bytes:
    content = io.BytesIO()
    pixels = np.random.default_rng(seed).integers(0, 255, (40, 50, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(content, "PNG")
    return content.getvalue()


def sound(seed: int) -> bytes:
    content = io.BytesIO()
    samples = np.random.default_rng(seed).normal(size=4000).astype(np.float32) * 0.1
    soundfile.write(content, samples, 8000, format="WAV")
    return content.getvalue()


@pytest.fixture
def shop(tmp_path: Path) -> Catalog:
    """24 items: text, picture, or both."""
    rows = range(24)
    frame = pl.DataFrame(
        {
            "item_id": [f"i{n}" for n in rows],
            "text": [None if n % 6 == 5 else f"thing {n % 4} no {n}" for n in rows],
            "image": pl.Series([None if n % 6 == 4 else picture(n % 4) for n in rows], dtype=pl.Binary),
            "audio": pl.Series([None] * 24, dtype=pl.String),
        }
    )
    return Catalog(frame, tmp_path)


@pytest.fixture
def pairs() -> pl.DataFrame:
    rows = [(f"i{a}", f"i{b}") for a in range(24) for b in range(a) if a % 4 == b % 4]
    return pl.DataFrame(rows, schema=["trigger_id", "target_id"], orient="row")


def test_a_side_for_each_modality_is_averaged(clip: Path) -> None:
    tower = ItemTower(clip)
    assert (tower.modalities, tower.joint) == (("text", "image"), False)
    items = [{"text": "red hat"}, {"image": picture(0)}, {"text": "red hat", "image": picture(0)}]
    vectors = tower.encode([tower.load(item) for item in items])
    assert np.allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)
    mean = vectors[0] + vectors[1]
    assert np.allclose(vectors[2], mean / np.linalg.norm(mean), atol=1e-5)
    model = tower.model.transformers_model
    given = tower.model.preprocess([{"image": tower.load(items[1])["image"]}])
    with torch.no_grad():
        own = model.get_image_features(pixel_values=given["pixel_values"])
    own = getattr(own, "pooler_output", own)
    assert np.allclose(vectors[1], torch.nn.functional.normalize(own, dim=1).numpy(), atol=1e-5)


def test_sounds_are_heard_at_the_models_rate(clap: Path) -> None:
    tower = ItemTower(clap)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert tower.modalities == ("text", "audio")
    loaded = tower.load({"text": "boom", "audio": sound(0)})
    assert loaded["audio"]["sampling_rate"] == 48_000
    vectors = tower.encode([loaded, tower.load({"audio": sound(1)}), tower.load({"audio": sound(1)})])
    assert np.array_equal(vectors[1], vectors[2])
    assert not np.allclose(vectors[0], vectors[1])


def test_special_tokens_and_paths_in_a_text_are_text(clip: Path, tmp_path: Path) -> None:
    tower = ItemTower(clip)
    assert tower.load({"text": "a <|endoftext|> b"}) == {"text": "a < |endoftext|> b"}
    nested = tower.load({"text": "<|end<|endoftext|>oftext|>"})["text"]
    assert "<|endoftext|>" not in nested
    Image.new("RGB", (8, 8)).save(tmp_path / "x.png")
    for text in (str(tmp_path / "x.png"), "http://example.com/x.png"):
        ((_, features),) = tower.collate([tower.load({"text": text})])
        assert features["modality"] == "text"


def test_items_do_not_depend_on_their_neighbours(clip: Path, shop: Catalog) -> None:
    tower = ItemTower(clip)
    loaded = [tower.load({"text": "a" * n}) for n in (1, 30, 7)]
    together = tower.encode(loaded)
    for n, item in enumerate(loaded):
        assert together[n].tobytes() == tower.encode([item])[0].tobytes()


@pytest.mark.parametrize(
    ("tune", "fusion"), [("heads", "concat"), ("lora", "none"), ("full", "none"), ("full", "concat")]
)
def test_every_way_of_tuning_learns_and_is_saved(
    clip: Path, shop: Catalog, pairs: pl.DataFrame, tmp_path: Path, tune: str, fusion: str
) -> None:
    settings: dict[str, Any] = {"model": str(clip), "tune": tune, "fusion": fusion, "batch": 16, "chunk": 8}
    settings |= {"dim": 8, "hidden": 16, "epochs": 8, "min_steps": 1, "tower_lr": 3e-3, "lr": 1e-2}
    encoder = align(shop, pairs, metrics_path=tmp_path / "m.jsonl", **settings)
    rows = [json.loads(line) for line in (tmp_path / "m.jsonl").read_text().splitlines()]
    assert rows[-1]["loss"] < rows[1]["loss"]
    before = ItemTower(clip)
    assert (encoder.towers["item"].fingerprint == before.fingerprint) == (tune == "heads")
    assert encoder.modalities == ["image", "text"]
    vectors, raw = encoder.embed(shop), encoder.raw(shop)
    encoder.save_pretrained(tmp_path / "encoder")
    again = Encoder.from_pretrained(tmp_path / "encoder")
    assert again.embed(shop).vectors.tobytes() == vectors.vectors.tobytes()
    assert again.raw(shop).vectors.tobytes() == raw.vectors.tobytes()
    assert not list((tmp_path / "encoder").rglob("*.bin"))
    if tune != "heads":  # what was tuned is a checkpoint that anything can read
        from sentence_transformers import SentenceTransformer

        model = SentenceTransformer(str(tmp_path / "encoder" / "item"), device="cpu")
        assert model.encode([{"text": "red hat"}]).shape == (1, 8)


def test_last_layers_alone_learn(clip: Path, shop: Catalog, pairs: pl.DataFrame) -> None:
    settings: dict[str, Any] = {"model": str(clip), "tune": "full", "fusion": "none", "batch": 16}
    settings |= {"epochs": 1, "min_steps": 1, "tune_layers": 1, "tower_lr": 1e-2}
    encoder = align(shop, pairs, **settings)
    tuned: Any = encoder.towers["item"]
    before = dict(ItemTower(clip).model.named_parameters())
    changed = {n for n, p in tuned.model.named_parameters() if not torch.equal(p, before[n])}
    assert any("layers.1." in name for name in changed)
    assert [name for name in changed if "layers.0." in name or "embeddings" in name] == []
    with pytest.raises(InputError, match="tune_layers = 9, and the tower's stacks of layers are"):
        align(shop, pairs, **settings | {"tune_layers": 9})


def test_hidden_parts_leave_the_message(clip: Path, shop: Catalog, pairs: pl.DataFrame) -> None:
    settings: dict[str, Any] = {"model": str(clip), "tune": "full", "fusion": "none", "batch": 16}
    settings |= {"epochs": 2, "min_steps": 1, "modality_dropout": 0.9}
    seen: list[tuple[str, ...]] = []
    load = ItemTower.load

    def watched(self: ItemTower, content: Any) -> Any:
        seen.append(tuple(content))
        return load(self, content)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ItemTower, "load", watched)
        align(shop, pairs, **settings)
    both, alone = seen.count(("text", "image")), seen.count(("text",)) + seen.count(("image",))
    assert all(seen)
    assert both > 0
    assert alone > both / 4


def test_unreadable_media_name_the_item(clip: Path, shop: Catalog, make_catalog: Callable[..., Any]) -> None:
    bad = shop.frame.with_columns(
        image=pl.when(pl.col("item_id") == "i3").then(pl.lit(b"junk")).otherwise(pl.col("image"))
    )
    encoder_catalog = Catalog(bad, shop.folder)
    pairs = pl.DataFrame({"trigger_id": ["i1", "i2"], "target_id": ["i5", "i6"]})
    with pytest.raises(InputError, match="item 'i3': image file in the table: not a picture"):
        align(encoder_catalog, pairs, model=str(clip))


def test_what_reads_nothing_of_an_item_is_refused(clap: Path, clip: Path, tmp_path: Path) -> None:
    silent = pl.DataFrame({"item_id": ["a", "b", "c"], "text": pl.Series([None] * 3, dtype=pl.String)})
    silent = silent.with_columns(
        image=pl.Series([picture(0)] * 3), audio=pl.Series([None] * 3, dtype=pl.String)
    )
    pairs = pl.DataFrame({"trigger_id": ["a", "b"], "target_id": ["b", "c"]})
    with (
        warnings.catch_warnings(),
        pytest.raises(InputError, match=r"the items have image .* an encoder.model that reads it"),
    ):
        warnings.simplefilter("ignore")
        align(Catalog(silent, tmp_path), pairs, model=str(clap))
    (tmp_path / "model.safetensors").write_bytes(b"junk")
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(InputError, match=r"encoder.model = .*: not a usable checkpoint"):
        align(Catalog(silent, tmp_path), pairs, model=str(tmp_path))
