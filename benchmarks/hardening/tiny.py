"""A world of 40 items and a config with tiny random encoders, whose whole run takes seconds."""

import subprocess
import sys
from pathlib import Path

__all__ = ["CONFIG", "make_world", "save_bert"]

CONFIG = """\
data: {{root: {folder}/world}}
split: {{test: 0.2, valid: 0.1}}
pairs: {{user2item: {{epochs: 1, dim: 8}}}}
encoder:
  {{text: {folder}/bert, image: null, audio: logmel, tune: full, dim: 8, hidden: 16, batch: 32,
   epochs: 1, min_steps: 1, max_steps: 4, checkpoint_steps: 2}}
quantizer: {{levels: 2, width: 4, nearest: 3}}
retriever: {{dim: 8, history: 5, negatives: 8, epochs: 1, min_steps: 1, patience: 1, batch: 64}}
ranker: {{variants: [id+rq], epochs: 1, dim: 4, history: 10, negatives: {{eval: 5}}}}
compare:
  {{variants: [id, id+rq], primary: [id+rq, id], seeds: [0], search: 2, negatives: 5, catalogue_users: 5}}
"""


def make_world(folder: Path) -> Path:
    """Build it in a process of its own, so that this one may fork; returns the config's path."""
    subprocess.run([sys.executable, __file__, str(folder)], check=True, stdout=subprocess.DEVNULL)
    return folder / "config.yaml"


def _build(folder: Path) -> None:
    import polars as pl

    from qarm.demo import WorldSpec, build_world

    build_world(folder / "world", seed=3, spec=WorldSpec(items=40, users=30, events_per_user=12))
    texts = pl.read_parquet(folder / "world" / "items.parquet", columns=["title", "description"])
    words = {word.strip(".,") for row in texts.rows() for text in row for word in text.lower().split()}
    new = pl.read_parquet(folder / "world" / "items.parquet").head(6)
    media = [pl.format("world/{}", name).alias(name) for name in ("image_path", "audio_path")]
    new = new.with_columns(pl.format("new-{}", "item_id").alias("item_id"), *media)
    new.write_parquet(folder / "new.parquet")
    save_bert(folder / "bert", sorted(words - {""}))
    (folder / "config.yaml").write_text(CONFIG.format(folder=folder))


def save_bert(folder: Path, words: list[str]) -> None:
    """A random BERT of one layer that knows the world's words."""
    import torch
    from transformers import BertConfig, BertModel, BertTokenizerFast
    from transformers.utils import logging

    logging.disable_progress_bar()
    folder.mkdir()
    vocabulary = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *words]
    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "intermediate_size": 32, "max_position_embeddings": 64}
    config = BertConfig(
        vocab_size=len(vocabulary), num_hidden_layers=1, num_attention_heads=2, initializer_range=0.5, **sizes
    )
    BertModel(config).save_pretrained(folder)
    numbers = {word: number for number, word in enumerate(vocabulary)}
    BertTokenizerFast(vocab=numbers).save_pretrained(folder)


if __name__ == "__main__":
    _build(Path(sys.argv[1]))
