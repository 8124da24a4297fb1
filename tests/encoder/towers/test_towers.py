"""The real towers: packaged encoders, and a random BERT made on the spot."""

import io
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from PIL import Image
from transformers import BertConfig, BertModel, BertTokenizerFast

from qarm.encoder.towers import checkpoint as checkpoint_module
from qarm.encoder.towers import image as image_module
from qarm.encoder.towers.audio import LogMel, mel_bands
from qarm.encoder.towers.image import ImageTower
from qarm.encoder.towers.text import TextTower
from qarm.encoder.towers.tower import side_by_side, tensors_digest
from qarm.errors import ArtifactError, InputError, MissingExtraError

WORDS = [
    "[PAD]",
    "[UNK]",
    "[CLS]",
    "[SEP]",
    "[MASK]",
    "[",
    "]",
    "mask",
    "sep",
    "a",
    "red",
    "hat",
    "/",
    ".",
    "etc",
]


@pytest.fixture(scope="module")
def bert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random two-layer BERT in a folder, as transformers saves it."""
    folder = tmp_path_factory.mktemp("bert")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        sizes = {"hidden_size": 32, "intermediate_size": 64, "max_position_embeddings": 64}
        config = BertConfig(
            vocab_size=len(WORDS), num_hidden_layers=2, num_attention_heads=2, initializer_range=0.5, **sizes
        )
        BertModel(config).save_pretrained(folder)
    BertTokenizerFast(vocab={word: n for n, word in enumerate(WORDS)}).save_pretrained(folder)
    return folder


def test_side_by_side_keeps_order_and_leaves_the_thread_count() -> None:
    before = torch.get_num_threads()
    found = side_by_side(lambda x: (x * x, torch.get_num_threads()), range(20))
    assert [square for square, _ in found] == [x * x for x in range(20)]
    assert {threads for _, threads in found} == {1}
    counts: list[int] = []
    later = threading.Thread(target=lambda: counts.append(torch.get_num_threads()))
    later.start()
    later.join()
    assert [torch.get_num_threads(), *counts] == [before, before]


def test_tensors_digest_sees_names_shapes_and_values() -> None:
    ones = torch.ones(4)
    digests = [
        tensors_digest(tensors)
        for tensors in (
            {"a": ones},
            {"b": ones},
            {"a": ones.reshape(2, 2)},
            {"a": ones * 2},
            {"a": ones.double()},
        )
    ]
    assert len(set(digests)) == 5
    assert tensors_digest({"a": ones, "b": ones * 2}) == tensors_digest({"b": ones * 2, "a": ones})


# ---- text -------------------------------------------------------------------------------------


def test_a_text_is_encoded_alike_beside_any_other(bert: Path) -> None:
    tower = TextTower(bert, device="cpu")
    texts = ["red hat", "a red hat . " * 9, "hat", "a", "red red red", "hat a"]
    together = tower.encode(texts)
    assert (together.shape, together.dtype) == ((6, 32), np.float32)
    alone = np.concatenate([tower.encode([text]) for text in texts])
    assert np.abs(together - alone).max() < 1e-6
    assert np.abs(together[0] - together[1]).max() > 0.01


@pytest.mark.parametrize("alike", [True, False])
def test_a_text_goes_alone_only_where_that_gives_the_bits_of_four(
    bert: Path, monkeypatch: pytest.MonkeyPatch, alike: bool
) -> None:
    """As if this machine's kernels did, or did not, take another path for another number of rows."""
    tower, sizes = TextTower(bert, device="cpu"), []
    together = tower._together

    def watched(tokens: list[dict[str, Any]]) -> np.ndarray:
        sizes.append(len(tokens))
        found = together(tokens[:1] * 4)[: len(tokens)]
        return found if alike or len(tokens) == 4 else found + 1e-7

    monkeypatch.setattr(tower, "_together", watched)
    first = tower.encode(["red hat"])
    assert sizes == [4, 1]
    assert np.array_equal(tower.encode(["red hat"]), first)
    assert np.array_equal(tower.encode(["red hat"] * 2), np.concatenate([first, first]))
    assert sizes[2:] == ([1, 1, 1] if alike else [4, 4])
    assert len(tower.encode(["red hat"] * 5)) == 5
    assert sizes[5 if alike else 4 :] == ([4, 1] if alike else [4, 4])


