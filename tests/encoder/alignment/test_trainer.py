"""Training: cached gradients, two processes, and interruptions, none of which leaves a trace."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch

from qarm.config import EncoderConfig
from qarm.data.catalog import Catalog
from qarm.encoder.alignment import trainer as training
from qarm.encoder.alignment.align import align
from qarm.encoder.alignment.hard_negatives import mine_hard_negatives
from qarm.encoder.alignment.loss import Positives
from qarm.encoder.alignment.model import AlignmentModel
from qarm.encoder.alignment.pair_dataset import TrainingPairs, read_pairs
from qarm.encoder.feature_cache import tower_features
from qarm.encoder.heads import Heads
from qarm.errors import InputError

World = tuple[Catalog, pl.DataFrame]
FEW: dict[str, Any] = {"dim": 16, "hidden": 32, "batch": 64, "epochs": 3, "min_steps": 1, "lr": 0.01}


def trainer(world: World, fake: Any, tmp_path: Path, **settings: Any) -> Any:
    catalog, frame = world
    features = tower_features(catalog, {m: fake(m) for m in ("text", "image")})
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        heads = Heads({"text": (28,), "image": (5,)}, dim=16, hidden=32, dropout=0.3)
    with torch.no_grad():
        for parameter in heads.parameters():  # nothing is zero, so that every gradient counts
            parameter.add_(0.05 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1)))
    model = AlignmentModel(heads, catalog, features, {}, device="cpu", chunk=64)
    model.fit_scales()
    pairs, valid = read_pairs(frame, catalog.item_ids, folder=tmp_path, seed=0)
    chosen = EncoderConfig.model_validate(FEW | settings)
    return training.Trainer(model, pairs, valid, chosen, 0, training.Processes(), None)


def gradients(made: Any, plan: training.Plan) -> dict[str, torch.Tensor]:
    made.model.train(True)
    made.optimizer.zero_grad()
    made._backward(plan, 0, share=1.0)
    return {name: p.grad.clone() for name, p in made.parameters.items() if p.grad is not None}


def test_cached_gradients_are_the_plain_ones(
    world: World, fake: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = trainer(world, fake, tmp_path)
    made.model.heads.dropout = 0.0
    for part in made.model.heads.modules():
        if isinstance(part, torch.nn.Dropout):
            part.p = 0.0
    whole = gradients(made, made.plan(made.pairs.take(np.arange(48)), 0))
    assert made.settings.kept_chunks == 4  # the last ones go through once, the others twice
    monkeypatch.setattr(
        made.model,
        "chunks",
        lambda items: [np.arange(i, min(i + 7, len(items))) for i in range(0, len(items), 7)],
    )
    plan = made.plan(made.pairs.take(np.arange(48)), 0)
    assert len(plan.chunks) > 3
    cached = gradients(made, plan)
    assert whole.keys() == cached.keys()
    for name, gradient in whole.items():
        assert torch.allclose(gradient, cached[name], rtol=1e-4, atol=1e-6), name
    assert float(whole["log_temperature"].abs()) > 1e-6


def test_the_second_pass_drops_what_the_first_dropped(
    world: World, fake: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = trainer(world, fake, tmp_path, kept_chunks=0)
    monkeypatch.setattr(made.model, "chunks", lambda items: np.array_split(np.arange(len(items)), 3))
    seen: list[torch.Tensor] = []
    forward = made.model.vectors

    def watched(chunk: Any) -> torch.Tensor:
        seen.append(forward(chunk))
        return seen[-1]

    monkeypatch.setattr(made.model, "vectors", watched)
    gradients(made, made.plan(made.pairs.take(np.arange(48)), 0))
    assert len(seen) == 6
    for first, second in zip(seen[:3], seen[:2:-1], strict=True):
        assert torch.equal(first.detach(), second.detach())
    assert not torch.allclose(
        seen[0][:5], forward(made.plan(made.pairs.take(np.arange(48)), 1).chunks[0][1])[:5]
    )


def test_accumulated_batches_count_alike(world: World, fake: Any, tmp_path: Path) -> None:
    made = trainer(world, fake, tmp_path)
    plans = [made.plan(made.pairs.take(rows), k) for k, rows in enumerate((np.arange(30), np.arange(30, 60)))]
    apart = []
    made.model.train(True)
    for k, plan in enumerate(plans):
        made.optimizer.zero_grad()
        made._backward(plan, k, share=0.5)
        apart.append({n: p.grad.clone() for n, p in made.parameters.items() if p.grad is not None})
    made.optimizer.zero_grad()
    for k, plan in enumerate(plans):
        made._backward(plan, k, share=0.5)
    for name, parameter in made.parameters.items():
        if parameter.grad is not None:
            assert torch.allclose(parameter.grad, apart[0][name] + apart[1][name], atol=1e-7), name


@pytest.mark.parametrize("stop", [1, 4, 7, 10])
def test_an_interruption_leaves_no_trace(
    world: World, fake: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stop: int
) -> None:
    catalog, pairs = world
    towers = {m: fake(m) for m in ("text", "image")}
    settings = FEW | {"checkpoint_steps": 2, "hard_negatives": 2, "log_q": 1}
    straight = align(catalog, pairs, towers=towers, metrics_path=tmp_path / "one.jsonl", **settings)
    step = training.Trainer.step

    def dies(self: Any, plans: Any, number: int, path: Any) -> float:
        if number == stop:
            raise KeyboardInterrupt
        return step(self, plans, number, path)

    with monkeypatch.context() as patch:
        patch.setattr(training.Trainer, "step", dies)
        with pytest.raises(KeyboardInterrupt):
            align(catalog, pairs, towers=towers, cache=tmp_path / "cache", **settings)
    left = [path.name for path in (tmp_path / "cache").glob("training*")]
    assert left == (["training.safetensors"] if stop >= 2 else [])
    resumed = align(
        catalog,
        pairs,
        towers=towers,
        cache=tmp_path / "cache",
        metrics_path=tmp_path / "two.jsonl",
        **settings,
    )
    assert resumed.embed(catalog).vectors.tobytes() == straight.embed(catalog).vectors.tobytes()
    assert (tmp_path / "two.jsonl").read_bytes() == (tmp_path / "one.jsonl").read_bytes()
    assert not list((tmp_path / "cache").glob("training*"))


def test_progress_of_another_training_is_not_gone_on_from(
    world: World, fake: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    catalog, pairs = world
    towers = {m: fake(m) for m in ("text", "image")}
    with monkeypatch.context() as patch:
        patch.setattr(training.Trainer, "_mine_hard_negatives", lambda self, state: state.step and 1 / 0)
        with pytest.raises(ZeroDivisionError):
            align(catalog, pairs, towers=towers, cache=tmp_path, **FEW)
    assert (tmp_path / "training.safetensors").is_file()
    other = FEW | {"lr": 0.02}
    resumed = align(catalog, pairs, towers=towers, cache=tmp_path, **other)
    straight = align(catalog, pairs, towers=towers, **other)
    assert resumed.embed(catalog).vectors.tobytes() == straight.embed(catalog).vectors.tobytes()


def filed(world: World, folder: Path) -> World:
    """The world with its pictures in files."""
    catalog, pairs = world
    names = [None if content is None else f"{row}.png" for row, content in enumerate(catalog.frame["image"])]
    for name, content in zip(names, catalog.frame["image"], strict=True):
        if name is not None:
            (folder / name).write_bytes(content)
    return Catalog(catalog.frame.with_columns(image=pl.Series(names)), folder), pairs


def corrected(world: World, what: str) -> World:
    catalog, pairs = world
    if what == "texts":
        first = pl.int_range(pl.len()) == 0
        other = pl.when(first).then(pl.col("text").reverse()).otherwise(pl.col("text")).alias("text")
        return replace(catalog, frame=catalog.frame.with_columns(other)), pairs
    if what == "media":
        for path in (catalog.path(source) for source in catalog.frame["image"].drop_nulls()[:2]):
            path.write_bytes((np.frombuffer(path.read_bytes(), dtype=np.float32) + 1).tobytes())
        return world
    if what == "rows":
        return replace(catalog, frame=catalog.frame.reverse()), pairs
    return catalog, pairs.with_columns(pl.col("target_id").shift(1, fill_value=pairs["target_id"][-1]))


@pytest.mark.parametrize("what", ["texts", "media", "rows", "pairs"])
def test_progress_of_other_content_under_the_same_ids_is_not_gone_on_from(
    world: World, fake: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    world = filed(world, tmp_path)
    towers = {m: fake(m) for m in ("text", "image")}
    with monkeypatch.context() as patch:
        patch.setattr(training.Trainer, "_mine_hard_negatives", lambda self, state: state.step and 1 / 0)
        with pytest.raises(ZeroDivisionError):
            align(*world, towers=towers, cache=tmp_path / "cache", **FEW)
    assert (tmp_path / "cache" / "training.safetensors").is_file()
    catalog, pairs = corrected(world, what)
    resumed = align(catalog, pairs, towers=towers, cache=tmp_path / "cache", **FEW)
    straight = align(catalog, pairs, towers=towers, **FEW)
    assert resumed.embed(catalog).vectors.tobytes() == straight.embed(catalog).vectors.tobytes()


def test_a_loss_that_is_no_number_keeps_the_last_good_weights(
    world: World, fake: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    towers = {m: fake(m) for m in ("text", "image")}
    loss = training.Trainer._loss
    calls = iter(range(1000))

    def breaks(self: Any, plan: Any, vectors: Any) -> Any:
        return loss(self, plan, vectors) * (float("nan") if next(calls) > 7 else 1.0)

    monkeypatch.setattr(training.Trainer, "_loss", breaks)
    with pytest.raises(
        InputError, match=r"the loss is nan at step \d+; lower encoder.lr .*the last good weights"
    ):
        align(*world, towers=towers, cache=tmp_path, **FEW | {"checkpoint_steps": 1})
    from safetensors.torch import load_file

    kept = load_file(tmp_path / "training.safetensors")
    assert all(torch.isfinite(tensor).all() for tensor in kept.values())


def test_the_schedules(world: World, fake: Any, tmp_path: Path) -> None:
    shares = {}
    for schedule in ("cosine", "linear", "constant"):
        made = trainer(
            world, fake, tmp_path, schedule=schedule, warm_up=0.5, epochs=1, min_steps=20, max_steps=20
        )
        shares[schedule] = [made._share_of_rate(step) for step in range(made.steps)]
        assert shares[schedule][:10] == pytest.approx([(k + 1) / 10 for k in range(10)])
    assert shares["linear"][10:] == pytest.approx([1 - k / 10 for k in range(10)])
    assert shares["constant"][10:] == [1.0] * 10
    assert shares["cosine"][15] == pytest.approx(0.5)


@pytest.mark.parametrize("share", [1.0, 0.25])
def test_log_q_is_the_share_of_pairs(world: World, fake: Any, tmp_path: Path, share: float) -> None:
    made = trainer(world, fake, tmp_path, log_q=share)
    targets = np.bincount(made.pairs.targets, minlength=80)
    expected = share * np.log(np.maximum(targets, 1) / len(made.pairs))
    assert np.allclose(made.log_q[0].numpy(), expected, atol=1e-6)


def test_hard_negatives_are_the_mine_hard_negatives() -> None:
    angles = torch.deg2rad(torch.tensor([0.0, 10.0, 25.0, 45.0, 180.0]))
    vectors = torch.stack([angles.cos(), angles.sin()], dim=1)
    known = Positives(np.array([0]), np.array([1]), items=5)
    assert mine_hard_negatives(vectors, known, count=2).tolist() == [[2, 3], [2, 3], [1, 3], [2, 1], [3, 2]]
    few = mine_hard_negatives(vectors[:2], Positives(np.array([0]), np.array([1]), items=2), count=3)
    assert few.tolist() == [[-1, -1, -1], [-1, -1, -1]]


@pytest.mark.parametrize(
    "settings",
    [
        {"symmetric": False},
        {"log_q": 1},
        {"hard_negatives": 3},
        {"fusion": "attention"},
        {"accumulate": 2},
    ],
)
def test_every_option_learns(world: World, fake: Any, settings: dict[str, Any]) -> None:
    towers = {m: fake(m) for m in ("text", "image")}
    encoder = align(*world, towers=towers, **FEW | {"epochs": 20} | settings)
    assert encoder.summary.valid_recall > 2 * encoder.summary.raw_recall


def test_pairs_from_a_file_train_to_the_same_bytes(world: World, fake: Any, tmp_path: Path) -> None:
    catalog, pairs = world
    towers = {m: fake(m) for m in ("text", "image")}
    pairs.write_parquet(tmp_path / "pairs.parquet")
    one = align(catalog, pairs, towers=towers, **FEW).embed(catalog).vectors
    two = align(catalog, tmp_path / "pairs.parquet", towers=towers, **FEW).embed(catalog).vectors
    assert one.tobytes() == two.tobytes()


SCRIPT = """
import sys, json
import numpy as np, polars as pl
sys.path.insert(0, {tests!r})
from tests.encoder.conftest import FakeTower, numbers
from pathlib import Path
from qarm.encoder.alignment.align import align
from qarm.data.catalog import Catalog
from qarm.encoder.alignment import model as model
model.AlignmentModel.chunks = lambda self, items: np.array_split(np.arange(len(items)), 5)
random = np.random.default_rng(0)
values = random.normal(size=(40, 6))
frame = pl.DataFrame({{"item_id": [f"i{{k}}" for k in range(40)], "text": [numbers(v) for v in values],
    "image": pl.Series([None] * 40, dtype=pl.String), "audio": pl.Series([None] * 40, dtype=pl.String)}})
