"""Sealed folders: equal content has one version, and whatever differs from it is named."""

import threading
from pathlib import Path

import pytest

from qarm.core.atomic_io import read_json, write_json, write_text
from qarm.core.sealed_folder import MANIFEST, building, opened_seal, seal
from qarm.errors import ArtifactError, InputError


def made(folder: Path, **files: str) -> str:
    with building(folder) as work:
        for name, text in files.items():
            (work / name).parent.mkdir(parents=True, exist_ok=True)
            write_text(work / name, text)
        return seal(work, kind="things")


def test_the_version_is_that_of_the_content_whatever_the_place(tmp_path: Path) -> None:
    one, same = made(tmp_path / "a", x="1", y="2"), made(tmp_path / "b", y="2", x="1")
    assert one == same
    assert len({one, made(tmp_path / "c", x="1", y="3"), made(tmp_path / "d", x="1", z="2")}) == 3
    assert opened_seal(tmp_path / "a", kind="things") == one
    assert sorted(path.name for path in (tmp_path / "a").iterdir()) == [MANIFEST, "x", "y"]


def test_equal_content_may_be_built_twice_and_other_content_not(tmp_path: Path) -> None:
    first = made(tmp_path / "a", x="1")
    inode = (tmp_path / "a").stat().st_ino
    assert made(tmp_path / "a", x="1") == first
    assert (tmp_path / "a").stat().st_ino == inode
    with pytest.raises(InputError, match="a sealed folder is never replaced"):
        made(tmp_path / "a", x="2")
    assert (tmp_path / "a" / "x").read_text() == "1"
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


def test_a_block_that_fails_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="half way"), building(tmp_path / "a") as work:
        write_text(work / "x", "1")
        raise RuntimeError("half way")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("there", ["folder", "file", "lock"])
def test_what_is_nobodys_is_left_alone(tmp_path: Path, there: str) -> None:
    place = tmp_path / "a"
    if there == "folder":
        place.mkdir()
        write_text(place / "mine", "kept")
    elif there == "file":
        write_text(place, "kept")
    else:
        write_text(tmp_path / ".a.lock", "kept")
    error = ArtifactError if there == "lock" else InputError
    with pytest.raises(error, match="give a new folder" if there != "lock" else "is no lock of qarm"):
        made(place, x="1")
    kept = {"folder": place / "mine", "file": place, "lock": tmp_path / ".a.lock"}[there]
    assert kept.read_text() == "kept"


def test_two_builders_do_not_meet(tmp_path: Path) -> None:
    entered, leave = threading.Event(), threading.Event()

    def slow() -> None:
        with building(tmp_path / "a") as work:
            entered.set()
            leave.wait(20)
            write_text(work / "x", "1")
            seal(work, kind="things")

    other = threading.Thread(target=slow)
    other.start()
    assert entered.wait(20)
    with pytest.raises(ArtifactError, match="is being written by another qarm process"):
        made(tmp_path / "a", x="1")
    leave.set()
    other.join()
    assert (tmp_path / "a" / "x").read_text() == "1"


def test_every_difference_is_named_at_once(tmp_path: Path) -> None:
    made(tmp_path / "a", **{"x": "1", "y": "2", "z": "3", "deep/w": "4"})
    folder = tmp_path / "a"
    (folder / "x").write_text("one")
    (folder / "y").unlink()
    (folder / "deep" / "new").write_text("5")
    (folder / "z").unlink()
    (folder / "z").symlink_to(folder / "x")
    with pytest.raises(ArtifactError) as told:
        opened_seal(folder, kind="things")
    for part in ("missing: y", "not part of it: deep/new", "changed: x, z", "restore it or export again"):
        assert part in str(told.value)


def test_a_manifest_is_of_its_kind_and_unchanged(tmp_path: Path) -> None:
    made(tmp_path / "a", x="1")
    with pytest.raises(InputError, match="no manifest.json"):
        opened_seal(tmp_path, kind="things")
    with pytest.raises(InputError, match="is not of kind 'others'"):
        opened_seal(tmp_path / "a", kind="others")
    manifest = read_json(tmp_path / "a" / MANIFEST)
    manifest["files"]["x"] = "0" * 64
    write_json(tmp_path / "a" / MANIFEST, manifest)
    with pytest.raises(ArtifactError, match="was changed; restore it or export again"):
        opened_seal(tmp_path / "a", kind="things")


def test_a_place_without_a_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for place in (Path(), Path("./.")):
        with pytest.raises(InputError, match=f"{tmp_path} exists and is nothing that qarm exported"):
            made(place, a="a")
    with pytest.raises(InputError, match="/ is no name of a new folder; give one"):
        made(Path("/"), a="a")
