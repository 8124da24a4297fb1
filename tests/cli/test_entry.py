"""The command line: calls, exit codes, help, JSON."""

import json
from pathlib import Path

import pytest

from qarm.cli import main


def run(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str, str]:
    code = 0
    try:
        main([str(a) for a in arguments])
    except SystemExit as stop:
        code = int(stop.code or 0)
    captured = capsys.readouterr()
    return code, captured.out, captured.err


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["run"], "requires an argument"),
        (["runn"], "runn"),
        (["run", "missing.yaml", "--out", "x"], "missing.yaml: No such file"),
        (["run", "c.yaml", "--data.root"], "--data.root needs a value"),
        (["run", "c.yaml", "--out", "x", "--set", "seed"], "need KEY=VALUE"),
        (["run", "c.yaml", "--out", "x", "--quantizer.widht", "8"], "did you mean quantizer.width?"),
        (["demo", "--out", "x", "--size", "huge"], "huge"),
    ],
)
def test_wrong_calls_exit_2_with_one_message(
    arguments: list[str],
    expected: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "c.yaml").write_text("{}")
    code, out, err = run(capsys, *arguments)
    assert (code, out) == (2, "")
    assert err.startswith("qarm: ")
    assert expected in err
    assert [p.name for p in tmp_path.iterdir()] == ["c.yaml"]


def test_help_and_version(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run(capsys, "--help")
    assert code == 0
    for command in (
        "check",
        "run",
        "mine",
        "align",
        "embed",
        "quantize",
        "train",
        "report",
        "encode",
        "export",
        "export-codes",
        "demo",
    ):
        assert command in out
    assert run(capsys, "--version")[1].strip() == "0.1.0"


def test_both_tables_problems_come_together(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "items.csv").write_text("item_id,title\na,one\na,two\n")
    config = tmp_path / "c.yaml"
    config.write_text(
        "data:\n  items: {path: items.csv, text: [title], image: null, audio: null}\n"
        "  interactions: {path: none.csv}\n"
    )
    code, _, err = run(capsys, "check", config, "--data.root", tmp_path)
    assert code == 2
    assert "2 problems:" in err
    assert "none.csv: no such file" in err
    assert "duplicate" in err


def test_check_as_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "items.csv").write_text("item_id,title\na,one\nb,two\n")
    clicks = "user_id,item_id,timestamp\nu,a,1\nu,b,2\nv,a,3\nv,b,4\nw,b,5\n"
    (tmp_path / "clicks.csv").write_text(clicks)
    config = tmp_path / "c.yaml"
    config.write_text(
        "data:\n  items: {path: items.csv, text: [title], image: null, audio: null}\n"
        "  interactions: {path: clicks.csv}\nquantizer: {width: 2, nearest: 1}\n"
    )
    code, out, _ = run(capsys, "check", config, f"--data.root={tmp_path}", "--json")
    assert code == 0
    found = json.loads(out)
    assert (found["items"], found["users"], found["interactions"]) == (2, 3, 5)
    assert found["log"]["parts"] == {"train": 3, "valid": 1, "test": 1}
    told = run(capsys, "check", config, f"--data.root={tmp_path}")[1]
    assert told.startswith("items: 2\nusers: 3\n")
    assert "split: train 3, valid 1, test 1" in told
    assert "warning: half of the users have 2 clicks or fewer" in told