@pytest.mark.parametrize("side", ["left", "right"])
def test_texts_are_collated_as_the_tokenizer_pads_them(bert: Path, side: str) -> None:
    tower = TextTower(bert, device="cpu")
    tower.model.tokenizer.padding_side = side
    texts = ["a", "a soft cream", "soap", "cream a a soft"]
    wanted = tower.preprocessed([{"text": text} for text in texts])
    for made in (tower.collate(texts), tower.collate(texts)):
        assert made.keys() == wanted.keys()
        for key, values in wanted.items():
            same = torch.equal(made[key], values) if isinstance(values, torch.Tensor) else made[key] == values
            assert same, key
    assert tower._padding is not None
    assert tower._padding[0] == side


def test_special_tokens_in_a_text_are_read_as_text(bert: Path) -> None:
    tower = TextTower(bert, device="cpu")
    text = tower.load("a [MASK] hat [SEP]")
    assert text == "a [ MASK] hat [ SEP]"
    ids = tower.model.tokenizer(text)["input_ids"]
    assert WORDS.index("[MASK]") not in ids
    assert ids.count(WORDS.index("[SEP]")) == 1


def test_paths_and_addresses_are_read_as_text(bert: Path, tmp_path: Path) -> None:
    picture = tmp_path / "a.png"
    Image.new("RGB", (4, 4)).save(picture)
    tower = TextTower(bert, device="cpu")
    found = tower.encode([str(picture), "https://localhost/a.png", "etc"])
    assert np.isfinite(found).all()
    assert found.shape == (3, 32)


def test_a_saved_text_tower_is_the_same_tower_without_pickles(bert: Path, tmp_path: Path) -> None:
    (bert / "pytorch_model.bin").write_bytes(b"pickle")
    tower = TextTower(bert, device="cpu")
    tower.save(tmp_path / "text")
    assert not list((tmp_path / "text").rglob("*.bin"))
    again = TextTower(tmp_path / "text", device="cpu")
    assert again.fingerprint == tower.fingerprint
    assert np.array_equal(again.encode(["red hat"]), tower.encode(["red hat"]))
    (tmp_path / "text" / "vocab.txt").write_text("other")
    assert TextTower(tmp_path / "text").fingerprint != tower.fingerprint


def test_folders_that_are_no_checkpoints_are_refused(bert: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"neither modules\.json nor config\.json"):
        TextTower(tmp_path)
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(InputError, match=r"has no \*\.safetensors"):
        TextTower(tmp_path)
    (tmp_path / "model.safetensors").write_bytes(b"junk")
    with pytest.raises(InputError, match="not a usable checkpoint"):
        TextTower(tmp_path, device="cpu").encode(["a"])


def test_a_checkpoint_with_code_of_its_own_is_refused(bert: Path, tmp_path: Path) -> None:
    TextTower(bert).save(tmp_path / "remote")
    config = '{"model_type": "strange", "auto_map": {"AutoConfig": "code.C", "AutoModel": "code.M"}}'
    (tmp_path / "remote" / "config.json").write_text(config)
    (tmp_path / "remote" / "code.py").write_text("raise SystemExit('this must not run')")
    with pytest.raises(InputError, match="not a usable checkpoint: .* contains custom code"):
        TextTower(tmp_path / "remote", device="cpu").encode(["a"])


def test_a_name_that_is_nowhere_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    def offline(*args: Any, **kwargs: Any) -> str:
        raise OSError("no network\nand more")

    monkeypatch.setattr("huggingface_hub.snapshot_download", offline)
    with pytest.raises(InputError, match=r"'nobody/nothing': neither .* hub \(no network\)"):
        TextTower("nobody/nothing")


def test_missing_or_other_packages_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    for module, opened in (
        (checkpoint_module, lambda: TextTower("all-minilm-l6-v2")),
        (image_module, ImageTower),
    ):
        with monkeypatch.context() as patch:
            patch.setattr(module, "WEIGHTS_SHA256", "0" * 64)
            with pytest.raises(InputError, match="weights have SHA-256"):
                opened()
            patch.setattr(module, "find_spec", lambda name: None)
            with pytest.raises(MissingExtraError, match=r'pip install "qarm\[demo\]"'):
                opened()


