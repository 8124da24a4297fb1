"""The pair filter: any callable, and a language model whose answer can be computed by hand."""

from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast

from qarm.data.catalog import Catalog
from qarm.encoder.alignment.llm_pair_filter import LanguageModelPairScorer, filter_pairs
from qarm.errors import InputError

WORDS = ["<pad>", "<unk>", "yes", "no", "red", "hat", "blue", "shoe", "A", "B", ":", "?"]
PROMPT = "A : {trigger} B : {target} ?"


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model")
    special = {"unk_token": "<unk>", "pad_token": "<pad>"}
    words = Tokenizer(models.WordLevel({word: n for n, word in enumerate(WORDS)}, special["unk_token"]))
    words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    PreTrainedTokenizerFast(tokenizer_object=words, **special).save_pretrained(folder)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        sizes = {"n_embd": 16, "n_layer": 1, "n_head": 2, "n_positions": 64}
        config = GPT2Config(
            vocab_size=len(WORDS), initializer_range=0.5, bos_token_id=0, eos_token_id=0, **sizes
        )
        GPT2LMHeadModel(config).save_pretrained(folder)
    return folder


@pytest.fixture
def shop(tmp_path: Path) -> Catalog:
    nothing = pl.Series([None] * 4, dtype=pl.String)
    texts = ["red hat", "blue hat", "blue shoe", None]
    frame = pl.DataFrame({"item_id": ["a", "b", "c", "d"], "text": texts, "image": nothing, "audio": nothing})
    return Catalog(frame, tmp_path)


@pytest.fixture
def pairs() -> pl.DataFrame:
    rows = [
        ("a", "b", "item2item"),
        ("b", "a", "item2item"),
        ("a", "c", "item2item"),
        ("a", "b", "user2item"),
    ]
    rows += [("a", "d", "user2item")]
    return pl.DataFrame(rows, schema=["trigger_id", "target_id", "source"], orient="row")


def test_any_callable_filters_and_what_it_rejects_is_kept(
    shop: Catalog, pairs: pl.DataFrame, tmp_path: Path
) -> None:
    asked: list[tuple[str, str]] = []

    def scorer(texts: Any) -> list[float]:
        asked.extend(texts)
        return [0.9 if trigger.split()[1] == target.split()[1] else 0.1 for trigger, target in texts]

    kept = filter_pairs(pairs, shop, scorer, batch=2, rejected=tmp_path / "rejected.parquet")
    assert asked == [("red hat", "blue hat"), ("blue hat", "red hat"), ("red hat", "blue shoe")]
    assert kept.equals(pairs.filter(pl.col("target_id") != "c"))
    rejected = pl.read_parquet(tmp_path / "rejected.parquet")
    assert rejected.drop("filter_score").equals(pairs.filter(pl.col("target_id") == "c"))
    assert rejected["filter_score"].to_list() == pytest.approx([0.1])
    assert filter_pairs(pairs, shop, scorer, threshold=0.05).equals(pairs)


@pytest.mark.parametrize("answer", [[0.5], [0.5, 2.0, 0.1], [float("nan")] * 3])
def test_odd_answers_are_refused(shop: Catalog, pairs: pl.DataFrame, answer: list[float]) -> None:
    with pytest.raises(InputError, match="the pair filter answered 3 pairs with"):
        filter_pairs(pairs, shop, lambda texts: answer)


def test_a_score_is_the_share_of_yes(model: Path) -> None:
    scorer = LanguageModelPairScorer(model, prompt=PROMPT, batch=2)
    pairs = [("red hat", "blue hat"), ("red", "shoe"), ("blue hat red hat", "shoe")]
    found = scorer(pairs)
    net = GPT2LMHeadModel.from_pretrained(model)
    for (trigger, target), score in zip(pairs, found, strict=True):
        words = PROMPT.format(trigger=trigger, target=target).split()
        with torch.no_grad():
            logits = net(torch.tensor([[WORDS.index(word) for word in words]])).logits[0, -1]
        yes, no = logits[2].exp(), logits[3].exp()
        assert score == pytest.approx(float(yes / (yes + no)), abs=1e-5)
    assert np.allclose(scorer(pairs[1:2]), found[1], atol=1e-5)


def test_the_prompt_is_a_file_that_one_can_change(model: Path, tmp_path: Path) -> None:
    (tmp_path / "prompt.txt").write_text(PROMPT)
    pairs = [("red {target}", "blue")]
    one = LanguageModelPairScorer(model, prompt=tmp_path / "prompt.txt")
    assert one._prompt(*pairs[0]) == "A : red {target} B : blue ?"
    with pytest.raises(InputError, match=r"lacks \{target\}; put the texts there"):
        LanguageModelPairScorer(model, prompt="only {trigger}")
    with pytest.raises(InputError, match="not readable as text"):
        LanguageModelPairScorer(model, prompt=tmp_path / "none.txt")
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(InputError, match="not a usable language model"):
        LanguageModelPairScorer(tmp_path)(pairs)
