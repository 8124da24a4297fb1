"""A tiny random EmbeddingGemma 2, read, aligned and read again: `python tiny_gemma.py TORCHVISION FOLDER`.

Its processor asks for torchvision even for pictures alone, which breaks beside a CPU build of torch unless
its two operators are defined first. So it lies in a folder of its own and this runs in a process of its own.
"""

import io
import sys
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import soundfile
import torch
from PIL import Image
from tokenizers import Tokenizer, models, pre_tokenizers

OPERATORS = torch.library.Library("torchvision", "DEF")
OPERATORS.define("nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
OPERATORS.define("qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
sys.path.insert(0, sys.argv[1])

from transformers import (  # noqa: E402 - after the operators
    EmbeddingGemma2Config,
    EmbeddingGemma2Model,
    EmbeddingGemma2Processor,
    EmbeddingGemma2VideoProcessor,
    Gemma4AudioFeatureExtractor,
    PreTrainedTokenizerFast,
)
from transformers.models.gemma4.image_processing_pil_gemma4 import Gemma4ImageProcessorPil  # noqa: E402

from qarm.data.catalog import Catalog  # noqa: E402
from qarm.encoder.alignment.align import align  # noqa: E402
from qarm.encoder.encoder import Encoder  # noqa: E402
from qarm.encoder.towers.multimodal import ItemTower  # noqa: E402

NAMED = {"image_token": "<image>", "boi_token": "<boi>", "eoi_token": "<eoi>"}
NAMED |= {"audio_token": "<audio>", "boa_token": "<boa>", "eoa_token": "<eoa>"}
SPECIAL = ["<pad>", "<eos>", "<bos>", "<unk>", *NAMED.values(), "<|video|>"]
WORDS = [*SPECIAL, "red", "hat", "blue", "shoe", *map(str, range(10))]
TEMPLATE = (
    "{{ bos_token }} {% for message in messages %}{% for part in message['content'] %}"
    "{% if part['type'] == 'text' %}{{ part['text'] }}{% else %}<{{ part['type'] }}>{% endif %} "
    "{% endfor %}{% endfor %}<eos>"
)
SMALL: dict[str, Any] = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2}
SMALL |= {"num_attention_heads": 2, "num_key_value_heads": 2, "head_dim": 8}


def checkpoint(folder: Path) -> Path:
    words = Tokenizer(models.WordLevel({word: n for n, word in enumerate(WORDS)}, "<unk>"))
    words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    ends = {"pad_token": "<pad>", "eos_token": "<eos>", "bos_token": "<bos>", "unk_token": "<unk>"}
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=words, additional_special_tokens=SPECIAL[4:], extra_special_tokens=NAMED, **ends
    )
    number = {name: WORDS.index(token) for name, token in NAMED.items()}
    text = SMALL | {"vocab_size": len(WORDS), "hidden_size_per_layer_input": 4, "embedding_dim": 8}
    text |= {"global_head_dim": 8, "layer_types": ["sliding_attention", "full_attention"]}
    audio = {"model_type": "gemma4_audio", "hidden_size": 16, "num_hidden_layers": 1}
    audio |= {"num_attention_heads": 2, "subsampling_conv_channels": [128, 4], "output_proj_dims": 16}
    config = EmbeddingGemma2Config(
        text_config=text,
        vision_config=SMALL | {"model_type": "gemma4_vision", "position_embedding_size": 64},
        audio_config=audio,
        boi_token_id=number["boi_token"],
        eoi_token_id=number["eoi_token"],
        image_token_id=number["image_token"],
        boa_token_id=number["boa_token"],
        eoa_token_index=number["eoa_token"],
        audio_token_id=number["audio_token"],
        video_token_id=WORDS.index("<|video|>"),
    )
    torch.manual_seed(0)
    EmbeddingGemma2Model(config).save_pretrained(folder)
    EmbeddingGemma2Processor(
        feature_extractor=Gemma4AudioFeatureExtractor(),
        image_processor=Gemma4ImageProcessorPil(max_soft_tokens=70),
        tokenizer=tokenizer,
        video_processor=EmbeddingGemma2VideoProcessor(),
        chat_template=TEMPLATE,
    ).save_pretrained(folder)
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


def main() -> None:
    folder = Path(sys.argv[2])
    tower = ItemTower(checkpoint(folder / "checkpoint"))
    print("reads", *tower.modalities, "joint", tower.joint)
    whole = {"text": "red hat", "image": picture(0), "audio": sound(0)}
    items: list[dict[str, Any]] = [whole, *({part: content} for part, content in whole.items())]
    items.append(dict(reversed(whole.items())))
    vectors = tower.encode([tower.load(item) for item in items])
    print("distinct", len({vector.tobytes() for vector in vectors[:4]}))
    print("order", np.array_equal(vectors[0], vectors[4]))
    print("plain", tower.load({"text": "red <image> hat"})["text"])
    rows = range(8)
    frame = pl.DataFrame(
        {
            "item_id": [f"i{n}" for n in rows],
            "text": [("red hat", "blue shoe")[n % 2] + f" {n}" for n in rows],
            "image": pl.Series([picture(n % 2) if n % 3 else None for n in rows], dtype=pl.Binary),
            "audio": pl.Series([sound(n % 2) if n % 4 == 1 else None for n in rows], dtype=pl.Binary),
        }
    )
    pairs = pl.DataFrame({"trigger_id": ["i0", "i2", "i1", "i3"], "target_id": ["i2", "i4", "i3", "i5"]})
    catalog = Catalog(frame, folder)
    settings: dict[str, Any] = {"tune": "full", "fusion": "none", "batch": 4, "min_steps": 2, "epochs": 1}
    encoder = align(catalog, pairs, model=str(folder / "checkpoint"), chunk=3, **settings)
    encoder.save_pretrained(folder / "encoder")
    again = Encoder.from_pretrained(folder / "encoder")
    print("moved", not np.array_equal(encoder.embed(catalog).vectors, encoder.raw(catalog).vectors))
    print("same", np.array_equal(encoder.embed(catalog).vectors, again.embed(catalog).vectors))


if __name__ == "__main__":
    main()
