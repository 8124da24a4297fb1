"""Text checkpoints of many kinds, tiny and random, against sentence-transformers' own encoding."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer import modules
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from qarm.encoder.towers.factory import open_towers
from qarm.encoder.towers.text import TextTower
from qarm.encoder.towers.trial import try_tower
from qarm.errors import InputError
from qarm.schemas.encoder import TowerOptions

WORDS = [
    "[PAD]",
    "[UNK]",
    "[CLS]",
    "[SEP]",
    "  ",
    " [X] ",
    "query:",
    "red",
    "hat",
    "a",
    "blue",
    "shop/a.png",
    "[X",
]
TEXTS = ["red hat", "a blue hat a red hat", "hat", "shop/a.png", "a"]
SMALL = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
SMALL |= {"vocab_size": len(WORDS), "pad_token_id": 0, "initializer_range": 0.5}
DECODER = SMALL | {"num_key_value_heads": 1, "head_dim": 8, "max_position_embeddings": 64}
NETWORKS: dict[str, tuple[dict[str, Any], str]] = {
    "Bert": (SMALL, "mean"),
    "Roberta": (SMALL, "mean"),
    "XLMRoberta": (SMALL, "cls"),
    "MPNet": (SMALL, "mean"),
    "Electra": (SMALL | {"embedding_size": 16}, "mean"),
    "Albert": (SMALL | {"embedding_size": 8}, "mean"),
    "ModernBert": (SMALL | {"global_attn_every_n_layers": 1}, "cls"),
    "Qwen3": (DECODER, "lasttoken"),
    "Llama": (DECODER, "lasttoken"),
}


def words() -> Tokenizer:
    found = Tokenizer(models.WordLevel({word: n for n, word in enumerate(WORDS)}, "[UNK]"))
    found.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return found


def tokenizer() -> PreTrainedTokenizerFast:
    names = {"pad_token": "[PAD]", "unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]"}
    return PreTrainedTokenizerFast(
        tokenizer_object=words(), additional_special_tokens=["  ", " [X] "], **names
    )


def network(folder: Path, name: str, dtype: torch.dtype = torch.float32) -> Path:
    settings, pooling = NETWORKS[name]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        config = getattr(transformers, f"{name}Config")(**settings)
        getattr(transformers, f"{name}Model")(config).to(dtype).save_pretrained(folder / "plain")
    tokenizer().save_pretrained(folder / "plain")
    reader = modules.Transformer(str(folder / "plain"))
    model = SentenceTransformer(modules=[reader, modules.Pooling(16, pooling_mode=pooling)], device="cpu")
    model.prompts = {"query": "query: ", "empty": ""}
    model.save_pretrained(str(folder / "made"), create_model_card=False)
    return folder / "made"


def static() -> modules.StaticEmbedding:
    table = np.random.default_rng(0).normal(size=(len(WORDS), 16)).astype(np.float32)
    return modules.StaticEmbedding(words(), embedding_weights=table)


def encoded(folder: Path, **given: Any) -> np.ndarray:
    model = SentenceTransformer(str(folder), device="cpu")
    return np.stack(
        [model.encode([{"text": t}] if "StaticE" not in str(model[0]) else [t], **given)[0] for t in TEXTS]
    )


def vectors(tower: TextTower) -> np.ndarray:
    try_tower("text", tower)
    return tower.encode([tower.load(text) for text in TEXTS])


@pytest.mark.parametrize("name", NETWORKS)
def test_texts_are_encoded_as_sentence_transformers_does(name: str, tmp_path: Path) -> None:
    folder = network(tmp_path, name)
    assert np.abs(vectors(TextTower(folder, device="cpu")) - encoded(folder)).max() < 1e-5


def test_a_table_of_words_is_a_tower(tmp_path: Path) -> None:
    for name, parts in (("table", []), ("layers", [modules.Dense(16, 8), modules.Normalize()])):
        SentenceTransformer(modules=[static(), *parts], device="cpu").save_pretrained(str(tmp_path / name))
        tower = TextTower(tmp_path / name, device="cpu")
        model = SentenceTransformer(str(tmp_path / name), device="cpu")
        found = vectors(tower)
        assert np.abs(found - model.encode(TEXTS)).max() < 1e-5
        assert found[1].tobytes() == tower.encode([TEXTS[1]])[0].tobytes()
        learning = tower.fresh()
        assert torch.allclose(learning.vectors(learning.collate(TEXTS)), torch.from_numpy(found), atol=1e-5)


@pytest.mark.parametrize("default", ["document", "query", None])
def test_the_documents_route_of_a_router_is_read(tmp_path: Path, default: str | None) -> None:
    folder = network(tmp_path, "Bert")
    reader = [modules.Transformer(str(tmp_path / "plain")), modules.Pooling(16)]
    router = modules.Router.for_query_document(
        query_modules=[static()], document_modules=reader, default_route=default, allow_empty_key=False
    )
    folder = tmp_path / "routed"
    SentenceTransformer(modules=[router], device="cpu").save_pretrained(str(folder), create_model_card=False)
    model = SentenceTransformer(str(folder), device="cpu")
    expected = model.encode(TEXTS[:3], **({} if default else {"task": "document"}))
    assert np.abs(vectors(TextTower(folder, device="cpu"))[:3] - expected).max() < 1e-5


def test_prompts_are_those_of_the_checkpoint_or_the_one_named(tmp_path: Path) -> None:
    folder = network(tmp_path, "Bert")
    plain, named = (TextTower(folder, device="cpu", options=TowerOptions(prompt=p)) for p in (None, "query"))
    assert np.abs(vectors(named) - encoded(folder, prompt_name="query")).max() < 1e-5
    assert plain.fingerprint != named.fingerprint
    settings = json.loads((folder / "config_sentence_transformers.json").read_text())
    (folder / "config_sentence_transformers.json").write_text(
        json.dumps(settings | {"default_prompt_name": "query"})
    )
    default, none = (TextTower(folder, device="cpu", options=TowerOptions(prompt=p)) for p in (None, ""))
    assert np.array_equal(vectors(default), vectors(named))
    assert np.array_equal(vectors(none), vectors(plain))
    assert default.options == TowerOptions(prompt="query")
    with pytest.raises(InputError, match="has no such prompt; it has empty, query; take one of them"):
        open_towers(text=str(folder), options=TowerOptions(prompt="passage"))


def test_only_the_first_numbers_are_kept(tmp_path: Path) -> None:
    folder = network(tmp_path, "Bert")
    tower = TextTower(folder, device="cpu", options=TowerOptions(truncate_dim=4))
    assert np.abs(vectors(tower) - encoded(folder, truncate_dim=4)).max() < 1e-5
    assert tower.fingerprint != TextTower(folder, device="cpu").fingerprint
    with pytest.raises(
        InputError, match="encoder.truncate_dim = 17: vectors of .* have 16 numbers; lower it"
    ):
        try_tower("text", TextTower(folder, device="cpu", options=TowerOptions(truncate_dim=17)))


def test_tokens_are_counted_with_the_prompt_and_without_a_cut(tmp_path: Path) -> None:
    folder = network(tmp_path, "Bert")
    tower, named = (TextTower(folder, device="cpu", options=TowerOptions(prompt=p)) for p in (None, "query"))
    tower.model.max_seq_length = named.model.max_seq_length = 8
    lengths, longest = tower.tokens(["a", "red hat " * 50])
    assert (lengths, longest) == ([1, 100], 8)
    assert named.tokens(["a", "red hat " * 50])[0] == [2, 101]
    SentenceTransformer(modules=[static()], device="cpu").save_pretrained(str(tmp_path / "table"))
    assert TextTower(tmp_path / "table", device="cpu").tokens(["a"]) == ([], None)


def test_special_tokens_of_spaces_do_no_harm(tmp_path: Path) -> None:
    tower = TextTower(network(tmp_path, "Bert"), device="cpu")
    assert tower.load("red  hat   a [X] b") == "red  hat   a [ X] b"


@pytest.mark.parametrize("kind", [torch.float16, torch.bfloat16])
def test_half_precision_learns_in_single(tmp_path: Path, kind: torch.dtype) -> None:
    tower = TextTower(network(tmp_path, "Bert", kind), device="cpu")
    assert {p.dtype for p in tower.network.parameters()} == {kind}
    assert vectors(tower).dtype == np.float32
    learning = tower.fresh()
    assert {p.dtype for p in learning.network.parameters()} == {torch.float32}
    with torch.no_grad():
        for parameter in learning.network.parameters():
            parameter.add_(1e-5)  # lost in either half precision
    learned = learning.learned()
    assert {p.dtype for p in learned.network.parameters()} == {torch.float32}
    assert np.abs(learned.encode(TEXTS) - learning.encode(TEXTS)).max() < 1e-6


def test_code_of_its_own_and_strange_files_are_refused_in_one_line(tmp_path: Path) -> None:
    folder = network(tmp_path, "Bert")
    config = json.loads((folder / "config.json").read_text())
    for change, reason in (
        (
            {"model_type": "strange", "auto_map": {"AutoModel": "code.M", "AutoConfig": "code.C"}},
            "is never run",
        ),
        ({"hidden_size": 20}, "not a usable checkpoint"),
        ({"num_attention_heads": 3}, "not a usable checkpoint"),
    ):
        (folder / "config.json").write_text(json.dumps(config | change))
        with pytest.raises(InputError, match=reason) as refused:
            try_tower("text", TextTower(folder, device="cpu"))
        assert "\n" not in refused.value.problems[0]


def test_several_towers_of_one_modality(tmp_path: Path) -> None:
    first = network(tmp_path, "Bert")
    SentenceTransformer(modules=[static()], device="cpu").save_pretrained(str(tmp_path / "table"))
    named = [str(first), str(tmp_path / "table")]
    towers = open_towers(text=named, options=TowerOptions(prompt="query"))
    assert list(towers) == ["text", "text2"]
    assert [tower.options.prompt for tower in towers.values()] == ["query", None]
    with pytest.raises(InputError, match="one is there twice"):
        open_towers(text=[named[0], named[0]])
    with pytest.raises(InputError, match="'logmel' reads audio; set it as encoder.audio"):
        open_towers(image="logmel")
