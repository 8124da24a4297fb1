"""Disks that refuse a write: the message names the file and the way out."""

import errno
import os
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from safetensors.numpy import save_file

from qarm.cli import main
from qarm.core.atomic_io import atomic, write_json
from qarm.core.disk_errors import explained
from qarm.core.run_folder import run_lock
from qarm.core.tables.parquet import write_parquet
from qarm.errors import ArtifactError


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
