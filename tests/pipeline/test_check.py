"""Check of a shop: what later stages would refuse is told at once, and the report has the right figures."""

import time
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from qarm.config import Config, load_config
from qarm.errors import InputError
from qarm.pipeline import check_input, run_stages
from qarm.pipeline import requirements as required


def shop(folder: Path, *, users: int = 30, items: int = 60, clicks: int = 10) -> Path:
    random = np.random.default_rng(0)
    pl.DataFrame(
        {"item_id": [f"i{n:04d}" for n in range(items)], "title": [f"thing {n}" for n in range(items)]}
    ).write_parquet(folder / "items.parquet")
    events = users * clicks
    times = np.arange(events)
    newest = (times > 0.7 * events) & (random.random(events) < 0.1)
    chosen = np.where(newest, items - 1, random.integers(0, items - 1, events))
    pl.DataFrame(
        {
            "user_id": [f"u{n}" for n in times % users],
            "item_id": [f"i{n:04d}" for n in chosen],
            "timestamp": pl.Series(times * 60_000_000).cast(pl.Datetime("us")),
        }
    ).write_parquet(folder / "interactions.parquet")
    return folder


def config_of(folder: Path, **flags: str) -> Config:
    table = {"data.items.text": "[title]", "data.items.image": "null", "data.items.audio": "null"}
    small = {"encoder.image": "null", "encoder.audio": "null", "quantizer.nearest": "5", "encoder.dim": "16"}
    return load_config(flags={"data.root": str(folder), **table, **small, **flags}, environment={})


def test_everything_that_a_later_stage_would_refuse_comes_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It took minutes of mining to hear of an encoder that is not there, and more to hear of the width."""
    monkeypatch.setattr(required, "find_spec", lambda name: None)
    flags = {"encoder.text": "nowhere/no-such-model", "quantizer.width": "4096", "quantizer.nearest": "500"}
    flags |= {"encoder.tune": "lora", "pairs.user2item.model": "bpr", "pairs.swing.min_user_items": "99"}
    with pytest.raises(InputError) as told:
        check_input(config_of(shop(tmp_path), **flags))
    for part in (
        'pip install "qarm[report]"',
        'pip install "qarm[als]"',
        'pip install "qarm[lora]"',
        "encoder.text = 'nowhere/no-such-model'",
        "need at least width=4096; lower quantizer.width",
        "need at least k+1=501; lower quantizer.nearest",
        "lower pairs.swing.min_user_items",
    ):
        assert part in str(told.value), part


def test_the_stages_refuse_before_the_first_of_them_mines(tmp_path: Path) -> None:
    config = config_of(shop(tmp_path), **{"encoder.text": "nowhere/no-such-model", "quantizer.width": "4096"})
    done = []
    with pytest.raises(InputError, match="2 problems"):
        done += [stage.stage for stage in run_stages(config, tmp_path / "run")]
    assert not (tmp_path / "run" / "pairs").exists()
    assert [done.stage for done in run_stages(config, tmp_path / "run", last="mine")] == ["check", "mine"]


@pytest.mark.parametrize(("kind", "message"), [("opq", "opq"), ("fsq", "fsq")])
def test_other_last_levels_are_tried_too(tmp_path: Path, kind: str, message: str) -> None:
    config = config_of(shop(tmp_path), **{"encoder.text": "nowhere/x", "quantizer.last": kind})
    with pytest.raises(InputError) as told:
        check_input(config)
    assert len(told.value.problems) == 1, told.value.problems


@pytest.fixture
def _no_text_encoder(monkeypatch: pytest.MonkeyPatch) -> None:
    """The check of the encoder is tested above, on one that is missing; here it would only take time."""
    monkeypatch.setattr("qarm.pipeline.check.encoder_requirements", lambda *_, **__: iter(()))


@pytest.mark.usefixtures("_no_text_encoder")
def test_the_report_has_the_figures_of_the_log(tmp_path: Path) -> None:
    report = check_input(config_of(shop(tmp_path)))
    assert (report.log.first, report.log.last) == ("1970-01-01T00:00:00", "1970-01-01T04:59:00")
    assert report.log.parts == {"train": 210, "valid": 30, "test": 60}
    assert report.log.clicks_per_user == [10, 10, 10]
    assert report.log.cold_items >= 1
    assert 0.0 < report.log.cold_share < 0.5
    assert set(report.expected.seconds) == {
        "mine",
        "align",
        "embed",
        "quantize",
        "retrieve",
        "train",
    }
    assert report.warnings == []


@pytest.mark.usefixtures("_no_text_encoder")
def test_thin_logs_are_warned_of(tmp_path: Path) -> None:
    shop(tmp_path, users=150, clicks=2, items=20)
    log = pl.read_parquet(tmp_path / "interactions.parquet")
    label = (pl.int_range(pl.len()) < 200).cast(pl.Int8)
    log.with_columns(liked=label, item_id=pl.lit("i0001")).write_parquet(tmp_path / "interactions.parquet")
    flags = {"data.interactions.label": "liked", "pairs.swing.min_user_items": "1"}
    with pytest.raises(InputError, match="no user has 2 items with a positive event"):
        check_input(config_of(tmp_path, **flags))
    shop(tmp_path, users=150, clicks=2, items=20)
    log = pl.read_parquet(tmp_path / "interactions.parquet").with_columns(liked=label)
    early = pl.int_range(pl.len()) < 140
    log = log.with_columns(item_id=pl.when(early).then("item_id").otherwise(pl.lit("i0001")))
    first = log.head(2).with_columns(user_id=pl.lit("u0"), item_id=pl.Series(["i0001", "i0002"]))
    pl.concat([first, log]).write_parquet(tmp_path / "interactions.parquet")
    told = " ".join(check_input(config_of(tmp_path, **flags, **{"quantizer.nearest": "1"})).warnings)
    for part in ("half of the users have 2 clicks", "validation has no positive", "test has no positive"):
        assert part in told
    assert "test has no cold item" in told


@pytest.mark.usefixtures("_no_text_encoder")
@pytest.mark.slow
def test_a_million_events_take_less_than_ten_seconds(tmp_path: Path) -> None:
    """Processor time after the imports, so that a busy machine does not count."""
    check_input(config_of(shop(tmp_path)))
    shop(tmp_path, users=50_000, items=20_000, clicks=20)
    started = time.process_time()
    report = check_input(config_of(tmp_path))
    assert report.interactions == 1_000_000
    assert time.process_time() - started < 10
