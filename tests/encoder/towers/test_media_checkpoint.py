"""Picture and sound checkpoints of many architectures, tiny and random, against transformers itself."""

import io
import json
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
import transformers
from PIL import Image

from qarm.data.media_decoding import load_audio, load_image
from qarm.encoder.towers.media_checkpoint import AudioCheckpoint, ImageCheckpoint
from qarm.encoder.towers.trial import try_tower
from qarm.errors import InputError
from qarm.schemas.encoder import TowerOptions

SMALL = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
PATCHES = SMALL | {"image_size": 32, "patch_size": 8}
STAGES = {"hidden_sizes": [8, 16], "depths": [1, 1], "num_stages": 2, "embedding_size": 8}
SQUARE = {"size": {"height": 32, "width": 32}}
CROPPED = {"size": {"shortest_edge": 32}, "crop_size": {"height": 32, "width": 32}}
WAVES = SMALL | {"conv_dim": [16, 16], "conv_stride": [160, 4], "conv_kernel": [160, 4]}
WAVES |= {"num_feat_extract_layers": 2, "num_conv_pos_embeddings": 4, "num_conv_pos_embedding_groups": 2}

# architecture, its settings, the picture processor and its settings
PICTURES: dict[str, tuple[dict[str, Any], str, dict[str, Any]]] = {
    "ViT": (PATCHES, "ViT", SQUARE),
    "DeiT": (PATCHES, "DeiT", SQUARE | {"do_center_crop": False}),
    "Beit": (PATCHES, "Beit", SQUARE | {"do_center_crop": False}),
    "Dinov2": (PATCHES, "Bit", CROPPED),
    "Dinov2WithRegisters": (PATCHES, "Bit", CROPPED),
    "ResNet": (STAGES | {"layer_type": "basic"}, "ConvNext", {"size": {"shortest_edge": 32}}),
    "RegNet": (STAGES | {"groups_width": 8}, "ConvNext", {"size": {"shortest_edge": 32}}),
    "ConvNext": ({k: v for k, v in STAGES.items() if k != "embedding_size"}, "ConvNext", CROPPED),
    "ConvNextV2": ({k: v for k, v in STAGES.items() if k != "embedding_size"}, "ConvNext", CROPPED),
    "MobileNetV1": (
        {"image_size": 32, "depth_multiplier": 0.25, "initializer_range": 0.4},
        "MobileNetV1",
        CROPPED,
    ),
    "MobileNetV2": (
        {"image_size": 32, "depth_multiplier": 0.25, "initializer_range": 0.4},
        "MobileNetV2",
        CROPPED,
    ),
    "EfficientNet": (
        {
            "image_size": 32,
            "width_coefficient": 0.1,
            "depth_coefficient": 0.1,
            "hidden_dim": 128,
            "initializer_range": 0.4,
        },
        "EfficientNet",
        SQUARE,
    ),
    "Swin": (
        {
            "image_size": 32,
            "patch_size": 4,
            "embed_dim": 8,
            "depths": [1, 1],
            "num_heads": [1, 2],
            "window_size": 4,
        },
        "ViT",
        SQUARE,
    ),
    "CLIPVision": (PATCHES, "CLIP", CROPPED),
    "SiglipVision": (PATCHES, "Siglip", SQUARE),
}
SOUNDS: dict[str, tuple[dict[str, Any], str, dict[str, Any]]] = {
    "Whisper": (
        {
            "d_model": 16,
            "encoder_layers": 1,
            "decoder_layers": 1,
            "encoder_attention_heads": 2,
            "decoder_attention_heads": 2,
            "encoder_ffn_dim": 32,
            "decoder_ffn_dim": 32,
            "num_mel_bins": 80,
            "vocab_size": 50,
            "pad_token_id": 0,
            "bos_token_id": 1,
            "eos_token_id": 2,
            "decoder_start_token_id": 1,
            "max_source_positions": 1500,
        },
        "Whisper",
        {},
    ),
    "AST": (SMALL | {"max_length": 128, "num_mel_bins": 32}, "AST", {"max_length": 128, "num_mel_bins": 32}),
    "Wav2Vec2": (WAVES, "Wav2Vec2", {}),
    "Hubert": (WAVES, "Wav2Vec2", {}),
    "WavLM": (WAVES | {"num_buckets": 20}, "Wav2Vec2", {}),
    "UniSpeech": (WAVES, "Wav2Vec2", {}),
    "Data2VecAudio": (WAVES | {"conv_pos_kernel_size": 3, "num_conv_pos_embeddings": 2}, "Wav2Vec2", {}),
}