# ---- pictures ---------------------------------------------------------------------------------


def picture(colour: str, size: tuple[int, int] = (40, 30)) -> bytes:
    stream = io.BytesIO()
    Image.new("RGB", size, colour).save(stream, "PNG")
    return stream.getvalue()


def test_a_picture_is_encoded_alike_beside_any_other_and_after_saving(tmp_path: Path) -> None:
    tower = ImageTower(device="cpu")
    inputs = [tower.load(picture(colour)) for colour in ("red", "green", "blue")]
    assert (inputs[0].shape, inputs[0].dtype) == ((224, 224, 3), np.uint8)
    together = tower.encode(inputs)
    assert (together.shape, together.dtype) == ((3, 1280), np.float32)
    tower.save(tmp_path / "image")
    again = ImageTower(tmp_path / "image", device="cpu")
    assert again.fingerprint == tower.fingerprint
    assert np.array_equal(again.encode(inputs[1:2]), together[1:2])
    (tmp_path / "image" / "model.safetensors").write_bytes(b"junk")
    with pytest.raises(ArtifactError, match="picture weights are not readable"):
        ImageTower(tmp_path / "image")


def test_folded_normalisation_changes_nothing() -> None:
    from efficientnet_lite_pytorch import EfficientNet

    tower = ImageTower(device="cpu")
    plain = EfficientNet.from_name("efficientnet-lite0", image_size=224)
    plain._fc = torch.nn.Identity()
    plain.load_state_dict(tower._weights)
    pixels = np.random.default_rng(0).integers(0, 256, (224, 224, 3), dtype=np.uint8)
    x = (torch.from_numpy(pixels).permute(2, 0, 1)[None] / 255 - 0.498) / 0.502
    with torch.inference_mode():
        expected = plain.eval().extract_features(x).mean((2, 3)).numpy()
    assert np.abs(tower.encode([pixels]) - expected).max() < 1e-3


# ---- sounds -----------------------------------------------------------------------------------


def sound(pitch: float, *, loud: float = 0.5, seconds: float = 0.7) -> bytes:
    stream = io.BytesIO()
    time = np.arange(round(16_000 * seconds)) / 16_000
    soundfile.write(stream, loud * np.sin(2 * np.pi * pitch * time), 16_000, format="WAV", subtype="FLOAT")
    return stream.getvalue()


def test_mel_bands_are_even_in_pitch_and_sum_to_one() -> None:
    bands = mel_bands(16_000, 1024, bands=64, lowest=40.0)
    assert bands.shape == (64, 513)
    assert np.allclose(bands.sum(axis=1), 1)
    middles = bands @ np.linspace(0, 8_000, 513)
    mels = 2595 * np.log10(1 + middles / 700)
    assert np.allclose(np.diff(mels), np.diff(mels).mean(), rtol=0.25)


@pytest.mark.parametrize("pitch", [200.0, 1_000.0, 4_000.0])
def test_a_tone_lights_up_its_own_band(pitch: float) -> None:
    tower = LogMel()
    found = tower.encode([tower.load(sound(pitch))])
    assert (found.shape, found.dtype) == ((1, 64, 64), np.float16)
    bands = mel_bands(16_000, 1024, bands=64, lowest=40.0)
    middle = bands @ np.linspace(0, 8_000, 513)
    loudest = found[0].astype(np.float32).mean(axis=0).argmax()
    assert abs(loudest - np.abs(middle - pitch).argmin()) <= 1


def test_loudness_does_not_matter() -> None:
    tower = LogMel()
    loud, quiet = (tower.load(sound(500.0, loud=loud)).astype(np.float32) for loud in (0.9, 0.01))
    assert np.abs(loud - quiet).max() < 0.02


def test_the_sound_tower_saves_its_settings(tmp_path: Path) -> None:
    LogMel().save(tmp_path / "audio")
    assert '"rate": 16000' in (tmp_path / "audio" / "config.json").read_text()