pairs = pl.DataFrame([(f"i{{a}}", f"i{{b}}") for a in range(40) for b in range(a) if a % 5 == b % 5],
    schema=["trigger_id", "target_id"], orient="row")
catalog = Catalog(frame, Path("."))
encoder = align(catalog, pairs, towers={{"text": FakeTower("text")}}, dim=8, hidden=8, batch=32, epochs=3,
    min_steps=1, lr=0.01, log_q=1)
print(json.dumps(encoder.embed(catalog).vectors.tolist()))
"""


def test_two_processes_are_one(torchrun: Callable[..., Any], tmp_path: Path) -> None:
    script = tmp_path / "train.py"
    script.write_text(SCRIPT.format(tests=str(Path(__file__).parents[3])))
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    alone = subprocess.run(
        [sys.executable, script], capture_output=True, text=True, check=True, env=environment
    )
    both = torchrun(script)
    one = np.array(json.loads(alone.stdout.splitlines()[-1]))
    for line in both.stdout.splitlines()[-2:]:
        assert np.abs(np.array(json.loads(line)) - one).max() < 1e-4


DISAGREE = """
import os
from qarm.errors import InputError
from qarm.encoder.embed import embed
rank = int(os.environ["RANK"])
few = dict(dim=8, hidden=8, epochs=3, min_steps=1)
tries = {{
    "batch": lambda: align(catalog, pairs, towers={{"text": FakeTower("text")}}, batch=32 + rank, **few),
    "pairs": lambda: align(catalog, pairs[rank:], towers={{"text": FakeTower("text")}}, batch=32, **few),
    "items": lambda: embed(encoder, Catalog(frame[rank:], Path("."))),
}}
for name, call in tries.items():
    try:
        call()
    except InputError as error:
        Path({folder!r}, f"{{name}}-{{rank}}").write_text(str(error))
