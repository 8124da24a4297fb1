"""Stage folders, their manifests and the lock of a run."""

import json
import os
from pathlib import Path

import numpy as np
import pytest

from qarm.core.atomic_io import read_json, write_json
from qarm.core.run_folder import clear_partial, is_fresh, read_manifest, run_lock, stage_folder, verify
from qarm.errors import ArtifactError, InputError
from qarm.quantizer.residual_kmeans import ResidualKMeans
from qarm.recommender.ranking.model import Ranker

INPUTS, CONFIG = {"items": "abc"}, {"levels": 3}


def finish(run: Path, text: str = "done", inputs: dict[str, str] = INPUTS) -> Path:
    with stage_folder(run, "codes", inputs=inputs, config=CONFIG) as (work, rows):
        (work / "out.txt").write_text(text)
        rows["items"] = 7
    return run / "codes"


def names(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*"))


def files(folder: Path) -> list[str]:
    return sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file())


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


def test_a_stage_that_was_killed_in_a_write_keeps_no_half_file(tmp_path: Path) -> None:
    with (
        pytest.raises(KeyboardInterrupt),
        stage_folder(tmp_path, "codes", inputs=INPUTS, config=CONFIG) as (work, _),
    ):
        (work / f".out.txt.{os.getppid()}.tmp").write_text("ha")
        raise KeyboardInterrupt
    assert set(read_manifest(finish(tmp_path)).outputs) == {"out.txt"}
    assert names(tmp_path / "codes") == ["manifest.json", "out.txt", "timing.json"]


def test_what_killed_swaps_and_reworks_left_goes_and_nothing_of_another_stage(tmp_path: Path) -> None:
    folder = finish(tmp_path)
    for left in ("old.codes", "codes-0123456789abcdef"):
        (tmp_path / ".partial" / left).mkdir(parents=True)
        (tmp_path / ".partial" / left / "appended.parquet").touch()
    (tmp_path / ".partial" / "pairs-0123456789abcdef").mkdir()
    clear_partial(folder)
    assert names(tmp_path / ".partial") == ["pairs-0123456789abcdef"]


def test_a_manifest_changed_by_hand_is_named(tmp_path: Path) -> None:
    path = finish(tmp_path) / "manifest.json"
    content = json.loads(path.read_text())
    content["outputs"]["out.txt"] = "0" * 64
    for changed in (content, {**content, "rows": {}}, {}, [], {"sha256": 3}):
        path.write_text(json.dumps(changed))
        with pytest.raises(ArtifactError, match=r"manifest\.json changed since the stage wrote it"):
            is_fresh(tmp_path / "codes", inputs=INPUTS, config=CONFIG)


def test_models_of_a_run_are_compared_with_its_manifest(tmp_path: Path) -> None:
    """A config that was edited has no hash of its own; the stage's manifest knows it."""
    vectors = np.random.default_rng(0).normal(size=(40, 4)).astype(np.float32)
    with stage_folder(tmp_path, "codes", inputs=INPUTS, config=CONFIG) as (work, _):
        ResidualKMeans(levels=2, width=4, seed=0).fit(vectors).save_pretrained(work / "quantizer")
    folder = tmp_path / "codes" / "quantizer"
    ResidualKMeans.from_pretrained(folder)
    config = json.loads((folder / "config.json").read_text())
    write_json(folder / "config.json", config | {"seed": 1})
    with pytest.raises(ArtifactError, match=r"codes: quantizer/config\.json changed"):
        ResidualKMeans.from_pretrained(folder)


def test_a_ranker_and_an_encoder_of_a_run_are_compared_too(tmp_path: Path) -> None:
    from qarm.encoder.encoder import Encoder

    with stage_folder(tmp_path, "recommender", inputs=INPUTS, config=CONFIG) as (work, _):
        write_json(work / "id" / "config.json", {})
    with stage_folder(tmp_path, "encoder", inputs=INPUTS, config=CONFIG) as (work, _):
        write_json(work / "config.json", {})
    for path, opened in (("recommender/id", Ranker), ("encoder", Encoder)):
        write_json(tmp_path / path / "config.json", {"levels": 2})
        with pytest.raises(ArtifactError, match=r"config\.json changed since the stage wrote it"):
            opened.from_pretrained(tmp_path / path)


def test_only_files_below_are_compared_and_other_folders_not_at_all(tmp_path: Path) -> None:
    with stage_folder(tmp_path, "codes", inputs=INPUTS, config=CONFIG) as (work, _):
        write_json(work / "a" / "x.json", 1)
        write_json(work / "b" / "x.json", 1)
    (tmp_path / "codes" / "b" / "x.json").unlink()
    verify(tmp_path / "codes" / "a")
    with pytest.raises(ArtifactError, match=r"b/x\.json changed"):
        verify(tmp_path / "codes" / "b")
    write_json(tmp_path / "elsewhere" / "manifest.json", {"of": "another program"})
    verify(tmp_path / "elsewhere")
