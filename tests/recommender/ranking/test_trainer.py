"""Training: killed or shared among processes it ends as one that was not; its cost in calls of Python."""

import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from qarm.config import RankerConfig
from qarm.core.atomic_io import read_json
from qarm.core.parallel.torchrun import Processes
from qarm.core.training_state import RANKER_FILE, RankerState
from qarm.data.codes import Codes
from qarm.data.embeddings import Embeddings
from qarm.data.interactions import Log
from qarm.data.splits import split_log
from qarm.errors import ArtifactError
from qarm.recommender.batches import batches
from qarm.recommender.examples import Examples, TrainingRows, evaluation_rows, read_examples
from qarm.recommender.item_features import item_table
from qarm.recommender.metrics import gauc
from qarm.recommender.ranking.fitting import FittedRanker, build_ranker, fit_ranker
from qarm.recommender.ranking.model import Ranker, score_examples
from qarm.recommender.ranking.trainer import RankerTrainer, decay_groups

Toy = tuple[Log, Codes, Embeddings]
SETTINGS = RankerConfig(dim=4, hidden=[4], epochs=5, patience=5, batch=256, history=10, lr=0.02)
VARIANT = "id+rq+vq+cross"
# Two processes can only equal one where nothing is dropped, since each draws its own.
SHARED = SETTINGS.model_copy(update={"dropout": 0.0, "id_dropout": 0.0, "epochs": 3})


def inputs(log: Log, codes: Codes, *, seed: int = 0) -> tuple[TrainingRows, Examples, Any]:
    split = split_log(log, test=0.2, valid=0.1)
    rows = TrainingRows(split.train, item_ids=codes.item_ids, explicit=False, history=10, seed=seed)
    frame = evaluation_rows(
        {"valid": split.valid},
        split.train,
        item_ids=codes.item_ids,
        trained_items=split.train.items,
        negatives=20,
    )
    valid = read_examples(frame, [log], item_ids=codes.item_ids, history=10)
    return rows, valid, item_table(codes.item_ids, VARIANT, codes=codes, pool=codes.item_ids[:10])


def fit(
    toy: Toy, *, folder: Path | None = None, settings: RankerConfig = SETTINGS, seed: int = 0
) -> FittedRanker:
    rows, valid, table = inputs(toy[0], toy[1])
    return fit_ranker(rows, valid, table, settings=settings, seed=seed, checkpoint=folder)


def saved(ranker: Ranker, folder: Path) -> bytes:
    ranker.save_pretrained(folder)
    return (folder / "model.safetensors").read_bytes()


@pytest.fixture(scope="module")
def whole(toy: Toy) -> FittedRanker:
    return fit(toy)


@pytest.fixture
def killed(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], list[int]]:
    """Makes training die in this epoch, half-way through it; gives the epochs that were begun."""
    one_pass = RankerTrainer._pass

    def arm(last: int) -> list[int]:
        begun: list[int] = []

        def dies(self: RankerTrainer, state: Any) -> float:
            begun.append(state.epoch)
            if state.epoch == last:
                self._step(next(batches(self.rows.epoch(0), 64, search=self.search)), state.step)
                raise KeyboardInterrupt
            return one_pass(self, state)

        monkeypatch.setattr(RankerTrainer, "_pass", dies)
        return begun

    return arm


# ---- going on ---------------------------------------------------------------------------------


@pytest.mark.parametrize("last", [1, 3])
def test_a_killed_training_ends_with_the_same_bytes(
    toy: Toy, whole: FittedRanker, killed: Callable[[int], list[int]], tmp_path: Path, last: int
) -> None:
    killed(last)
    with pytest.raises(KeyboardInterrupt):
        fit(toy, folder=tmp_path)
    torch.manual_seed(7)  # a state that must not matter
    begun = killed(-1)
    found = fit(toy, folder=tmp_path)
    assert begun == [*range(last, len(whole.epochs))]
    assert (found.epochs, found.best) == (whole.epochs, whole.best)
    assert saved(found.ranker, tmp_path / "found") == saved(whole.ranker, tmp_path / "whole")


def test_a_finished_training_is_read_back(
    toy: Toy, whole: FittedRanker, killed: Callable[[int], list[int]], tmp_path: Path
) -> None:
    one = fit(toy, folder=tmp_path)
    begun = killed(-1)
    two = fit(toy, folder=tmp_path)
    assert begun == []
    for fitted in (one, two):
        assert (fitted.epochs, fitted.best) == (whole.epochs, whole.best)
        assert saved(fitted.ranker, tmp_path / "found") == saved(whole.ranker, tmp_path / "whole")


