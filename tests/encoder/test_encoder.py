"""The encoder's folder: whole, without pickle, and the same vectors when read again."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from qarm.data.catalog import Catalog
from qarm.encoder.alignment.align import align
from qarm.encoder.embed import embed
from qarm.encoder.encoder import Encoder
from qarm.errors import ArtifactError, InputError

World = tuple[Catalog, pl.DataFrame]
FEW = {"dim": 16, "hidden": 32, "batch": 64, "epochs": 1, "min_steps": 1}


@pytest.fixture
def saved(world: World, fake: Any, tmp_path: Path) -> tuple[Encoder, dict[str, Any], Path]:
    towers = {m: fake(m) for m in ("text", "image")}
    encoder = align(*world, towers=towers, **FEW)
    encoder.save_pretrained(tmp_path / "encoder")
    return encoder, towers, tmp_path / "encoder"


def test_saved_and_read_again_the_vectors_are_the_same(world: World, saved: Any) -> None:
    encoder, towers, folder = saved
    again = Encoder.from_pretrained(folder, towers=towers)
    catalog = world[0]
    assert embed(again, catalog).vectors.tobytes() == encoder.embed(catalog).vectors.tobytes()
    assert again.raw(catalog).vectors.tobytes() == encoder.raw(catalog).vectors.tobytes()
    assert again.summary == encoder.summary
    assert (again.dim, again.modalities) == (16, ["image", "text"])


def test_the_folder_holds_safetensors_json_and_a_card(saved: Any) -> None:
    folder = saved[2]
    saved[0].save_pretrained(folder)  # over an older one
    names = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    assert names == {"config.json", "model.safetensors", "README.md"}
    assert sorted(path.name for path in folder.iterdir() if path.is_dir()) == ["image", "text"]
    card = (folder / "README.md").read_text()
    assert "| text | fake | 28 | see its source |" in card
    assert "Encoder.from_pretrained" in card
    assert "- steps: 5" in card


def test_what_is_no_encoder_is_refused(saved: Any, tmp_path: Path) -> None:
    _, towers, folder = saved
    with pytest.raises(InputError, match=r"no config\.json; give a folder written by"):
        Encoder.from_pretrained(tmp_path)
    with pytest.raises(InputError, match="the image tower is a FakeTower of your own; pass it as"):
        Encoder.from_pretrained(folder)
    (tmp_path / "config.json").write_text('{"model_type": "bert"}')
    with pytest.raises(InputError, match="not of format 'qarm-encoder-1'"):
        Encoder.from_pretrained(tmp_path)
    (folder / "config.json").write_text("{")
    with pytest.raises(ArtifactError, match="not JSON"):
        Encoder.from_pretrained(folder, towers=towers)


def test_what_was_changed_since_is_refused(saved: Any, fake: Any) -> None:
    _, towers, folder = saved
    newer = {"text": fake("text", revision="2"), "image": towers["image"]}
    with pytest.raises(ArtifactError, match="the text tower is not the one that was saved"):
        Encoder.from_pretrained(folder, towers=newer)
    weights = folder / "model.safetensors"
    content = weights.read_bytes()
    weights.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    with pytest.raises(ArtifactError, match="missing or not what was saved"):
        Encoder.from_pretrained(folder, towers=towers)
    weights.write_bytes(b"junk")
    config = json.loads((folder / "config.json").read_text())
    config["weights_sha256"] = "9e7ad6f2a1a2f8e0b1f5b1a5d1a5d1a5"
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(ArtifactError):
        Encoder.from_pretrained(folder, towers=towers)


def test_items_that_lack_a_modality_get_their_own_vectors(world: World, saved: Any) -> None:
    encoder, catalog = saved[0], world[0]
    found = encoder.embed(catalog).rows(["i3", "i17"])
    assert np.isfinite(found).all()
    assert np.abs(found[0] - found[1]).max() > 1e-3
    blind = catalog.without_media(images=["i5"])
    changed = np.abs(encoder.embed(blind).vectors - encoder.embed(catalog).vectors).max(axis=1) > 0
    assert np.flatnonzero(changed).tolist() == [5]


def test_raw_vectors_are_zero_where_a_modality_is_missing(world: World, saved: Any) -> None:
    raw = saved[0].raw(world[0]).rows(["i3", "i4"])
    assert np.count_nonzero(raw[0, :5]) == 0
    assert np.linalg.norm(raw[1, :5]) == pytest.approx(0.5**0.5)
    assert np.linalg.norm(raw, axis=1) == pytest.approx([1, 1])
