"""The short form of `make harden`, and its parts: a harness that misses nothing and blames nobody wrongly."""

import errno
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from hardening.snapshots import differences, snapshot
from hardening.syscalls import Event, missing, unflushed

ROOT = Path(__file__).parents[2]
TRACED = """
import sys
from pathlib import Path
import numpy as np
from safetensors.numpy import save_file
from hardening.syscalls import Tracer
from qarm.core.atomic_io import atomic, write_json
folder, at, error = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])

def work():
    write_json(folder / "a" / "b.json", list(range(100)))
    with atomic(folder / "c") as temporary:
        save_file({"x": np.zeros(9)}, temporary)

tracer = Tracer(folder, at=at if at >= 0 else None, error=error or None)
ended = tracer.run(work, folder.with_suffix(".out"))
print(*tracer.seen, sep="\\n")
print(ended.code, ended.output.splitlines()[-1:], file=sys.stderr)
"""
CALLS = [
    "",
    "mkdir a",
    "fsync .",
    "mkdir a/SCRATCH",
    "create a/SCRATCH/.lock",
    "mkdir a/SCRATCH/files",
    "create a/SCRATCH/files/b.json",
    "write a/SCRATCH/files/b.json",
    "fsync a/SCRATCH/files/b.json",
    "rename a/SCRATCH/files/b.json -> a/b.json",
    "fsync a",
    "rename a/SCRATCH -> a/SCRATCH.gone",
    "remove a/SCRATCH.gone/.lock",
    "remove a/SCRATCH.gone/files",
    "remove a/SCRATCH.gone",
    "mkdir SCRATCH",
    "create SCRATCH/.lock",
    "mkdir SCRATCH/files",
    "create SCRATCH/files/.tmpRANDOM",
    "truncate SCRATCH/files/.tmpRANDOM",
    "write SCRATCH/files/.tmpRANDOM",
    "rename SCRATCH/files/.tmpRANDOM -> SCRATCH/files/c",
    "fsync SCRATCH/files/c",
    "rename SCRATCH/files/c -> c",
    "fsync .",
    "rename SCRATCH -> SCRATCH.gone",
    "remove SCRATCH.gone/.lock",
    "remove SCRATCH.gone/files",
    "remove SCRATCH.gone",
    "",
][1:-1]
RANDOM = ((re.compile(r"\.qarm-scratch-\w+"), "SCRATCH"), (re.compile(r"\.tmp\w+"), ".tmpRANDOM"))
traces = pytest.mark.skipif(missing() is not None, reason=f"no system calls can be traced: {missing()}")


def traced(folder: Path, *, at: int = -1, error: int = 0) -> subprocess.CompletedProcess[str]:
    folder.mkdir()
    paths = [str(ROOT / "benchmarks"), *sys.path]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(paths)}
    command = [sys.executable, "-c", TRACED, str(folder), str(at), str(error)]
    return subprocess.run(command, env=environment, capture_output=True, text=True)


def named(lines: list[str]) -> list[str]:
    for pattern, name in RANDOM:
        lines = [pattern.sub(name, line) for line in lines]
    return lines


@traces
def test_calls_are_seen_in_order_and_the_one_asked_for_kills_or_fails(tmp_path: Path) -> None:
    """Also those of safetensors, which is written in Rust and renames a file of a name of its own."""
    seen = traced(tmp_path / "whole")
    assert named(seen.stdout.splitlines()) == CALLS, seen.stderr
    assert seen.stderr.split()[0] == "0"

    killed = traced(tmp_path / "killed", at=CALLS.index("write SCRATCH/files/.tmpRANDOM"))
    assert killed.stderr.split()[0] == str(-signal.SIGKILL)
    (half,) = (tmp_path / "killed").rglob(".tmp*")
    whole = (tmp_path / "whole" / "c").read_bytes()
    assert half.read_bytes().rstrip(b"\0") == whole[: len(whole) // 2].rstrip(b"\0")
    assert not (tmp_path / "killed" / "c").exists()

    failed = traced(tmp_path / "failed", at=CALLS.index("rename SCRATCH/files/c -> c"), error=errno.EROFS)
    assert failed.stderr.split()[0] == "99"
    assert f"{tmp_path}/failed/c: not writable" in failed.stderr


def test_what_a_power_cut_may_take_is_named() -> None:
    moved = [
        Event("create", "a/t"),
        Event("write", "a/t"),
        Event("rename", "a/t", "b/f"),
        Event("mkdir", "c"),
    ]
    left = {"b/f", "b", "c", "."}
    assert unflushed(moved, left) == ["./", "b/", "b/f"]
    assert unflushed([*moved, Event("fsync", "b/f"), Event("fsync", ".")], left) == ["b/"]
    written = [Event("write", "w/f"), Event("fsync", "w/f"), Event("rename", "w", "v")]
    assert unflushed(written, {"v/f"}) == []
    assert unflushed([*written, Event("write", "v/f")], {"v/f"}) == ["v/f"]


def test_differences_are_named(tmp_path: Path) -> None:
    for name, text in (("a/x", "1"), ("a/y", "1"), ("a/timing.json", "1")):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    before = snapshot(tmp_path)
    (tmp_path / "a/timing.json").write_text("2")
    assert differences(before, snapshot(tmp_path)) == []
    (tmp_path / "a/x").write_text("2")
    (tmp_path / "a/y").unlink()
    (tmp_path / "b").mkdir()
    assert differences(before, snapshot(tmp_path)) == ["missing a/y", "left over b", "changed a/x"]


@pytest.mark.slow
@pytest.mark.timeout(1800)
@traces
def test_the_short_form_finds_no_fault() -> None:
    """Two kills of each command and two refused writes, a second process, changes by hand."""
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path), "OMP_NUM_THREADS": "1"}
    script = str(ROOT / "benchmarks" / "harden.py")
    command = [sys.executable, script, "--points", "2", "--only", "kills,faults"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    for name in ("append", "refit", "rollback", "compare", "encode", "export", "export-codes"):
        assert f"2 {name}" in done.stdout
    assert re.search(r"^kills: \d+ tried, 0 faults$", done.stdout, re.MULTILINE)
    assert re.search(r"^faults: \d+ tried, 0 faults$", done.stdout, re.MULTILINE)