def test_a_training_that_stopped_early_does_not_go_on(
    toy: Toy, killed: Callable[[int], list[int]], tmp_path: Path
) -> None:
    rows, valid, table = inputs(toy[0], toy[1])
    backwards = replace(valid, labels=1 - valid.labels)  # learning makes this worse
    settings = SETTINGS.model_copy(update={"patience": 1})
    one = fit_ranker(rows, backwards, table, settings=settings, checkpoint=tmp_path)
    assert len(one.epochs) < settings.epochs
    begun = killed(-1)
    assert fit_ranker(rows, backwards, table, settings=settings, checkpoint=tmp_path).epochs == one.epochs
    assert begun == []


@pytest.mark.parametrize("changed", ["seed", "settings", "rows", "codes", "valid"])
def test_another_training_starts_anew(
    toy: Toy, killed: Callable[[int], list[int]], tmp_path: Path, changed: str
) -> None:
    short = SETTINGS.model_copy(update={"epochs": 1})
    fit(toy, folder=tmp_path, settings=short)
    rows, valid, table = inputs(toy[0], toy[1], seed=int(changed == "rows"))
    if changed == "codes":
        table = replace(table, rq=table.rq[::-1])
    if changed == "valid":
        valid = replace(valid, labels=np.roll(valid.labels, 5))
    settings = short.model_copy(update={"lr": 0.01}) if changed == "settings" else short
    begun = killed(-1)
    fit_ranker(rows, valid, table, settings=settings, seed=int(changed == "seed"), checkpoint=tmp_path)
    assert begun == [0]


def test_a_damaged_file_is_named(toy: Toy, tmp_path: Path) -> None:
    short = SETTINGS.model_copy(update={"epochs": 1})
    fit(toy, folder=tmp_path, settings=short)
    file = tmp_path / RANKER_FILE
    assert [path.name for path in tmp_path.iterdir()] == [RANKER_FILE]
    file.write_bytes(file.read_bytes()[:-9])
    with pytest.raises(ArtifactError, match="delete it to start the training anew"):
        fit(toy, folder=tmp_path, settings=short)


# ---- processes --------------------------------------------------------------------------------

SCRIPT = """
import os, sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
import polars as pl
from qarm.data.codes import Codes
from qarm.core.atomic_io import write_json
from qarm.data.interactions import Log
from tests.recommender.ranking.test_trainer import SHARED, inputs, saved
from qarm.recommender.ranking.fitting import fit_ranker

folder = Path(sys.argv[2])
log = Log(pl.read_parquet(folder / "log.parquet"))
rows, valid, table = inputs(log, Codes.read(folder / "codes.parquet"))
fitted = fit_ranker(rows, valid, table, settings=SHARED, checkpoint=folder / "checkpoint")
saved(fitted.ranker, folder / os.environ["RANK"])
write_json(folder / "epochs.json", [epoch.content() for epoch in fitted.epochs])
"""


def test_two_processes_are_one(toy: Toy, torchrun: Callable[..., Any], tmp_path: Path) -> None:
    toy[0].frame.write_parquet(tmp_path / "log.parquet")
    toy[1].write(tmp_path / "codes.parquet")
    (tmp_path / "fit.py").write_text(SCRIPT)
    torchrun(tmp_path / "fit.py", Path(__file__).parents[3], tmp_path)
    alone = fit(toy, settings=SHARED)
    both = [Ranker.from_pretrained(tmp_path / rank) for rank in "01"]
    files = [(tmp_path / rank / "model.safetensors").read_bytes() for rank in "01"]
    assert files[0] == files[1]
    assert (tmp_path / "checkpoint" / RANKER_FILE).is_file()
    # Adam turns rounding of gradients near zero into steps, so weights are no measure; what they say is.
    rows = inputs(*toy[:2])[1]
    logits = [score_examples(ranker, rows) for ranker in (alone.ranker, both[0])]
    assert np.abs(logits[0] - logits[1]).max() < 1e-3
    assert logits[0].std() > 0.2
    for mine, shared in zip(alone.epochs, read_json(tmp_path / "epochs.json"), strict=True):
        assert shared["loss"] == pytest.approx(mine.loss, rel=1e-5)
        assert shared["valid_auc"] == pytest.approx(mine.valid_auc, abs=1e-3)


DISAGREE = """
from qarm.errors import InputError

try:
    fit_ranker(rows, valid, table, settings=SHARED, seed=int(os.environ["RANK"]))
except InputError as error:
    (folder / f"error-{os.environ['RANK']}").write_text(str(error))
"""


def test_processes_that_were_given_different_seeds_refuse(
    toy: Toy, torchrun: Callable[..., Any], tmp_path: Path
) -> None:
    toy[0].frame.write_parquet(tmp_path / "log.parquet")
    toy[1].write(tmp_path / "codes.parquet")
    (tmp_path / "fit.py").write_text(SCRIPT.split("fitted =")[0] + DISAGREE)
    torchrun(tmp_path / "fit.py", Path(__file__).parents[3], tmp_path)
    for rank in "01":
        message = (tmp_path / f"error-{rank}").read_text()
        assert message.startswith(
            "processes disagree on the ranker's training: seeds is [0, 0] on rank 0 and"
        )


