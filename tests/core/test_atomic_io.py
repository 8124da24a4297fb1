"""Atomic files: whole or not there; unfinished ones are removed."""

import os
import time
from pathlib import Path

import pytest

from qarm.core import atomic_io
from qarm.core.atomic_io import atomic, flush, read_json, sweep_temporaries, write_json
from qarm.core.run_folder import run_lock

GONE = 2**22 + 1  # a process number beyond what Linux gives


def names(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*"))


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    write_json(path, {"kept": 1})
    with pytest.raises(RuntimeError), atomic(path) as temporary:
        temporary.write_text("half")
        raise RuntimeError
    assert read_json(path) == {"kept": 1}
    assert names(tmp_path) == ["a.json"]


def test_json_refuses_nan(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="JSON compliant"):
        write_json(tmp_path / "a.json", {"auc": float("nan")})


def test_unfinished_files_of_the_dead_are_swept_and_of_the_living_not(tmp_path: Path) -> None:
    dead, own, alive = (
        tmp_path / "cache" / f".a.{number}.tmp" for number in (GONE, os.getpid(), os.getppid())
    )
    dead.parent.mkdir()
    for path in (dead, own, alive, tmp_path / ".notes.tmp"):
        path.touch()
    with run_lock(tmp_path):
        assert names(tmp_path) == [".lock", ".notes.tmp", "cache", f"cache/{alive.name}"]


def test_on_windows_unfinished_files_go_by_age_and_folders_are_not_flushed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(atomic_io, "WINDOWS", True)
    fresh, old, own = (tmp_path / f".{name}.tmp" for name in (f"a.{GONE}", f"b.{GONE}", f"c.{os.getpid()}"))
    for path in (fresh, old, own):
        path.touch()
    days_ago = time.time() - 2 * 24 * 3600
    os.utime(old, (days_ago, days_ago))
    sweep_temporaries(tmp_path)
    assert names(tmp_path) == [fresh.name]
    monkeypatch.setattr(os, "open", lambda *given: pytest.fail("a folder was opened"))
    flush(tmp_path)
