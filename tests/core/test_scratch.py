"""Scratch folders of living and of killed processes."""

import errno
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

import pytest

from qarm.core.locks import lock_file
from qarm.core.scratch import LOCK, Scratch, sweep_scratch


def names(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*"))


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
    left = Path(killed.stdout.strip()).relative_to(tmp_path)
    assert names(tmp_path) == [f"{left.parent}", f"{left.parent}/.lock", f"{left}", f"{left}/x"]
    with Scratch() as mine:
        (mine.path / "y").touch()
        sweep_scratch()
        own = mine.path.relative_to(tmp_path)
        assert names(tmp_path) == [f"{own.parent}", f"{own.parent}/.lock", f"{own}", f"{own}/y"]
    assert names(tmp_path) == []


def test_a_link_with_a_scratch_folders_name_is_not_followed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "temporary").mkdir()
    (tmp_path / "temporary" / "qarm-scratch-x").symlink_to(tmp_path / "mine")
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "temporary"))
    sweep_scratch()
    assert names(tmp_path) == ["mine", "temporary", "temporary/qarm-scratch-x"]


def test_a_scratch_folder_closes_twice_and_starts_empty() -> None:
    scratch = Scratch()
    assert list(scratch.path.iterdir()) == []
    scratch.close()
    scratch.close()
    assert not scratch.path.parent.exists()


def test_a_folder_that_is_made_while_its_name_is_swept_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between the sweep's two removals another process makes the folder anew and locks it, as locks do."""
    left, rmtree, made = tmp_path / ".qarm-scratch-a", shutil.rmtree, []
    left.mkdir()

    def remove_and_be_late(path: Path, *, ignore_errors: bool) -> None:
        rmtree(path, ignore_errors=ignore_errors)
        if not made:
            made.append(lock_file(left / LOCK))
            made[0].acquire()

    monkeypatch.setattr("qarm.core.scratch.shutil.rmtree", remove_and_be_late)
    sweep_scratch(tmp_path)
    assert made[0].is_locked
    made[0].release()
    assert names(tmp_path) == [".qarm-scratch-a", ".qarm-scratch-a/.lock"]


def test_a_folder_that_was_swept_before_it_was_locked_is_made_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[str] = []

    def make_and_lose(**names: Any) -> str:
        made.append(mkdtemp(**names))
        if len(made) == 1:
            sweep_scratch(tmp_path)
        return made[-1]

    monkeypatch.setattr("qarm.core.scratch.mkdtemp", make_and_lose)
    with Scratch(tmp_path) as scratch:
        assert [str(scratch.path.parent)] == made[1:]
        assert names(tmp_path) == [
            scratch.path.parent.name,
            f"{scratch.path.parent.name}/.lock",
            f"{scratch.path.parent.name}/files",
        ]
    assert names(tmp_path) == []


def test_a_lock_that_cannot_be_made_is_an_error_and_no_endless_loop(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Full:
        def acquire(self) -> None:
            raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("qarm.core.scratch.lock_file", lambda _: Full())
    with pytest.raises(OSError, match="No space left on device"):
        Scratch(tmp_path)
