"""Verification: every damaged file of a run, its earlier versions and a sealed folder, by name."""

import json
from pathlib import Path

import pytest

from qarm.cli import main
from qarm.core.run_folder import stage_folder
from qarm.core.sealed_folder import seal
from qarm.data.verification import damaged_files
from qarm.errors import InputError


@pytest.fixture
def run(tmp_path: Path) -> Path:
    run = tmp_path / "run"
    for stage in ("pairs", "codes"):
        with stage_folder(run, stage, inputs={}, config={}) as (work, _):
            (work / "a.txt").write_text("some text")
    with stage_folder(run / "other", "1", inputs={}, config={}) as (work, _):
        (work / "a.txt").write_text("an earlier one")
    (run / "codes" / "versions").mkdir()
    (run / "other" / "1").rename(run / "codes" / "versions" / "1")
    (run / "other").rmdir()
    (run / "cache").mkdir()
    return run


def test_each_file_changed_cut_off_or_removed_is_named(run: Path) -> None:
    assert damaged_files(run) == []
    files = [path for path in run.rglob("*") if path.is_file()]
    assert len(files) >= 9
    for path in files:
        content = path.read_bytes()
        flipped = bytes([content[0] ^ 1]) + content[1:]
        for changed in (flipped, content[: len(content) // 2], None):
            path.unlink() if changed is None else path.write_bytes(changed)
            found = damaged_files(run)
            assert len(found) == 1, path
            assert str(path.parent) in found[0]
            assert path.name in found[0]
            path.write_bytes(content)
    assert damaged_files(run) == []


def test_a_sealed_folder(tmp_path: Path) -> None:
    folder = tmp_path / "bundle"
    folder.mkdir()
    (folder / "x").write_text("x")
    seal(folder, kind="qarm-bundle-1")
    assert damaged_files(folder) == []
    (folder / "x").write_text("y")
    assert "changed: x" in damaged_files(folder)[0]
    with pytest.raises(InputError, match="no finished stage and no manifest"):
        damaged_files(tmp_path / "none")


def test_the_command(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(["verify", str(run)])
    assert "every file is as it was written" in capsys.readouterr().out
    (run / "codes" / "versions" / "1" / "a.txt").unlink()
    with pytest.raises(SystemExit) as stopped:
        main(["verify", str(run), "--json"])
    assert stopped.value.code == 1
    shown = capsys.readouterr()
    assert json.loads(shown.out)["damaged"] == [str(run / "codes" / "versions" / "1" / "a.txt")]
    assert "damaged or missing" in shown.err
