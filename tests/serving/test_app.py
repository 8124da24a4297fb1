"""Starting the service: what is wrong is said in a line, with the way out, before anything listens."""

import socket
from importlib.util import find_spec
from pathlib import Path

import pytest
from uvicorn import Config

from qarm.cli import main
from qarm.errors import InputError, MissingExtraError
from qarm.serving import app as server
from qarm.serving.app import TOKEN_VARIABLE, read_token
from qarm.serving.limits import Limits


def failed(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str]:
    with pytest.raises(SystemExit) as stopped:
        main(["serve", *arguments])
    return int(stopped.value.code), capsys.readouterr().err


def test_no_bundle(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, said = failed(capsys, "--bundle", str(tmp_path / "nowhere"))
    assert code == 2
    assert "qarm export RUN --out" in said
    (tmp_path / "empty").mkdir()
    code, said = failed(capsys, "--bundle", str(tmp_path / "empty"), "--store", str(tmp_path / "store"))
    assert code == 2
    assert str(tmp_path / "empty") in said
    assert "Traceback" not in said


def test_wrong_arguments(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, said = failed(capsys, "--bundle", str(tmp_path), "--bundles", str(tmp_path / "nowhere"))
    assert (code, "no such folder" in said) == (2, True)
    code, said = failed(capsys, "--bundle", str(tmp_path), "--max-batch", "0")
    assert (code, "batch=0, need more than 0" in said) == (2, True)
    (tmp_path / "file").write_text("")
    code, said = failed(capsys, "--bundle", str(tmp_path), "--store", str(tmp_path / "file"))
    assert (code, "--store" in said) == (1, True)
    with pytest.raises(InputError, match="sound_seconds=-1"):
        Limits(sound_seconds=-1)


def test_the_token_comes_from_a_file_or_a_variable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(TOKEN_VARIABLE, raising=False)
    assert read_token(None) is None
    path = tmp_path / "token"
    path.write_text("0123456789abcdef\n")
    assert read_token(path) == "0123456789abcdef"
    monkeypatch.setenv(TOKEN_VARIABLE, "fedcba9876543210")
    assert read_token(None) == "fedcba9876543210"
    for wrong in ("short", "", "with a space in the middle", "ümläuts-are-no-ascii"):
        path.write_text(wrong)
        with pytest.raises(InputError, match="need 16 or more"):
            read_token(path)
    path.write_bytes(b"\xff" * 20)
    for unreadable in (path, tmp_path / "nowhere"):
        with pytest.raises(InputError, match="cannot be read"):
            read_token(unreadable)


def test_a_missing_extra_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "find_spec", lambda name: None if name == "uvicorn" else find_spec(name))
    with pytest.raises(
        MissingExtraError, match=r'uvicorn is not installed; run: pip install "qarm\[serve\]"'
    ):
        server.serve(tmp_path)


def test_connections_do_not_wait_for_an_acknowledgement() -> None:
    """With Nagle's algorithm the second half of an answer comes 40 ms after the first."""
    with (
        server._listening(Config(None, host="127.0.0.1", port=0)) as listening,
        socket.socket() as asking,
    ):
        listening.listen()
        asking.connect(listening.getsockname())
        accepted, _ = listening.accept()
        with accepted:
            assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY) != 0