def test_parts_of_a_batch_hold_each_event_once(toy: Toy) -> None:
    rows = inputs(toy[0], toy[1])[0]
    batch = next(batches(rows.epoch(0), 100))
    parts = [batch.part(rank, 3) for rank in range(3)]
    assert sum(int(part.real.sum()) for part in parts) == int(batch.real.sum())
    held = np.concatenate([part.rows[part.real.numpy()] for part in parts])
    assert sorted(held.tolist()) == sorted(batch.rows[batch.real.numpy()].tolist())
    assert batch.part(50, 60).items.shape == (0, batch.items.shape[1])


def test_a_weight_of_an_event_is_one_of_its_loss(toy: Toy) -> None:
    """Weights of 1 change no byte; an event of weight 2 counts twice."""
    rows, valid, table = inputs(toy[0], toy[1])
    ranker = build_ranker(rows, table, SHARED)
    trainer = RankerTrainer(ranker, rows, valid, SHARED, seed=0, processes=Processes())
    batch = next(batches(ranker.reading(rows.epoch(0)), 100, search=trainer.search))
    losses, _ = trainer._losses(batch)
    for weight in (1.0, 2.0):
        weighted, _ = trainer._losses(replace(batch, weights=torch.full(batch.items.shape, weight)))
        assert torch.equal(weighted, losses * weight)


def calls(work: Callable[[], Any]) -> int:
    """Of functions, Python's own and others, on this thread."""
    count = 0

    def seen(frame: Any, event: str, argument: Any) -> None:
        nonlocal count
        count += event in ("call", "c_call")

    before = sys.getprofile()
    sys.setprofile(seen)
    try:
        work()
    finally:
        sys.setprofile(before)
    return count


def test_calls_do_not_grow_with_rows(
    toy: tuple[Log, Codes, Embeddings], make_log: Callable[..., Log]
) -> None:
    codes = toy[1]

    def epoch_of(users: int) -> int:
        random = np.random.default_rng(0)
        events = [
            (f"u{user:03d}", codes.item_ids[item], time)
            for user in range(users)
            for time, item in enumerate(random.integers(0, len(codes), 8))
        ]
        rows = TrainingRows(make_log(events), item_ids=codes.item_ids, explicit=False, negatives=2)
        settings = RankerConfig(dim=4, hidden=[4], batch=3 * users * 2)  # four batches
        table = item_table(codes.item_ids, "id+rq+vq+cross", codes=codes, pool=codes.item_ids[:10])
        nothing: Examples = rows.events.only(np.zeros(len(rows.events), dtype=bool))
        loop = RankerTrainer(
            build_ranker(rows, table, settings), rows, nothing, settings, seed=0, processes=Processes()
        )
        start = loop._copied()
        return calls(lambda: loop._pass(RankerState(start, start)))

    epoch_of(10)  # what is made once, such as compiled loops
    few, many = epoch_of(20), epoch_of(200)
    assert few > 500
    assert many < 1.1 * few


def test_ids_biases_and_codes_decay_on_their_own(toy: Toy) -> None:
    rows, _, table = inputs(toy[0], toy[1])
    weights = dict(build_ranker(rows, table, SETTINGS).named_parameters())
    settings = SETTINGS.model_copy(update={"id_decay": 3.0, "bias_decay": 0.5})
    groups = {group["weight_decay"]: group["params"] for group in decay_groups(weights, settings)}
    names = {
        decay: {n for n, w in weights.items() if any(w is p for p in of)} for decay, of in groups.items()
    }
    assert names[3.0] == {"item.ids.weight"}
    assert {"item.id_bias.weight", "item.level_bias.0.weight", "bias"} <= names[0.5]
    assert "item.code.levels.0.weight" in names[SETTINGS.weight_decay]
    assert sum(map(len, names.values())) == len(weights)
    assert len(decay_groups(weights, SETTINGS)) == 1


def test_gauc_decides_when_to_stop_where_it_is_asked_for(toy: Toy) -> None:
    rows, valid, table = inputs(toy[0], toy[1])
    settings = SETTINGS.model_copy(update={"select": "gauc", "epochs": 3})
    fitted = fit_ranker(rows, valid, table, settings=settings)
    reached = [line.valid_gauc for line in fitted.epochs]
    assert reached[fitted.best] == max(reached)
    logits = score_examples(fitted.ranker, valid)
    assert gauc(valid.users, valid.labels, logits) == pytest.approx(reached[fitted.best], abs=1e-6)
    assert fit_ranker(rows, valid, table, settings=SETTINGS).epochs[0].valid_gauc is None
