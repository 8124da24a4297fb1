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
        (errno.EDQUOT, "no space left"),
        (errno.ESTALE, "the network disk was mounted anew"),
        (errno.EISDIR, "a folder is where a file is needed"),
        (errno.EEXIST, "a file or a dangling link is where a folder is needed"),
        (errno.ENOTDIR, "a file or a dangling link is where a folder is needed"),
        (errno.ENAMETOOLONG, "the name is too long"),
        (errno.ELOOP, "symbolic links lead in a circle"),
        (errno.EMFILE, "too many open files"),
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


def test_a_name_that_is_not_utf8_is_one_line(tmp_path: Path) -> None:
    folder = tmp_path / os.fsdecode(b"caf\xe9")
    with pytest.raises(ArtifactError, match=r"caf\\udce9.*: the name is not UTF-8; rename"):
        write_parquet(folder / "a.parquet", pl.DataFrame({"x": [1]}))


def test_the_name_that_was_asked_for_is_told_and_not_the_temporary_one(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    with pytest.raises(ArtifactError, match=f"^{tmp_path}/a: a folder is where a file is needed"):
        write_json(tmp_path / "a", 1)
    with pytest.raises(ArtifactError, match=f"^{tmp_path}/{'x' * 256}: the name is too long"):
        write_json(tmp_path / ("x" * 256), 1)
    write_json(tmp_path / ("x" * 255), 1)
    with pytest.raises(ArtifactError, match=f"^{tmp_path}/file: a file or a dangling link"):
        (tmp_path / "file").touch()
        write_json(tmp_path / "file" / "b" / "c.json", 1)


def test_a_zero_byte_in_a_name_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="a name holds a zero byte; give another one"):
        write_json(tmp_path / "a\0b", 1)
    with pytest.raises(ValueError, match="another"), explained("x"):
        raise ValueError("another")
