"""DIN of torch-rechub as an anchor: it learns a planted world, keeps its best epoch, and needs its extra."""

import importlib.util
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch

from qarm.comparison.compare import compare_variants
from qarm.comparison.rivals import torch_rechub as rechub
from qarm.comparison.rivals.torch_rechub import DIN, fit_rival, rechub_din, score_rival
from qarm.config import Config, RankerConfig, load_config
from qarm.core.atomic_io import read_json
from qarm.data.interactions import Log
from qarm.demo import WorldSpec, build_world
from qarm.errors import MissingExtraError
from qarm.recommender.examples import Examples, TrainingRows, evaluation_rows, read_examples
from qarm.recommender.metrics import auc
from qarm.schemas import schema_of

GROUPS, PER_GROUP = 4, 8
SETTINGS = RankerConfig(dim=8, epochs=5, patience=3, batch=512)


@pytest.fixture(scope="module", autouse=True)
def _installed() -> None:
    pytest.importorskip("torch_rechub")


@pytest.fixture(scope="module")
def planted() -> tuple[TrainingRows, Examples]:
    """Users who stay within one group of items: the last three events of each are to be forelines."""
    random = np.random.default_rng(0)
    events = [
        (f"u{user:03d}", f"i{GROUPS * random.integers(PER_GROUP) + user % GROUPS:02d}", time, 1)
        for user in range(120)
        for time in range(12)
    ]
    schema = ["user_id", "item_id", "time", "label"]
    frame = pl.DataFrame(events, schema=schema, orient="row").with_columns(pl.col("label").cast(pl.Int8))
    frame = frame.with_row_index("row").with_columns(pl.col("row").cast(pl.Int64))
    train, future = Log(frame.filter(pl.col("time") < 9)), Log(frame.filter(pl.col("time") >= 9))
    items = sorted({*train.items, "i99"})
    judged = evaluation_rows({"test": future}, train, item_ids=items, trained_items=train.items, negatives=6)
    rows = TrainingRows(train, item_ids=items, explicit=False, history=9, negatives=4)
    return rows, read_examples(judged, [train, future], item_ids=items, history=9)


def test_it_learns_a_planted_world_by_the_settings_that_did_best(
    planted: tuple[TrainingRows, Examples], capsys: pytest.CaptureFixture[str]
) -> None:
    rows, judged = planted
    state = torch.random.get_rng_state()
    rival = fit_rival(rows, judged, settings=SETTINGS)
    assert torch.equal(torch.random.get_rng_state(), state)
    assert capsys.readouterr() == ("", "")
    reached = [line.valid_auc or 0.0 for line in rival.epochs]
    assert rival.best == int(np.argmax(reached))
    assert rival.settings["init"] in rechub.INITS
    assert rival.settings["lr"] in rechub.LRS
    scores = score_rival(rival, judged, rows=50)
    assert auc(judged.labels, scores) == pytest.approx(reached[rival.best], abs=1e-6)  # the best is kept
    assert reached[rival.best] > 0.9
    assert np.abs(scores - score_rival(rival, judged)).max() < 1e-5  # however they are batched and padded
    again = fit_rival(rows, judged, settings=SETTINGS)
    assert np.array_equal(score_rival(again, judged), score_rival(rival, judged))


def test_its_scores_are_those_of_its_model_row_by_row(planted: tuple[TrainingRows, Examples]) -> None:
    """Rows written out by hand: the candidate's row in its table, the history padded with 0 to a length."""
    rows, judged = planted
    torch.manual_seed(3)
    model = rechub_din(len(rows.trained) + 1, dim=8, init=0.5).eval()
    table_rows = torch.zeros(len(rows.events.item_ids), dtype=torch.int64)
    table_rows[torch.from_numpy(rows.trained.astype(np.int64))] = torch.arange(1, len(rows.trained) + 1)
    assert table_rows[-1] == 0  # i99 was never trained
    found = score_rival(rechub.Rival(model, table_rows, [], 0, {}), judged)
    for row in range(0, len(judged), 97):
        past = np.zeros((1, 20), dtype=np.int64)
        own = judged.history[judged.start[row] : judged.end[row]]
        past[0, : len(own)] = table_rows[own]
        asked = {"item": table_rows[judged.items[row : row + 1]], "past": torch.from_numpy(past)}
        with torch.no_grad():
            assert float(model(asked).logit()) == pytest.approx(found[row], abs=1e-5)


