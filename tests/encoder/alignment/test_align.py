"""Alignment: what it learns, what it must not see, and that the same seed gives the same bytes."""

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch

from qarm.config import EncoderConfig
from qarm.data.catalog import Catalog
from qarm.encoder.alignment.align import align
from qarm.encoder.alignment.loss import Positives
from qarm.encoder.alignment.model import AlignmentModel
from qarm.encoder.alignment.pair_dataset import TrainingPairs
from qarm.encoder.alignment.trainer import recall_at
from qarm.encoder.alignment.trainer import train as train_learner
from qarm.encoder.encoder import Encoder
from qarm.encoder.feature_cache import tower_features
from qarm.encoder.heads import Heads
from qarm.errors import ArtifactError, InputError

World = tuple[Catalog, pl.DataFrame]
FEW = {"dim": 16, "hidden": 32, "batch": 64, "epochs": 3, "min_steps": 1}
FEW |= {"lr": 0.01, "dropout": 0.1, "temperature": 0.05}


@pytest.fixture
def towers(fake: Any) -> dict[str, Any]:
    return {m: fake(m) for m in ("text", "image")}


def group_purity(vectors: np.ndarray) -> float:
    scores = vectors @ vectors.T - 2 * np.eye(len(vectors))
    nearest = np.argsort(-scores, axis=1)[:, :9]
    return float(np.mean(nearest % 8 == np.arange(len(vectors))[:, None] % 8))


