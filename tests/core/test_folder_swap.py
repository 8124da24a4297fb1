"""Swap of folders: in one step, on the disk, and completed after a kill at any point."""

import errno
import os
from pathlib import Path

import pytest

from qarm.core import folder_swap
from qarm.core.folder_swap import flush_tree, swap_folder
from qarm.core.run_folder import PARTIAL, finish_swap, is_fresh, seal_stage
from qarm.core.stage_timing import last_change
from qarm.schemas.base import Timing

INPUTS, CONFIG = {"items": "abc"}, {"levels": 3}
exchanging = pytest.mark.skipif(folder_swap._renameat2() is None, reason="needs renameat2")


def folder_with(path: Path, text: str) -> Path:
    path.mkdir(parents=True)
    (path / "text").write_text(text)
    return path


@pytest.mark.parametrize("exchange", [True, False])
def test_the_new_folder_takes_the_place_and_the_old_one_goes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, exchange: bool
) -> None:
    if not exchange:
        monkeypatch.setattr(folder_swap, "_renameat2", lambda: None)
    (tmp_path / "aside").mkdir()
    work, folder = folder_with(tmp_path / "work", "new"), folder_with(tmp_path / "folder", "old")
    swap_folder(work, folder, aside=tmp_path / "aside")
    assert (folder / "text").read_text() == "new"
    assert [path.name for path in tmp_path.iterdir()] == ["folder"]
    swap_folder(folder, tmp_path / "other", aside=tmp_path / "aside")
    assert (tmp_path / "other" / "text").read_text() == "new"


@exchanging
def test_a_path_is_never_without_a_folder(tmp_path: Path) -> None:
    """Every rename of the swap is seen, and before each the folder is there."""
    work, folder = folder_with(tmp_path / "work", "new"), folder_with(tmp_path / "folder", "old")
    there = []
    rename = Path.rename
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Path, "rename", lambda *paths: (there.append(folder.is_dir()), rename(*paths)))
        swap_folder(work, folder, aside=tmp_path / "aside")
    assert there == [True]


@exchanging
@pytest.mark.parametrize("number", [errno.EINVAL, errno.ENOSYS, errno.EACCES])
def test_a_file_system_without_exchange_gets_two_renames_and_other_errors_are_errors(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    monkeypatch.setattr(folder_swap, "_renameat2", lambda: lambda *_: -1)
    monkeypatch.setattr("ctypes.get_errno", lambda: number)
    work, folder = folder_with(tmp_path / "work", "new"), folder_with(tmp_path / "folder", "old")
    if number == errno.EACCES:
        with pytest.raises(PermissionError, match="folder"):
            swap_folder(work, folder, aside=tmp_path / "aside")
        assert (folder / "text").read_text() == "old"
        return
    swap_folder(work, folder, aside=tmp_path / "aside")
    assert (folder / "text").read_text() == "new"


def test_all_names_and_new_files_are_flushed_and_linked_files_left_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A linked file was flushed under its first name; a dangling link is no file."""
    folder_with(tmp_path / "work" / "a", "new")
    os.link(folder_with(tmp_path / "earlier", "old") / "text", tmp_path / "work" / "linked")
    (tmp_path / "work" / "link").symlink_to("nowhere")
    flushed = []
    monkeypatch.setattr(folder_swap, "flush", flushed.append)
    flush_tree(tmp_path / "work")
    work = tmp_path / "work"
    assert set(flushed) == {work, work / "a", work / "a" / "text"}


@pytest.mark.parametrize("removed", [0, 1])
def test_what_an_exchange_left_does_not_come_back(tmp_path: Path, removed: int) -> None:
    """A kill after the exchange leaves the old folder, finished, under the name of the working folder."""

    def made(path: Path, text: str, started: float) -> Path:
        folder_with(path, text)
        timing = Timing(started=started, seconds=1.0)
        seal_stage(path, "codes", rows={}, timing=timing, inputs=INPUTS, config=CONFIG)
        return path

    folder, left = (
        made(tmp_path / "codes", "new", 20.0),
        made(tmp_path / PARTIAL / "codes-0123", "old", 10.0),
    )
    if removed:
        (left / "text").unlink()
    assert last_change(left) < last_change(folder)
    assert is_fresh(folder, inputs=INPUTS, config=CONFIG)
    assert (folder / "text").read_text() == "new"
    made(tmp_path / PARTIAL / "codes-4567", "newer", 30.0)
    finish_swap(folder)
    assert (folder / "text").read_text() == "newer"
    assert not (tmp_path / PARTIAL).exists()
