"""Readers without the run's lock, beside writers that replace stages: one version, or another try."""

import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from qarm.core import consistent_read, folder_swap
from qarm.core.consistent_read import read_consistently
from qarm.core.locks import folder_lock
from qarm.core.run_folder import PARTIAL, read_manifest, run_lock, stage_folder
from qarm.errors import ArtifactError

FILES = [f"part-{n}" for n in range(8)]


def publish(run: Path, text: str) -> None:
    with (
        run_lock(run),
        stage_folder(run, "codes", inputs={"text": text}, config={}) as (work, _),
    ):
        for name in FILES:
            (work / name).write_text(text)


def read_all(run: Path) -> Callable[[], set[str]]:
    return lambda: {(run / "codes" / name).read_text() for name in FILES}


@pytest.mark.parametrize("exchange", [True, False])
def test_readers_beside_a_writer_see_one_version(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, exchange: bool
) -> None:
    if not exchange:
        monkeypatch.setattr(folder_swap, "_exchanged", lambda *_: False)
    publish(tmp_path, "0")
    done = threading.Event()

    def write() -> None:
        for number in range(1, 16):
            publish(tmp_path, str(number))
        done.set()

    writer = threading.Thread(target=write)
    writer.start()
    seen = []
    while not done.is_set():
        found = read_consistently(tmp_path, ["codes"], read_all(tmp_path))
        assert len(found) == 1
        seen += map(int, found)
    writer.join()
    assert seen == sorted(seen)
    assert len(set(seen)) > 3


@pytest.mark.parametrize("locks", [True, False])
def test_a_swap_while_it_reads_makes_it_read_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, locks: bool
) -> None:
    """Where the file system has no locks too; an error in the middle of a swap is not the reader's."""
    publish(tmp_path, "one")
    tries: list[str] = []

    def read() -> str:
        tries.append((tmp_path / "codes" / FILES[0]).read_text())
        if len(tries) == 1:
            publish(tmp_path, "two")
            raise FileNotFoundError("a file of version one")
        return tries[-1] + (tmp_path / "codes" / FILES[1]).read_text()

    monkeypatch.setattr("qarm.core.locks.PATIENCE", 0.1)
    if not locks:
        monkeypatch.setattr("qarm.core.locks._opened", lambda _: None)
    assert read_consistently(tmp_path, ["codes"], read) == "twotwo"
    assert tries == ["one", "two"]


def test_one_version_back_and_forth_is_not_taken_for_none(tmp_path: Path) -> None:
    """The same content is there before and after, and another one between them."""
    publish(tmp_path, "one")
    tries: list[str] = []

    def read() -> str:
        if not tries:
            publish(tmp_path, "two")
        tries.append((tmp_path / "codes" / FILES[0]).read_text())
        if len(tries) == 1:
            publish(tmp_path, "one")
        return tries[-1]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("qarm.core.locks.PATIENCE", 0.1)
        assert read_consistently(tmp_path, ["codes"], read) == "one"
    assert tries == ["two", "one"]


def test_an_error_of_its_own_is_its_error_and_endless_change_is_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish(tmp_path, "one")
    with pytest.raises(ArtifactError, match="mine"):
        read_consistently(tmp_path, ["codes"], lambda: (_ for _ in ()).throw(ArtifactError("mine")))
    monkeypatch.setattr(consistent_read, "PAUSE", 0.0)
    monkeypatch.setattr("qarm.core.locks.PATIENCE", 0.0)
    numbers = iter(range(100))
    with pytest.raises(ArtifactError, match="changed each of the 20 times that it was read; try again later"):
        read_consistently(tmp_path, ["codes"], lambda: publish(tmp_path, str(next(numbers))))


def test_a_swap_that_a_kill_cut_short_is_completed_by_a_reader(tmp_path: Path) -> None:
    publish(tmp_path, "one")
    (tmp_path / PARTIAL).mkdir()
    (tmp_path / "codes").rename(tmp_path / PARTIAL / "codes-0123456789abcdef")
    assert read_consistently(tmp_path, ["codes"], read_all(tmp_path)) == {"one"}
    assert read_manifest(tmp_path / "codes") is not None


def test_a_writer_waits_for_readers_and_not_for_ever(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    publish(tmp_path, "one")
    with folder_lock(tmp_path, shared=True):
        with folder_lock(tmp_path, shared=True):
            pass
        writer = threading.Thread(target=publish, args=(tmp_path, "two"))
        writer.start()
        writer.join(0.3)
        assert writer.is_alive()
        assert read_all(tmp_path)() == {"one"}
    writer.join(30)
    assert read_all(tmp_path)() == {"two"}
    monkeypatch.setattr("qarm.core.locks.PATIENCE", 0.05)
    with folder_lock(tmp_path, shared=True):
        publish(tmp_path, "three")
    assert read_all(tmp_path)() == {"three"}