"""


def test_processes_that_were_given_different_settings_pairs_or_items_refuse(
    torchrun: Callable[..., Any], tmp_path: Path
) -> None:
    script = tmp_path / "train.py"
    script.write_text((SCRIPT + DISAGREE).format(tests=str(Path(__file__).parents[3]), folder=str(tmp_path)))
    torchrun(script)
    for rank in "01":
        batch, pairs, items = (
            (tmp_path / f"{name}-{rank}").read_text() for name in ("batch", "pairs", "items")
        )
        assert batch == (
            "processes disagree on the alignment: settings.batch is 32 on rank 0 and 33 on rank 1; "
            "give all of them the same, and start again"
        )
        assert pairs.startswith("processes disagree on the alignment: pairs is ")
        assert items.startswith("processes disagree on what to embed: catalogue is ")
        assert "items is 40 on rank 0 and 39 on rank 1" in items


def test_an_items_batch_place_is_found_by_hand(make_catalog: Callable[..., Catalog], fake: Any) -> None:
    catalog = make_catalog(np.arange(10.0).reshape(5, 2))
    features = tower_features(catalog, {"text": fake("text")})
    heads = Heads({"text": (2,)}, dim=4, hidden=4, dropout=0.0)
    made = training.Trainer(
        AlignmentModel(heads, catalog, features, {}, device="cpu", chunk=64),
        TrainingPairs(np.array([3, 1, 3]), np.array([1, 0, 4]), np.ones(3, dtype=np.float32)),
        TrainingPairs(np.empty(0, dtype=int), np.empty(0, dtype=int), np.empty(0, dtype=np.float32)),
        EncoderConfig(),
        0,
        training.Processes(),
        None,
    )
    plan = made.plan(made.pairs, None)
    assert plan.items.tolist() == [0, 1, 3, 4]
    assert plan.triggers.tolist() == [2, 1, 2]
    assert plan.targets.tolist() == [1, 0, 3]