def test_without_both_labels_it_runs_all_epochs(planted: tuple[TrainingRows, Examples]) -> None:
    rows, judged = planted
    nothing = read_examples(
        pl.DataFrame(
            schema={"user_id": str, "item_id": str, "label": pl.Int8, "time": pl.Int64, "event": pl.Int64}
        ).with_columns(cold=pl.lit(False)),
        [
            Log(
                pl.DataFrame(
                    [("u", "i00", 0, 1, 0)], ["user_id", "item_id", "time", "label", "row"], orient="row"
                )
            )
        ],
        item_ids=judged.item_ids,
    )
    rival = fit_rival(rows, nothing, settings=SETTINGS.model_copy(update={"epochs": 2}))
    assert len(rival.epochs) == 2
    assert rival.best == 1
    assert [line.valid_auc for line in rival.epochs] == [None] * 2


# ---- in the comparison --------------------------------------------------------------------------


def config_of(world: Path, *, peer: bool) -> Config:
    flags = {
        "data.root": str(world),
        "pairs.user2item.epochs": "1",
        "encoder.image": "null",
        "encoder.audio": "null",
        "encoder.epochs": "1",
        "encoder.min_steps": "1",
        "encoder.dim": "16",
        "ranker.epochs": "1",
        "ranker.dim": "4",
        "ranker.hidden": "[8]",
        "compare.seeds": "[0]",
        "compare.variants": "[id]",
        "compare.primary": "[id, id]",
        "compare.negatives": "5",
        "compare.catalogue_users": "20",
        "compare.search": "1",
        "compare.peer": str(peer).lower(),
    }
    return load_config(None, flags=flags, environment={})


def test_it_joins_a_finished_comparison_and_leaves_it(tmp_path: Path) -> None:
    world = build_world(tmp_path / "world", seed=0, spec=WorldSpec(items=120, users=60, events_per_user=25))
    lines: list[str] = []
    before = compare_variants(config_of(world.folder, peer=False), tmp_path / "out", progress=lines.append)
    first = len(lines)  # variants and anchors
    assert first >= 4
    found = compare_variants(config_of(world.folder, peer=True), tmp_path / "out", progress=lines.append)
    assert len(lines) == first + 1  # the other cells were kept
    assert DIN in lines[-1]
    means = {entry.method: entry for entry in found.means if entry.slice == "all"}
    assert means[DIN].logloss is not None
    assert means["item-kNN"].logloss is None
    file = tmp_path / "out" / "compare" / "seed-0" / "cells" / f"{DIN}.json"
    schema = schema_of(file.relative_to(tmp_path / "out").as_posix())
    assert schema is not None
    schema.model_validate_json(file.read_text())
    assert set(read_json(file)["settings"]) == {"lr", "init"}
    assert not [*tmp_path.rglob("model.pth")]
    assert not Path("model.pth").exists()
    assert compare_variants(config_of(world.folder, peer=False), tmp_path / "out") == before


def test_without_the_extra_it_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = importlib.util.find_spec
    monkeypatch.setattr(rechub, "find_spec", lambda name: None if name == "torch_rechub" else found(name))
    with pytest.raises(MissingExtraError, match=r'pip install "qarm\[peers\]"'):
        compare_variants(config_of(tmp_path, peer=True), tmp_path / "out")
    assert not (tmp_path / "out").exists()
