"""What a disk refuses, what a kill leaves, and what a hand changes: named, swept up, never believed."""

import errno
import json
import os
import resource
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from safetensors.numpy import save_file

from qarm.cli import main
from qarm.core.atomic_io import atomic, write_json, write_parquet
from qarm.core.disk_errors import explained
from qarm.core.run_folder import clear_partial, is_fresh, read_manifest, run_lock, stage_folder, verify
from qarm.core.scratch import Scratch, sweep_scratch
from qarm.errors import ArtifactError
from qarm.quantizer.residual_kmeans import ResidualKMeans
from qarm.recommender.ranking.model import Ranker

INPUTS, CONFIG = {"items": "abc"}, {"levels": 3}
GONE = 2**22 + 1  # a process number beyond what Linux gives


def finish(run: Path, text: str = "done") -> Path:
    with stage_folder(run, "codes", inputs=INPUTS, config=CONFIG) as (work, rows):
        (work / "out.txt").write_text(text)
        rows["items"] = 7
    return run / "codes"


def names(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*"))


@contextmanager
def largest_file(size: int) -> Iterator[None]:
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


# ---- refusals -----------------------------------------------------------------------------------


@pytest.mark.parametrize("writer", ["json", "parquet", "safetensors"])
def test_a_write_that_the_disk_refuses_is_named_and_leaves_the_old_file(writer: str, tmp_path: Path) -> None:
    """Python tells an errno; polars and safetensors, written in Rust, tell it in their messages only."""
    path, noise = tmp_path / "a", np.random.default_rng(0).normal(size=100_000)
    path.write_text("kept")
    with (
        pytest.raises(ArtifactError, match=f"{path}.*: the file would be larger.* raise the limit"),
        largest_file(50_000),
    ):
        if writer == "json":
            write_json(path, noise.tolist())
        elif writer == "parquet":
            write_parquet(path, pl.DataFrame({"x": noise}))
        else:
            with atomic(path) as temporary:
                save_file({"x": noise}, temporary)
    assert path.read_text() == "kept"
    assert names(tmp_path) == ["a"]


@pytest.mark.parametrize(
    ("number", "words"),
    [
        (errno.ENOSPC, "no space left; free some"),
        (errno.EROFS, "not writable"),
        (errno.EACCES, "not writable"),
    ],
)
def test_the_command_line_says_it_in_one_line(
    number: int,
    words: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def refuse(*arguments: object, **named: object) -> None:
        raise OSError(number, os.strerror(number), str(tmp_path / "run"))

    monkeypatch.setattr("qarm.pipeline.run_stages", refuse)
    (tmp_path / "c.yaml").write_text("{}")
    with pytest.raises(SystemExit) as stop:
        main(["run", str(tmp_path / "c.yaml"), "--out", str(tmp_path / "run")])
    message = capsys.readouterr().err
    assert stop.value.code == 1
    assert message.startswith(f"qarm: {tmp_path / 'run'}: {words}")
    assert message.count("\n") == 1


def test_a_folder_that_nobody_may_write_to() -> None:
    with pytest.raises(ArtifactError, match="/sys/qarm: not writable"), run_lock(Path("/sys/qarm")):
        pass


def test_other_errors_pass_as_they_are() -> None:
    with pytest.raises(FileNotFoundError), explained("x"):
        raise FileNotFoundError(errno.ENOENT, "no such file")
    with pytest.raises(ZeroDivisionError), explained("x"):
        raise ZeroDivisionError


# ---- leftovers of a kill ------------------------------------------------------------------------


def test_unfinished_files_of_the_dead_are_swept_and_of_the_living_not(tmp_path: Path) -> None:
    dead, own, alive = (
        tmp_path / "cache" / f".a.{number}.tmp" for number in (GONE, os.getpid(), os.getppid())
    )
    dead.parent.mkdir()
    for path in (dead, own, alive, tmp_path / ".notes.tmp"):
        path.touch()
    with run_lock(tmp_path):
        assert names(tmp_path) == [".lock", ".notes.tmp", "cache", f"cache/{alive.name}"]


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


def test_scratch_of_a_killed_process_is_swept_and_of_a_living_one_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    program = (
        "import os, signal; from qarm.core.scratch import Scratch; s = Scratch();"
        "(s.path / 'x').touch(); print(s.path, flush=True); os.kill(os.getpid(), signal.SIGKILL)"
    )
    environment = os.environ | {"TMPDIR": str(tmp_path), "PYTHONPATH": os.pathsep.join(sys.path)}
    killed = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True)
    assert killed.returncode == -signal.SIGKILL
    assert names(tmp_path) == [Path(killed.stdout.strip()).name, f"{Path(killed.stdout.strip()).name}/x"]
    with Scratch() as mine:
        (mine.path / "y").touch()
        sweep_scratch()
        assert names(tmp_path) == [mine.path.name, f"{mine.path.name}/y"]
    assert names(tmp_path) == []


# ---- changes by hand ----------------------------------------------------------------------------


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
