"""Entry point: closed, full and gone streams, ASCII terminals, early interrupts, `~`; one line each."""

import os
import shlex
import subprocess
import sys
from pathlib import Path

import polars as pl
import pytest

from qarm.cli import main

pytestmark = pytest.mark.skipif(os.name == "nt", reason="shells and signals of POSIX")
QARM = shlex.join([sys.executable, "-m", "qarm"])


def shell(script: str, folder: Path, **variables: str) -> "subprocess.CompletedProcess[str]":
    """A bash script in which `qarm` is the command."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", **variables}
    command = f'set -o pipefail; qarm() {{ {QARM} "$@"; }}; {script}'
    return subprocess.run(
        ["bash", "-c", command], cwd=folder, capture_output=True, text=True, env=environment, timeout=120
    )


@pytest.fixture
def shop(tmp_path: Path) -> Path:
    titles = ["Hütte", "Zelt", "日本"]
    pl.DataFrame({"item_id": ["a→b", "b", "c"], "title": titles}).write_csv(tmp_path / "items.csv")
    events = {"user_id": [1, 1, 2, 2], "item_id": ["a→b", "b", "a→b", "c"], "timestamp": [1, 2, 3, 4]}
    pl.DataFrame(events).write_csv(tmp_path / "log.csv")
    (tmp_path / "shop.yaml").write_text(
        "data:\n  items: {path: items.csv, text: [title], image: null, audio: null}\n"
        "  interactions: {path: log.csv}\n"
        "quantizer: {nearest: 1, levels: 1, width: 2}\n"
    )
    return tmp_path


@pytest.mark.parametrize("variables", [{"PYTHONIOENCODING": "ascii"}, {"LC_ALL": "C", "PYTHONUTF8": "0"}])
@pytest.mark.parametrize("command", ["qarm --help", "qarm run --help", "qarm check shop.yaml"])
def test_a_terminal_of_ascii_shows_everything(command: str, variables: dict[str, str], shop: Path) -> None:
    done = shell(command, shop, PYTHONCOERCECLOCALE="0", **variables)
    assert done.returncode == 0, done.stderr
    assert not done.stderr


def test_a_character_that_the_terminal_lacks_is_shown_by_its_number(shop: Path) -> None:
    done = shell("qarm check shop.yaml --set data.items.id=naïve", shop, PYTHONIOENCODING="ascii")
    assert done.returncode == 2
    assert "no column 'na\\xefve'" in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_a_reader_that_goes_ends_the_command_on_one_line(shop: Path) -> None:
    late = "import sys, time; from qarm.__main__ import main; "
    script = (
        f"{shlex.quote(sys.executable)} -c \"{late} time.sleep(1); sys.argv = ['qarm', '--help']; main()\""
    )
    done = shell(f"{script} | true", shop)
    assert done.returncode == 141
    assert done.stderr == (
        "qarm: whoever read the output has gone, so it stopped; the same command goes on from here\n"
    )
    done = shell("qarm --help | head -1", shop)
    assert done.returncode in (0, 141)
    assert len(done.stderr.splitlines()) <= 1


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
@pytest.mark.parametrize("command", ["qarm --version", "qarm check shop.yaml"])
def test_output_that_cannot_be_written_is_an_error(command: str, shop: Path) -> None:
    done = shell(f"{command} > /dev/full", shop)
    assert done.returncode == 1
    assert "o space left" in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_closed_streams(shop: Path) -> None:
    done = shell("qarm check shop.yaml >&-", shop)
    assert done.returncode == 2
    assert done.stderr.startswith("qarm: standard output is closed, need a place for the results; ")
    assert len(done.stderr.splitlines()) == 1
    assert shell("qarm check shop.yaml >&- 2>&-", shop).returncode == 2
    assert shell("qarm check shop.yaml <&- 2>&-", shop).returncode == 0
    wrong = shell("qarm check nothing.yaml 2>&-", shop)
    assert (wrong.returncode, wrong.stdout) == (2, "")


def test_no_file_of_the_command_gets_the_number_of_a_closed_stream(shop: Path) -> None:
    script = (
        "import os, sys; sys.argv = ['qarm', '--version']\n"
        "from qarm.__main__ import _open_streams\n_open_streams()\n"
        "sys.exit(0 if os.open('items.csv', os.O_RDONLY) > 2 else 1)"
    )
    for closing in ("<&-", ">&-", "2>&-", "<&- >&- 2>&-"):
        done = shell(f"{shlex.quote(sys.executable)} -c {shlex.quote(script)} {closing}", shop)
        assert done.returncode == 0, closing


def test_an_interrupt_during_the_imports_is_one_line(shop: Path, tmp_path: Path) -> None:
    (tmp_path / "early").mkdir()
    (tmp_path / "early" / "cyclopts.py").write_text(
        "import os, signal, time\nos.kill(os.getpid(), signal.SIGINT)\ntime.sleep(30)\n"
    )
    path = f"{tmp_path / 'early'}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"
    done = shell("qarm check shop.yaml", shop, PYTHONPATH=path)
    assert (done.returncode, done.stderr) == (130, "qarm: stopped; the same command goes on from here\n")


def test_home_is_meant_by_its_sign_and_no_folder_gets_that_name(shop: Path) -> None:
    home = shop / "home"
    home.mkdir()
    for file in ("shop.yaml", "items.csv", "log.csv"):
        (shop / file).rename(home / file)
    done = shell("qarm mine '~/shop.yaml' --data.root '~' '--out=~/run'", shop, HOME=str(home))
    assert (home / "run" / "check" / "check.json").is_file()
    assert not (shop / "~").exists()
    done = shell("qarm check '~nobody-here/shop.yaml'", shop)
    assert done.returncode == 2
    assert done.stderr.startswith("qarm: ~nobody-here/shop.yaml: ~nobody-here stands for no home folder")


@pytest.mark.parametrize(("size", "rank"), [("", ""), (" ", ""), ("1", "0")])
def test_an_empty_world_size_is_none(
    size: str, rank: str, shop: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(shop)
    monkeypatch.setenv("WORLD_SIZE", size)
    monkeypatch.setenv("RANK", rank)
    main(["mine", "shop.yaml", "--out", "run"])
    assert capsys.readouterr().out.startswith("check ")
