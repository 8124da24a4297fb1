"""Working names that can be foretold: what a link there leads to is neither written nor removed."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from hardening.planted import KINDS, Victim, foretold
from hardening.syscalls import Event
from qarm.core.atomic_io import write_json, write_text
from qarm.core.run_folder import run_lock, stage_folder, working_folder
from qarm.core.sealed_folder import building, seal
from qarm.errors import QarmError


def stage(root: Path) -> Path:
    with run_lock(root / "run"), stage_folder(root / "run", "codes", inputs={}, config={}) as (work, _):
        write_json(work / "quantizer" / "a.json", 1)
    return root / "run" / "codes" / "quantizer" / "a.json"


def sealed(root: Path) -> Path:
    with building(root / "c") as work:
        write_json(work / "a.json", 1)
        seal(work, kind="codes")
    return root / "c" / "a.json"


def single(root: Path) -> Path:
    write_json(root / "a.json", 1)
    return root / "a.json"


WORK = working_folder(Path("run"), "codes", inputs={}, config={}).as_posix()
NAMES: list[tuple[Callable[[Path], Path], str]] = [
    *((stage, name) for name in ("run/.lock", "run/.partial", WORK, f"{WORK}/quantizer/a.json")),
    *((stage, name) for name in (f"{WORK}/quantizer", f"{WORK}/manifest.json", "run/.partial/old.codes")),
    *((stage, f"run/.partial/{name}") for name in ("codes-1", "codes-rollback")),
    *((sealed, name) for name in (".c.partial", ".c.lock", f".c.{os.getpid()}.tmp")),
    *((single, name) for name in (f".a.json.{os.getpid()}.tmp", ".qarm-scratch-x", "a.json")),
]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("write", "name"), NAMES, ids=[f"{w.__name__} {n}".replace(str(os.getpid()), "PID") for w, n in NAMES]
)
def test_nothing_is_written_or_removed_through_it(
    write: Callable[[Path], Path], name: str, kind: str, tmp_path: Path
) -> None:
    victim, path = Victim(tmp_path / "victim"), tmp_path / "place" / name
    path.parent.mkdir(parents=True)
    KINDS[kind](path, victim)
    refused, made = "", None
    try:
        made = write(tmp_path / "place")
    except QarmError as error:
        refused = str(error)
    if made is None:
        assert str(path) in refused or str(path.parent) in refused
        assert "\n" not in refused
    else:
        assert made.read_text() == "1\n"
        assert not made.is_symlink()
        assert made.resolve().is_relative_to(tmp_path / "place")
    assert victim.changed() == []


def test_a_lock_beside_the_folder_that_holds_text_is_not_removed(tmp_path: Path) -> None:
    (tmp_path / ".c.lock").write_text("mine")
    with pytest.raises(QarmError, match="is no lock of qarm"):
        sealed(tmp_path)
    assert (tmp_path / ".c.lock").read_text() == "mine"


def test_random_names_and_results_are_not_foretold(tmp_path: Path) -> None:
    moved = Event("rename", "run/.qarm-scratch-x/files/a", "run/a")
    events = [Event("mkdir", "run"), Event("create", "run/.lock"), moved, Event("remove", "run/.partial")]
    assert foretold(events, {"run": "", "run/a": ""}) == ["run/.lock", "run/.partial"]


def test_a_victim_that_changed_is_named(tmp_path: Path) -> None:
    victim = Victim(tmp_path)
    write_text(victim.folder / "new", "x")
    victim.file.unlink()
    assert victim.changed() == ["file", "folder/new"]
