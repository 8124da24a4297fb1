"""Plan of a run: what is fresh, stale or missing, and why; nothing is written."""

from pathlib import Path

import polars as pl
import pytest
from tests.pipeline.test_check import config_of, shop

from qarm.errors import ArtifactError, InputError
from qarm.pipeline import plan_stages, run_stages


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A shop, and a run of it up to its pairs."""
    folder = tmp_path_factory.mktemp("plan")
    tables = folder / "shop"
    tables.mkdir()
    list(run_stages(config_of(shop(tables)), folder / "run", last="mine"))
    return tables, folder / "run"


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def states(tables: Path, run: Path, **flags: str) -> dict[str, tuple[str, list[str]]]:
    before = contents(run)
    plan = plan_stages(config_of(tables, **flags), run, last="mine")
    assert contents(run) == before
    assert all((one.seconds is None) == (one.state == "fresh" or one.stage == "check") for one in plan)
    return {one.stage: (one.state, one.reasons) for one in plan}


def test_a_fresh_run_has_nothing_to_do(made: tuple[Path, Path]) -> None:
    assert states(*made) == {"check": ("fresh", []), "mine": ("fresh", [])}


def test_a_run_that_is_not_there_is_missing_and_stays_so(made: tuple[Path, Path], tmp_path: Path) -> None:
    assert states(made[0], tmp_path / "none") == {
        "check": ("missing", ["not made yet"]),
        "mine": ("missing", ["not made yet"]),
    }
    assert not (tmp_path / "none").exists()


def test_a_setting_makes_its_stage_stale(made: tuple[Path, Path]) -> None:
    found = states(*made, **{"pairs.window": "7"})
    assert found["check"] == ("fresh", [])
    assert found["mine"] == ("stale", ["other settings: pairs.window: the run has 50, given 7"])
    assert states(*made, seed="4")["mine"][1] == ["other settings: seed: the run has 0, given 4"]


def test_another_table_is_named(made: tuple[Path, Path], tmp_path: Path) -> None:
    tables = shop(tmp_path)
    log = pl.read_parquet(tables / "interactions.parquet")
    log.head(250).write_parquet(tables / "interactions.parquet")
    found = states(tables, made[1])
    assert found["check"] == ("stale", ["another log"])
    assert found["mine"] == ("stale", ["another log"])


def test_what_reads_a_stale_stage_is_stale(made: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("qarm.pipeline.plan._expected", lambda run, wanted: dict.fromkeys(wanted, 90.0))
    plan = plan_stages(config_of(made[0]), made[1])
    assert [(one.stage, one.state, one.seconds) for one in plan[:3]] == [
        ("check", "fresh", None),
        ("mine", "fresh", None),
        ("align", "missing", 90.0),
    ]


def test_what_the_run_would_refuse_is_refused(made: tuple[Path, Path], tmp_path: Path) -> None:
    with pytest.raises(InputError, match="need at least width=4096; lower quantizer.width"):
        plan_stages(config_of(made[0], **{"quantizer.width": "4096"}), made[1], last="quantize")
    with pytest.raises(InputError, match="no such file"):
        plan_stages(config_of(tmp_path), made[1])


def test_a_damaged_file_is_named(made: tuple[Path, Path], tmp_path: Path) -> None:
    import shutil

    copy = Path(shutil.copytree(made[1], tmp_path / "run"))
    (copy / "pairs" / "pairs.parquet").write_bytes(b"x")
    with pytest.raises(ArtifactError, match="pairs.parquet changed since the stage wrote it"):
        plan_stages(config_of(made[0]), copy, last="mine")
