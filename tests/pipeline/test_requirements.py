"""Requirements of the encoder: checkpoints that cannot be used, and texts that are longer than they read."""

from pathlib import Path

import polars as pl
import pytest
import torch
from transformers import BertConfig, BertModel, BertTokenizerFast, ViTConfig, ViTModel

from qarm.config import load_config
from qarm.data.catalog import read_catalog
from qarm.pipeline.requirements import encoder_requirements, unmet

SIZES = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A text encoder of 8 tokens, and a picture encoder without its image processor."""
    folder = tmp_path_factory.mktemp("checkpoints")
    (folder / "text").mkdir()
    (folder / "text" / "vocab.txt").write_text(
        "\n".join(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "hat"])
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        BertModel(BertConfig(vocab_size=6, max_position_embeddings=8, **SIZES)).save_pretrained(
            folder / "text"
        )
        ViTModel(ViTConfig(image_size=16, patch_size=8, **SIZES)).save_pretrained(folder / "image")
    words = BertTokenizerFast(vocab_file=str(folder / "text" / "vocab.txt"), model_max_length=8)
    words.save_pretrained(folder / "text")
    return folder


def test_checkpoints_and_long_texts_are_told_before_anything_is_mined(checkpoints: Path) -> None:
    frame = pl.DataFrame({"item_id": ["a", "b"], "title": ["hat", "hat " * 30], "image": [b"x", b"y"]})
    catalog = read_catalog(frame, text=["title"], image="image", audio=None)
    flags = {"encoder.text": str(checkpoints / "text"), "encoder.image": str(checkpoints / "image")}
    config, warnings = load_config(flags=flags, environment={}), list[str]()
    problems = unmet(encoder_requirements(config, catalog, timings={}, warnings=warnings))
    assert len(problems) == 1
    assert problems[0].startswith(f"encoder.image = '{checkpoints / 'image'}': not a usable checkpoint")
    assert len(warnings) == 1
    assert "reads 8 tokens of a text; 1 of 2 texts are longer, up to 32, and lose their ends" in warnings[0]
    assert unmet(encoder_requirements(config, catalog, timings=None)) == problems