def made(folder: Path, name: str, settings: dict[str, Any]) -> Path:
    with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.manual_seed(0)
        config = getattr(transformers, f"{name}Config")(**settings)
        getattr(transformers, f"{name}Model")(config).save_pretrained(folder)
    return folder


def picture_checkpoint(folder: Path, name: str) -> Path:
    settings, processor, options = PICTURES[name]
    getattr(transformers, f"{processor}ImageProcessorPil")(**options).save_pretrained(folder)
    return made(folder, name, settings)


def sound_checkpoint(folder: Path, name: str) -> Path:
    settings, extractor, options = SOUNDS[name]
    getattr(transformers, f"{extractor}FeatureExtractor")(**options).save_pretrained(folder)
    return made(folder, name, settings)


def picture(seed: int, size: tuple[int, int] = (40, 50)) -> bytes:
    content = io.BytesIO()
    pixels = np.random.default_rng(seed).integers(0, 255, (*size, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(content, "PNG")
    return content.getvalue()


def sound(seed: int) -> bytes:
    content = io.BytesIO()
    samples = np.random.default_rng(seed).normal(size=6000).astype(np.float32) * 0.1
    soundfile.write(content, samples, 8000, format="WAV")
    return content.getvalue()


def pooled(found: Any) -> torch.Tensor:
    own = getattr(found, "pooler_output", None)
    return found.last_hidden_state.mean(1) if own is None else own.flatten(1)


def same_in_any_company(tower: Any, contents: list[bytes], expected: np.ndarray) -> None:
    loaded = [tower.load(content) for content in contents]
    vectors = tower.encode(loaded)
    assert vectors.dtype == np.float32
    assert np.abs(vectors - expected).max() < 1e-5
    assert not np.array_equal(vectors[0], vectors[1])
    assert vectors[1].tobytes() == tower.encode(loaded[1:])[0].tobytes()


@pytest.mark.parametrize("name", PICTURES)
def test_pictures_are_encoded_as_transformers_does(name: str, tmp_path: Path) -> None:
    folder = picture_checkpoint(tmp_path / "made", name)
    tower = ImageCheckpoint(folder, device="cpu")
    try_tower("image", tower)
    contents = [picture(0), picture(1, (64, 33))]
    model = transformers.AutoModel.from_pretrained(folder).eval()
    processor = transformers.AutoImageProcessor.from_pretrained(folder)
    with torch.no_grad():
        expected = [pooled(model(**processor(load_image(c), return_tensors="pt"))).numpy() for c in contents]
    same_in_any_company(tower, contents, np.concatenate(expected))
    tower.save(tmp_path / "saved")
    again = ImageCheckpoint(tmp_path / "saved", device="cpu")
    assert again.fingerprint == tower.fingerprint
    assert (
        again.encode([again.load(contents[0])]).tobytes() == tower.encode([tower.load(contents[0])]).tobytes()
    )


@pytest.mark.parametrize("name", SOUNDS)
def test_sounds_are_encoded_as_transformers_does(name: str, tmp_path: Path) -> None:
    folder = sound_checkpoint(tmp_path, name)
    tower = AudioCheckpoint(folder, device="cpu")
    try_tower("audio", tower)
    contents = [sound(0), sound(1)]
    samples = [load_audio(content, 16_000, seconds=10.0) for content in contents]
    extractor = transformers.AutoFeatureExtractor.from_pretrained(folder)
    model = transformers.AutoModel.from_pretrained(folder).eval()
    if name == "Whisper":  # 500 frames of its 1,500 are ten seconds
        model = model.get_encoder()
        model.config.max_source_positions = 500
        model.embed_positions = torch.nn.Embedding.from_pretrained(model.embed_positions.weight[:500])
        extractor.n_samples = 160_000
    with torch.no_grad():
        read = [extractor(s, sampling_rate=16_000, return_tensors="pt") for s in samples]
        same_in_any_company(tower, contents, np.concatenate([pooled(model(**one)).numpy() for one in read]))


def test_weights_that_are_missing_are_never_drawn(tmp_path: Path) -> None:
    folder = picture_checkpoint(tmp_path / "vit", "ViT")
    config = transformers.ViTConfig(**PATCHES)
    transformers.ViTForImageClassification(config).save_pretrained(folder)  # has no pooler
    tower = ImageCheckpoint(folder, device="cpu")
    loaded = tower.load(picture(0))
    with torch.no_grad():
        states = tower.model(**loaded).last_hidden_state
    assert np.abs(tower.encode([loaded]) - states[:, 0].numpy()).max() < 1e-5
    mean = ImageCheckpoint(folder, device="cpu", options=TowerOptions(pooling="mean"))
    assert np.abs(mean.encode([loaded]) - states.mean(1).numpy()).max() < 1e-5
    assert mean.fingerprint != tower.fingerprint
    with pytest.raises(InputError, match="no weights for pooled output; take cls or mean"):
        try_tower("image", ImageCheckpoint(folder, device="cpu", options=TowerOptions(pooling="pooler")))
    transformers.ViTForImageClassification(
        transformers.ViTConfig(**PATCHES | {"num_hidden_layers": 1})
    ).save_pretrained(tmp_path / "less")
    (tmp_path / "less" / "config.json").write_text((folder / "config.json").read_text())
    with pytest.raises(InputError, match=r"encoder.image = .*: the checkpoint lacks weights "):
        ImageCheckpoint(tmp_path / "less", device="cpu").model  # noqa: B018 - it is loaded


def test_what_cannot_be_encoded_is_refused_in_one_line(tmp_path: Path) -> None:
    random = made(
        tmp_path / "mae", "ViTMAE", PATCHES | {"decoder_hidden_size": 16, "decoder_num_attention_heads": 2}
    )
    transformers.ViTImageProcessorPil(**SQUARE).save_pretrained(random)
    bare = made(tmp_path / "bare", "ViT", PATCHES)
    (strange := tmp_path / "strange").mkdir()
    (strange / "config.json").write_text(json.dumps({"model_type": "nobody_knows"}))
    (strange / "model.safetensors").write_bytes((bare / "model.safetensors").read_bytes())
    for folder, reason in (
        (random, "comes out differently each time"),
        (bare, "not a usable checkpoint"),
        (strange, "not a usable checkpoint"),
    ):
        with pytest.raises(InputError, match=reason) as refused:
            try_tower("image", ImageCheckpoint(folder, device="cpu"))
        assert refused.value.problems[0].startswith(f"encoder.image = '{folder}'")
        assert "\n" not in refused.value.problems[0]


def test_half_precision_learns_in_single(tmp_path: Path) -> None:
    folder = picture_checkpoint(tmp_path, "ResNet")
    transformers.AutoModel.from_pretrained(folder).to(torch.bfloat16).save_pretrained(folder)
    tower = ImageCheckpoint(folder, device="cpu")
    assert {p.dtype for p in tower.model.parameters()} == {torch.bfloat16}
    fresh = tower.fresh()
    assert {p.dtype for p in fresh.network.parameters()} == {torch.float32}
    fresh.network.train()
    loaded = [fresh.load(picture(seed)) for seed in range(3)]
    together, alone = (fresh.vectors(fresh.collate(some)).detach() for some in (loaded, loaded[:1]))
    assert torch.allclose(together[:1], alone, atol=1e-5)
    with torch.no_grad():
        for parameter in fresh.network.parameters():
            parameter.add_(0.01)
    learned = fresh.learned()
    assert np.abs(learned.encode(loaded[:1]) - tower.encode(loaded[:1])).max() > 1e-3
    fresh.network.eval()
    assert np.abs(learned.encode(loaded[:1]) - fresh.encode(loaded[:1])).max() < 1e-6
