"""The short form of `make harden`, and its parts: a harness that misses nothing and blames nobody wrongly."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from hardening.kills import differences, snapshot

ROOT = Path(__file__).parents[2]
TRAPPED = """
import os, sys, tempfile
from pathlib import Path
import polars as pl
from hardening.trap import Trap
from qarm.core.atomic_io import write_json
from qarm.core.tables.parquet import write_parquet
folder, at = Path(sys.argv[1]), int(sys.argv[2])
trap = Trap(folder, at=at if at >= 0 else None, error=int(sys.argv[3]) if len(sys.argv) > 3 else None)
trap.set()
write_json(folder / "a" / "b.json", list(range(100)))
write_parquet(folder / "c.parquet", pl.DataFrame({"x": [1]}))
print("\\n".join(trap.seen))
"""
EVENTS = [
    "mkdir a",
    "write a/.b.json.tmp",
    "fsync a/.b.json.tmp",
    "rename a/.b.json.tmp",
    "fsync a",
    "write .c.parquet.tmp",
    "fsync .c.parquet.tmp",
    "rename .c.parquet.tmp",
]


def trapped(*arguments: object) -> subprocess.CompletedProcess[str]:
    paths = [str(ROOT / "benchmarks"), *sys.path]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(paths)}
    command = [sys.executable, "-c", TRAPPED, *map(str, arguments)]
    return subprocess.run(command, env=environment, capture_output=True, text=True)


def test_the_trap_sees_every_change_in_order_and_dies_at_the_one_asked_for(tmp_path: Path) -> None:
    seen = trapped(tmp_path, -1)
    assert seen.stdout.splitlines() == EVENTS, seen.stderr
    (tmp_path / "two").mkdir()
    killed = trapped(tmp_path / "two", EVENTS.index("fsync a/.b.json.tmp"))
    assert killed.returncode == -signal.SIGKILL
    half = next((tmp_path / "two" / "a").iterdir())
    assert half.name.startswith(".b.json.")
    assert 0 < half.stat().st_size < (tmp_path / "a" / "b.json").stat().st_size
    failed = trapped(tmp_path, EVENTS.index("fsync a/.b.json.tmp") - 1, 28)
    assert "b.json" in failed.stderr
    assert "no space left" in failed.stderr


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
def test_the_short_form_finds_no_fault() -> None:
    """Six kills at events and two at random, six refused writes, a second process, changes by hand."""
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path), "OMP_NUM_THREADS": "1"}
    command = [
        sys.executable,
        str(ROOT / "benchmarks" / "harden.py"),
        "--points",
        "6",
        "--only",
        "kills,faults",
    ]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "\nkills: 8 " in done.stdout
    assert "0 faults" in done.stdout.splitlines()[-1]
