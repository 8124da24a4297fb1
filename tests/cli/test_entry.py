"""The command line: calls, exit codes, help, JSON."""

import errno
import json
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

from qarm.cli import main
from qarm.config import load_config
from qarm.data.codes import Codes
from qarm.errors import ConfigError


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


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (["--seed", "1", "--seed", "2"], "--seed is given twice, as 1 and as 2; leave one of them out"),
        (["--data.root", "a", "--set", "data.root=a"], "--data.root is given twice, as a and as a"),
        (
            ["--data.items", "{id: x}", "--data.items.id=y"],
            "--data.items and --data.items.id set the same section",
        ),
        (
            ["--data.items.id=y", "--data.items", "{id: x}"],
            "--data.items.id and --data.items set the same section",
        ),
        (["--out", "a", "--out", "b"], "--out"),
        (["--set", "seed"], "--set seed: need KEY=VALUE"),
    ],
)
def test_an_option_that_is_given_twice_is_refused(
    given: list[str],
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "c.yaml").write_text("{}")
    end = [] if "--out" in given else ["--out", "r"]
    code, out, err = run(capsys, "mine", "c.yaml", *end, *given)
    assert (code, out) == (2, "")
    assert message in err
    assert [path.name for path in tmp_path.iterdir()] == ["c.yaml"]


def test_a_variable_that_is_set_twice_is_refused() -> None:
    environment = {"QARM_DATA__ROOT": "a", "QARM_data__root": "b"}
    with pytest.raises(ConfigError, match="QARM_DATA__ROOT and QARM_data__root set the same key"):
        load_config(environment=environment)


def test_the_run_comes_first_and_the_older_order_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    calls: list[tuple[object, ...]] = []
    codes = Codes(["a"], np.zeros((1, 2), np.int32))

    def encode(run: Path, items: Path, **_: object) -> Codes:
        calls.append((run, items))
        return codes

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("qarm.quantizer.coder.encode", encode)
    for arguments in (
        ["RUN", "new.csv", "--out", "c.csv"],
        ["new.csv", "--run", "RUN", "--out", "c.csv"],
        ["--out=c.csv", "--run=RUN", "new.csv"],
    ):
        assert run(capsys, "encode", *arguments)[0] == 0
    assert calls == [(Path("RUN"), Path("new.csv"))] * 3
    (tmp_path / "RUN" / "codes").mkdir(parents=True)
    (tmp_path / "RUN" / "codes" / "manifest.json").write_text("{}")
    for command in (["encode", "new.csv", "RUN", "--out", "c.csv"], ["monitor", "new.csv", "RUN"]):
        code, _, err = run(capsys, *command)
        assert code == 2
        assert f"the run comes first: qarm {command[0]} RUN new.csv" in err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--append", "x.csv"], "no run folder; give one: qarm quantize RUN --append"),
        (["c.yaml"], "no run folder; give one: qarm quantize CONFIG --out RUN"),
        (["RUN"], "RUN is a folder, need a YAML file: qarm quantize CONFIG --out RUN"),
        (["RUN", "--out", "other", "--refit"], "got two run folders, RUN and other"),
        (["RUN", "--rollback", "1"], "has no finished codes"),
        (["--out", "RUN", "--rollback", "1"], "has no finished codes"),
    ],
)
def test_quantize_takes_the_run_first_where_it_goes_on_with_one(
    arguments: list[str],
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "RUN").mkdir()
    (tmp_path / "c.yaml").write_text("{}")
    code, _, err = run(capsys, "quantize", *arguments)
    assert code == (1 if "no finished" in message else 2)
    assert message in err


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish", "powershell"])
def test_shell_completion(shell: str, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run(capsys, "--completion", shell)
    assert code == 0
    for word in ("qarm", "export-codes", "allow-unreadable", "init"):
        assert word in out
    if shell == "bash" and shutil.which("bash"):
        subprocess.run(["bash", "-n"], input=out, text=True, check=True)


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


def test_a_system_error_that_nobody_foresaw_names_its_file(capsys: pytest.CaptureFixture[str]) -> None:
    code, _, said = run(capsys, "init", "a.csv", "b.csv", "--out", "/proc/1/shop.yaml")
    assert code in (1, 2)
    assert "Traceback" not in said
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("qarm.pipeline.verification.find_damage", _timed_out)
        code, _, said = run(capsys, "verify", "/net/run")
    assert code == 1
    assert "/net/run/a.json: connection timed out; is it the path that is meant?" in said


def _timed_out(folder: Path) -> None:
    raise OSError(errno.ETIMEDOUT, "Connection timed out", str(folder / "a.json"))