def test_what_behaves_alike_comes_to_lie_close(world: World, towers: dict[str, Any], tmp_path: Path) -> None:
    catalog, pairs = world
    encoder = align(catalog, pairs, towers=towers, metrics_path=tmp_path / "m.jsonl", **FEW | {"epochs": 30})
    vectors, raw = encoder.embed(catalog), encoder.raw(catalog)
    assert vectors.item_ids == raw.item_ids == catalog.item_ids
    assert (vectors.vectors.shape, vectors.vectors.dtype) == ((80, 16), np.float32)
    assert raw.vectors.shape == (80, 28 + 5)
    assert np.allclose(np.linalg.norm(vectors.vectors, axis=1), 1, atol=1e-6)
    assert group_purity(vectors.vectors) > 0.95
    assert group_purity(raw.vectors) < 0.5
    rows = [json.loads(line) for line in (tmp_path / "m.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == [5 * epoch for epoch in range(31)]
    assert rows[0]["temperature"] == pytest.approx(FEW["temperature"])
    assert rows[-1]["valid_loss"] < rows[0]["valid_loss"]
    assert encoder.summary.valid_recall > encoder.summary.raw_recall


def test_the_same_seed_gives_the_same_bytes(world: World, towers: dict[str, Any]) -> None:
    catalog, pairs = world
    before = torch.random.get_rng_state()
    found = [
        align(catalog, pairs, towers=towers, seed=seed, **FEW).embed(catalog).vectors for seed in (0, 0, 1)
    ]
    assert found[0].tobytes() == found[1].tobytes()
    assert not np.allclose(found[0], found[2])
    assert torch.equal(before, torch.random.get_rng_state())


def test_an_items_vector_is_the_same_alone_and_among_others(world: World, towers: dict[str, Any]) -> None:
    catalog, pairs = world
    encoder = align(catalog, pairs, towers=towers, **FEW)
    whole = encoder.embed(catalog)
    for item in ("i3", "i50"):
        alone = encoder.embed(catalog.only([item]))
        assert alone.vectors.tobytes() == whole.rows([item]).tobytes()


def test_towers_run_once_and_new_items_need_no_training(
    world: World, towers: dict[str, Any], tmp_path: Path
) -> None:
    catalog, pairs = world
    known = catalog.only([f"i{row}" for row in range(60)])
    some = pairs.filter(pl.all_horizontal(pl.all().is_in(known.item_ids)))
    encoder = align(known, some, towers=towers, cache=tmp_path / "cache", **FEW)
    assert towers["text"].encoded == 60
    encoder.embed(known, cache=tmp_path / "cache")
    assert towers["text"].encoded == 60
    assert len(encoder.embed(catalog, cache=tmp_path / "cache")) == 80
    assert towers["text"].encoded == 80
    held = align(known, some, towers=towers, **FEW)
    seen = towers["text"].encoded
    held.embed(known)
    assert towers["text"].encoded == seen  # without a cache, align's features stay with the encoder


def test_scales_see_the_given_items_only(world: World, towers: dict[str, Any]) -> None:
    catalog, pairs = world
    known = catalog.only([f"i{row}" for row in range(60)])
    some = pairs.filter(pl.all_horizontal(pl.all().is_in(known.item_ids)))
    encoder = align(known, some, towers=towers, **FEW)
    features = tower_features(known, towers).values["text"]
    assert torch.allclose(
        encoder.heads.scale["text"].get_buffer("mean"), torch.from_numpy(features.mean(0)), atol=1e-5
    )


def test_modalities_without_items_are_left_out(
    make_catalog: Callable[..., Catalog], world: World, fake: Any
) -> None:
    catalog, pairs = world
    encoder = align(catalog, pairs, towers={m: fake(m) for m in ("text", "image", "audio")}, **FEW)
    assert encoder.modalities == ["image", "text"]
    with pytest.raises(InputError, match="the items have image, text and no encoder is named for it"):
        align(catalog, pairs, text=None, image=None)
    silent = make_catalog(audio=np.ones((2, 4)))
    with pytest.raises(InputError, match="items i0, i1 have no image, text, which is all this encoder reads"):
        encoder.embed(silent)


@pytest.mark.parametrize(
    ("pairs", "problem"),
    [
        ({"trigger_id": [], "target_id": []}, "no pairs to learn from"),
        ({"trigger_id": ["i1"], "target_id": ["i2"]}, "got 1 pairs, need at least 2"),
        ({"trigger_id": ["i1", "i2"]}, "pairs: no column 'target_id'"),
        (
            {"trigger_id": ["i1", "x"], "target_id": ["y", "z"]},
            "2 problems(.|\n)*items x (.|\n)*items y, z are",
        ),
        ({"trigger_id": ["i1", "i2"], "target_id": ["i1", "i3"]}, "with itself in rows 0"),
        ({"trigger_id": ["i1", "i2"], "target_id": ["i2", "i3"], "weight": [1.0, 0.0]}, "weight: .* rows 1"),
        ({"trigger_id": ["i1", "i2"], "target_id": ["i2", "i3"], "weight": ["a", "b"]}, "need numbers"),
    ],
)
def test_bad_pairs_are_refused(world: World, pairs: dict[str, Any], problem: str) -> None:
    with pytest.raises(InputError, match=problem):
        align(world[0], pl.DataFrame(pairs))


def test_bad_settings_are_refused_all_at_once(world: World) -> None:
    with pytest.raises(InputError) as error:
        align(*world, lr=-1.0, width=3)
    assert "encoder.lr = -1.0" in str(error.value)
    assert "encoder.width = 3" in str(error.value)
    with pytest.raises(InputError, match="encoder.image = 'vit': neither 'efficientnet-lite0', nor a folder"):
        align(*world, image="vit", text=None)


def test_a_loss_that_is_no_number_stops_with_advice(world: World, towers: dict[str, Any]) -> None:
    with pytest.raises(InputError, match="the loss is (nan|inf) at step .*; lower encoder.lr"):
        align(*world, towers=towers, **FEW | {"lr": 1e30, "epochs": 5})


def test_fewer_pairs_than_a_batch_make_a_smaller_batch(world: World, towers: dict[str, Any]) -> None:
    encoder = align(world[0], world[1][:3], towers=towers, **FEW | {"batch": 512})
    assert encoder.summary.steps == 3
    assert encoder.summary.valid_loss is None


def test_steps_are_capped(world: World, towers: dict[str, Any]) -> None:
    assert align(*world, towers=towers, **FEW, max_steps=7).summary.steps == 7


def test_recall_by_hand() -> None:
    # On a line at 0, 1, 2, 3, 4 degrees: the nearest of item 0 are 1, then 2.
    angles = torch.deg2rad(torch.arange(5.0))
    vectors = torch.stack([angles.cos(), angles.sin()], dim=1)
    pairs = TrainingPairs(np.array([0, 0]), np.array([1, 2]), np.ones(2, dtype=np.float32))
    nothing = Positives(np.array([3]), np.array([4]), items=5)
    assert recall_at(vectors, pairs, nothing, count=1) == 0.5
    assert recall_at(vectors, pairs, Positives(np.array([0]), np.array([1]), items=5), count=1) == 1.0
    assert recall_at(vectors, pairs, nothing, count=2) == 1.0


def train(world: World, fake: Any, **settings: Any) -> Heads:
    catalog, frame = world
    features = tower_features(catalog, {m: fake(m) for m in ("text", "image")})
    torch.manual_seed(0)
    heads = Heads({"text": (28,), "image": (5,)}, dim=8, hidden=8, dropout=0.0)
    model = AlignmentModel(heads, catalog, features, {}, device="cpu", chunk=64)
    model.fit_scales()
    triggers, targets = (frame[name].str.slice(1).cast(pl.Int64).to_numpy() for name in frame.columns)
    pairs = TrainingPairs(triggers, targets, np.ones(len(frame), dtype=np.float32))
    settings = EncoderConfig.model_validate(FEW | settings)
    train_learner(model, pairs, pairs.take(slice(0, 0)), settings, seed=0)
    return heads


def test_modality_dropout_trains_the_stand_ins(world: World, fake: Any) -> None:
    with torch.random.fork_rng(devices=[]):
        dropped = train(world, fake, modality_dropout=0.5)
        kept = train(world, fake, modality_dropout=0.0)
    assert dropped.modalities == ["image", "text"]
    assert float(dropped.missing[1].detach().norm()) > 0  # text: always there, stood in for by dropout
    assert float(kept.missing[1].detach().norm()) == 0
    assert float(kept.missing[0].detach().norm()) > 0  # two items have no picture


def test_the_temperature_is_learned_within_bounds(world: World, towers: dict[str, Any]) -> None:
    for start, low, high in ((0.05, 0.01, 0.2), (5.0, 0.5, 1.0)):
        found = align(*world, towers=towers, **FEW | {"temperature": start}).summary.temperature
        assert low <= found <= high
        assert not math.isclose(found, start)


@pytest.mark.parametrize(("low", "high", "steps"), [(1, 2000, 15), (40, 2000, 40), (40, 20, 20)])
def test_steps_stay_between_the_bounds(
    world: World, towers: dict[str, Any], low: int, high: int, steps: int
) -> None:
    encoder = align(*world, towers=towers, **FEW | {"min_steps": low, "max_steps": high})
    assert encoder.summary.steps == steps


def test_items_without_a_training_pair_have_an_anchor_of_their_own(
    world: tuple[Catalog, pl.DataFrame], fake: Any, tmp_path: Path
) -> None:
    catalog, pairs = world
    pairs = pairs.filter((pl.col("trigger_id") != "i5") & (pl.col("target_id") != "i5"))
    settings: dict[str, Any] = {
        "dim": 8,
        "hidden": 8,
        "epochs": 1,
        "min_steps": 2,
        "batch": 16,
        "anchor": 0.6,
    }
    towers = {"text": fake("text"), "image": fake("image")}
    plain = align(catalog, pairs, towers=towers, **settings).embed(catalog)
    encoder = align(catalog, pairs, towers=towers, anchor_cold=0.3, **settings)
    assert set(catalog.item_ids) - encoder.trained == {"i5"}
    found, row = encoder.embed(catalog), catalog.item_ids.index("i5")
    warm = [n for n in range(len(catalog)) if n != row]
    assert found.vectors[warm].tobytes() == plain.vectors[warm].tobytes()
    share = float(np.square(found.vectors[row, 8:]).sum())
    assert share == pytest.approx(0.3, abs=1e-5)
    assert float(np.square(found.vectors[0, 8:]).sum()) == pytest.approx(0.6, abs=1e-5)
    other = encoder.embed(catalog, new=True).vectors
    assert np.allclose(np.square(other[:, 8:]).sum(axis=1), 0.3, atol=1e-5)
    encoder.save_pretrained(tmp_path / "encoder")
    again = Encoder.from_pretrained(tmp_path / "encoder", towers=towers)
    assert again.embed(catalog).vectors.tobytes() == found.vectors.tobytes()
    (tmp_path / "encoder" / "trained_items.parquet").unlink()
    with pytest.raises(ArtifactError, match="trained_items.parquet is missing"):
        Encoder.from_pretrained(tmp_path / "encoder", towers=towers)
    with pytest.raises(InputError, match="anchor_cold stands beside an anchor"):
        align(catalog, pairs, towers=towers, anchor_cold=0.3)
