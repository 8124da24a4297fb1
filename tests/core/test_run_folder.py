"""Atomic files, stage folders, locks, and arrays with their item ids."""

import json
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from qarm.core.atomic_io import atomic, read_json, write_json
from qarm.core.run_folder import is_fresh, read_manifest, run_lock, stage_folder
from qarm.data.codes import Codes
from qarm.data.embeddings import Embeddings
from qarm.errors import ArtifactError, InputError

INPUTS, CONFIG = {"items": "abc"}, {"levels": 3}


def finish(run: Path, text: str = "done", inputs: dict[str, str] = INPUTS) -> None:
    with stage_folder(run, "codes", inputs=inputs, config=CONFIG) as (work, rows):
        (work / "out.txt").write_text(text)
        rows["items"] = 7


def files(folder: Path) -> list[str]:
    return sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file())


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    write_json(path, {"kept": 1})
    with pytest.raises(RuntimeError), atomic(path) as temporary:
        temporary.write_text("half")
        raise RuntimeError
    assert read_json(path) == {"kept": 1}
    assert files(tmp_path) == ["a.json"]


def test_json_refuses_nan(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="JSON compliant"):
        write_json(tmp_path / "a.json", {"auc": float("nan")})


def test_a_finished_stage_is_fresh_until_its_inputs_or_settings_change(tmp_path: Path) -> None:
    folder = tmp_path / "codes"
    assert not is_fresh(folder, inputs=INPUTS, config=CONFIG)
    finish(tmp_path)
    assert is_fresh(folder, inputs=INPUTS, config=CONFIG)
    assert not is_fresh(folder, inputs={"items": "other"}, config=CONFIG)
    assert not is_fresh(folder, inputs=INPUTS, config={"levels": 4})
    assert files(tmp_path) == ["codes/manifest.json", "codes/out.txt", "codes/timing.json"]


def test_the_manifest_holds_no_time_and_no_path(tmp_path: Path) -> None:
    finish(tmp_path / "a")
    finish(tmp_path / "b")
    first, second = (tmp_path / name / "codes" / "manifest.json" for name in "ab")
    assert first.read_bytes() == second.read_bytes()
    assert json.loads(first.read_text())["rows"] == {"items": 7}


def test_an_error_leaves_the_earlier_artefact(tmp_path: Path) -> None:
    finish(tmp_path, "first")
    with (
        pytest.raises(InputError),
        stage_folder(tmp_path, "codes", inputs={"items": "new"}, config=CONFIG) as (work, _),
    ):
        (work / "out.txt").write_text("half")
        raise InputError("bad")
    assert (tmp_path / "codes" / "out.txt").read_text() == "first"
    assert is_fresh(tmp_path / "codes", inputs=INPUTS, config=CONFIG)


def test_a_rerun_finds_what_was_finished_only_for_the_same_inputs(tmp_path: Path) -> None:
    for inputs, expected in ((INPUTS, True), ({"items": "new"}, False)):
        with (
            pytest.raises(KeyboardInterrupt),
            stage_folder(tmp_path, "codes", inputs=INPUTS, config=CONFIG) as (work, _),
        ):
            (work / "part-0").write_text("kept")
            raise KeyboardInterrupt
        with stage_folder(tmp_path, "codes", inputs=inputs, config=CONFIG) as (work, _):
            assert (work / "part-0").exists() is expected


def test_a_swap_cut_short_is_completed(tmp_path: Path) -> None:
    finish(tmp_path, "new")
    finished = tmp_path / ".partial" / "codes-0000000000000000"
    finished.parent.mkdir()
    (tmp_path / "codes").rename(finished)
    assert is_fresh(tmp_path / "codes", inputs=INPUTS, config=CONFIG)
    assert (tmp_path / "codes" / "out.txt").read_text() == "new"


def test_a_file_changed_by_hand_is_named(tmp_path: Path) -> None:
    finish(tmp_path)
    (tmp_path / "codes" / "out.txt").write_text("tampered")
    with pytest.raises(ArtifactError, match=r"out\.txt changed since"):
        is_fresh(tmp_path / "codes", inputs=INPUTS, config=CONFIG)


def test_broken_and_missing_json_are_named(tmp_path: Path) -> None:
    (tmp_path / "manifest.json").write_text("{")
    with pytest.raises(ArtifactError, match="is not JSON"):
        read_manifest(tmp_path)
    with pytest.raises(ArtifactError, match="is missing"):
        read_json(tmp_path / "none.json")


def test_a_second_process_is_refused(tmp_path: Path) -> None:
    with (
        run_lock(tmp_path),
        pytest.raises(ArtifactError, match="in use by another qarm process"),
        run_lock(tmp_path),
    ):
        pass
    with run_lock(tmp_path):
        pass


def test_a_lock_that_is_a_link_is_refused_and_its_target_stays(tmp_path: Path) -> None:
    (tmp_path / "notes").write_text("mine")
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / ".lock").symlink_to(tmp_path / "notes")
    with pytest.raises(ArtifactError, match=r"\.lock is a symbolic link"), run_lock(tmp_path / "run"):
        pass
    assert (tmp_path / "notes").read_text() == "mine"


def test_embeddings_survive_and_match_by_id(tmp_path: Path) -> None:
    vectors = np.arange(6, dtype=np.float32).reshape(3, 2)
    Embeddings(["a", "b", "c"], vectors).write(tmp_path / "e.parquet")
    back = Embeddings.read(tmp_path / "e.parquet")
    assert back.item_ids == ["a", "b", "c"]
    np.testing.assert_array_equal(back.rows(["c", "a"]), vectors[[2, 0]])
    assert pl.read_parquet_schema(tmp_path / "e.parquet")["embedding"] == pl.Array(pl.Float32, 2)
    with pytest.raises(InputError, match="no vector for items x"):
        back.rows(["a", "x"])


def test_codes_survive(tmp_path: Path) -> None:
    rq = np.array([[0, 1, 2], [3, 4, 5]], dtype=np.int32)
    vq = np.array([[7, 8], [9, 7]], dtype=np.int32)
    Codes(["a", "b"], rq, vq, version=3).write(tmp_path / "c.parquet")
    back = Codes.read(tmp_path / "c.parquet")
    assert (back.item_ids, back.version) == (["a", "b"], 3)
    np.testing.assert_array_equal(back.rq, rq)
    np.testing.assert_array_equal(back.vq, vq)
    schema = pl.read_parquet_schema(tmp_path / "c.parquet")
    assert schema["rq"] == pl.Array(pl.Int32, 3)
    assert schema["version"] == pl.Int32
    Codes(["a", "b"], rq).write(tmp_path / "d.parquet")
    assert Codes.read(tmp_path / "d.parquet").vq is None
