"""Messages of a command: quiet, verbose, and the log of the run with the time of every message."""

import logging
import re
from pathlib import Path

import pytest
from tests.pipeline.test_check import shop

from qarm.cli import main
from qarm.cli.arguments import Output
from qarm.cli.run_log import run_messages
from qarm.errors import InputError

SETTINGS = ["--data.items", "{text: [title], image: null, audio: null}", "--encoder.audio", "null"]


@pytest.fixture
def mine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The command that mines the pairs of a small shop."""
    shop(tmp_path)
    (tmp_path / "c.yaml").write_text("{}")
    monkeypatch.chdir(tmp_path)
    return ["mine", "c.yaml", "--out", "run", *SETTINGS]


def test_every_message_is_in_the_log_with_its_time(
    mine: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    main(mine)
    out = capsys.readouterr().out
    lines = Path("run/qarm.log").read_text().splitlines()
    assert all(re.match(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ ", line) for line in lines)
    messages = [line[21:] for line in lines]
    assert messages[0].split()[0] == "qarm"
    assert [line for line in messages if line.startswith(("check  ", "mine  "))] == out.splitlines()
    assert "check: not made yet" in messages
    main([*mine, "--pairs.window", "7"])
    messages = [line[21:] for line in Path("run/qarm.log").read_text().splitlines()[len(lines) :]]
    assert "mine: other settings: pairs.window: the run has 50, given 7" in messages


def test_quiet_prints_errors_only(mine: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    main([*mine, "--quiet"])
    assert capsys.readouterr() == ("", "")
    with pytest.raises(SystemExit):
        main([*mine, "--quiet", "--data.root", "none"])
    out, err = capsys.readouterr()
    assert out == ""
    assert "no such file" in err
    assert "no such file" in Path("run/qarm.log").read_text().splitlines()[-1]


def test_verbose_says_why(mine: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    main([*mine, "--verbose"])
    out, err = capsys.readouterr()
    assert "mine: not made yet" in err.splitlines()
    assert out.splitlines()[0] not in err
    with pytest.raises(SystemExit) as end:
        main([*mine, "--verbose", "--quiet"])
    assert end.value.code == 2


def test_a_dry_run_prints_the_plan_and_makes_nothing(
    mine: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    main([*mine, "--dry-run"])
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[:2] for line in lines[:2]] == [["check", "missing"], ["mine", "missing"]]
    assert lines[1].endswith("not made yet")
    assert lines[2].startswith("expected on 2 cores, roughly: ")
    assert not Path("run").exists()
    main([*mine, "--quiet"])
    main([*mine, "--dry-run"])
    assert capsys.readouterr().out.splitlines()[-1] == "nothing to do"


def test_a_refused_run_leaves_nothing(mine: list[str]) -> None:
    with pytest.raises(SystemExit):
        main([*mine, "--data.root", "none"])
    assert not Path("run/qarm.log").exists()


def test_messages_of_progress_without_a_terminal(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    loop = logging.getLogger("qarm.progress")
    for output, shown in ((Output(), True), (Output(verbose=True), True), (Output(quiet=True), False)):
        with run_messages(tmp_path, output):
            loop.info("align: 10 %% (1 of %d steps)", 10)
        assert capsys.readouterr().err == ("align: 10 % (1 of 10 steps)\n" if shown else "")
    loop.info("nobody listens")
    assert capsys.readouterr().err == ""
    with (
        pytest.raises(InputError, match="at most one"),
        run_messages(tmp_path, Output(quiet=True, verbose=True)),
    ):
        pass
