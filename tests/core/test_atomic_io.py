"""Atomic files: whole or not there; unfinished ones are removed."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from qarm.core import atomic_io
from qarm.core.atomic_io import atomic, flush, make_folder, read_json, write_json
from qarm.core.run_folder import run_lock


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


@pytest.mark.parametrize("what", ["folder", "file"])
def test_a_link_at_the_name_is_replaced_and_its_target_stays(what: str, tmp_path: Path) -> None:
    target = tmp_path / "target"
    target.mkdir() if what == "folder" else target.write_text("mine")
    (tmp_path / "a.json").symlink_to(target)
    write_json(tmp_path / "a.json", 1)
    assert not (tmp_path / "a.json").is_symlink()
    assert list(target.iterdir()) == [] if what == "folder" else target.read_text() == "mine"


def test_what_a_library_leaves_beside_the_file_goes_with_it(tmp_path: Path) -> None:
    """As safetensors does, which writes `.tmpXXXXXX` and renames it."""
    with atomic(tmp_path / "a") as temporary:
        temporary.with_name(".tmpAbCdEf").write_text("half")
        temporary.write_text("whole")
    assert names(tmp_path) == ["a"]


def test_a_killed_writers_files_are_removed_by_the_next_write_there(tmp_path: Path) -> None:
    program = (
        "import os, sys; from pathlib import Path; from qarm.core.atomic_io import atomic\n"
        "with atomic(Path(sys.argv[1])) as path: path.write_text('half'); os.kill(os.getpid(), 9)"
    )
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    killed = subprocess.run([sys.executable, "-c", program, tmp_path / "sub" / "a"], env=environment)
    assert killed.returncode == -signal.SIGKILL
    assert len(names(tmp_path)) == 5
    write_json(tmp_path / "sub" / "b", 1)
    assert names(tmp_path) == ["sub", "sub/b"]


def test_a_run_is_swept_as_a_whole_and_the_users_hidden_files_stay(tmp_path: Path) -> None:
    for name in ("cache/.qarm-scratch-x/files", "cache/.qarm-scratches"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    with run_lock(tmp_path):
        assert names(tmp_path) == [".lock", "cache", "cache/.qarm-scratches"]


def test_folders_are_not_flushed_on_windows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(atomic_io, "WINDOWS", True)
    monkeypatch.setattr(os, "open", lambda *given: pytest.fail("a folder was opened"))
    flush(tmp_path)


def test_new_folders_are_flushed_with_their_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    flushed: list[Path] = []
    monkeypatch.setattr(atomic_io, "flush", flushed.append)
    make_folder(tmp_path / "a" / "b")
    make_folder(tmp_path / "a" / "b")
    assert flushed == [tmp_path, tmp_path / "a"]
