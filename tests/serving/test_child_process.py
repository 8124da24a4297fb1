"""Children of the service end with it, also after `kill -9`, and whatever they are doing."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from qarm.serving.child_process import ChildProcess, ProcessDiedError

CHILD = """
import os, time
from qarm.serving.child_process import entered, watch_parent

def main(descriptor, niceness):
    pipe = entered(descriptor, niceness)
    watch_parent(descriptor)
    pipe.send((os.getpid(), os.nice(0)))
    word = pipe.recv()
    if word == "sleep":
        time.sleep(600)
    pipe.send(word)
    pipe.send_bytes(pipe.recv_bytes() * 2)
    raise SystemExit
"""
PARENT = """
import time
from qarm.serving.child_process import ChildProcess
child = ChildProcess("talking_child", niceness=1, environment={})
child.receive(60)
child.send("sleep")
print(child.pid, flush=True)
time.sleep(600)
"""


@pytest.fixture
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "talking_child.py").write_text(CHILD)
    more = [str(tmp_path), *filter(None, [os.environ.get("PYTHONPATH")])]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(more))
    return tmp_path


def test_words_and_bytes_go_and_come(path: Path) -> None:
    child = ChildProcess("talking_child", niceness=1, environment={})
    pid, niceness = child.receive(60)
    assert (pid, niceness) == (child.pid, os.nice(0) + 1)
    child.send("word", b"ab")
    assert child.receive(60) == "word"
    assert child.receive_bytes(60) == b"abab"
    with pytest.raises(ProcessDiedError, match="it ended"):
        child.receive(60)
    assert child.pid is None
    with pytest.raises(ProcessDiedError, match="it is stopped"):
        child.send("word")


def test_one_that_says_nothing_is_ended(path: Path) -> None:
    child = ChildProcess("talking_child", niceness=0, environment={})
    pid, _ = child.receive(60)
    child.send("sleep")
    with pytest.raises(ProcessDiedError, match="no answer in 0 seconds"):
        child.receive(0.1)
    assert not child.alive
    assert _ended(pid)


def test_it_ends_with_its_parent_after_a_kill(path: Path) -> None:
    parent = subprocess.Popen([sys.executable, "-c", PARENT], stdout=subprocess.PIPE, text=True)
    pid = int(parent.stdout.readline())
    assert not _ended(pid, seconds=0)
    parent.send_signal(signal.SIGKILL)
    parent.wait()
    parent.stdout.close()
    assert _ended(pid)


def _ended(pid: int, seconds: float = 20.0) -> bool:
    until = time.monotonic() + seconds
    while True:
        try:
            state = Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2][0]
        except FileNotFoundError:
            return True
        if state == "Z":
            return True
        if time.monotonic() >= until:
            return False
        time.sleep(0.05)
