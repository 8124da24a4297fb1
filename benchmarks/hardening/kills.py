"""Kill -9 at chosen events of a run and at random moments; the rerun must end with the same bytes."""

import hashlib
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from hardening.forks import Ended, fork, start, wait
from hardening.trap import Trap

__all__ = ["Bench", "Tally", "differences", "kill_at_events", "kill_at_random", "kill_processes", "snapshot"]

UNLIKE = "timing.json"  # durations and clock times, outside every hash
AGAIN = 3  # a run killed at a random moment is killed up to so many times


@dataclass
class Tally:
    """Kills by what they hit, and the faults found."""

    kills: Counter[str] = field(default_factory=Counter)
    faults: list[str] = field(default_factory=list)


class Bench:
    """One place for a run: the run folder, a folder for temporary files, and the command."""

    def __init__(self, folder: Path, config: Path) -> None:
        self.root, self.config = folder / "place", config
        self.run = self.root / "run"
        self.output = folder / "output.txt"

    def clear(self) -> None:
        shutil.rmtree(self.root, ignore_errors=True)
        (self.root / "tmp").mkdir(parents=True)

    def command(self) -> None:
        """What a child does: `qarm run`, with a TMPDIR of its own."""
        import tempfile

        from qarm.cli import main

        tempfile.tempdir = str(self.root / "tmp")
        main(["run", str(self.config), "--out", str(self.run)])

    def finish(self) -> Ended:
        return fork(self.command, self.output)

    def events(self) -> tuple[list[str], float]:
        """Every event of an uninterrupted run, and the seconds that it took."""
        self.clear()
        listed = self.root.parent / "events.txt"

        def work() -> None:
            trap = Trap(self.root)
            trap.set()
            self.command()
            listed.write_text("\n".join(trap.seen))

        began = time.perf_counter()
        ended = fork(work, self.output)
        if ended.code:
            raise RuntimeError(f"the uninterrupted run ended with {ended.code}:\n{ended.output}")
        return listed.read_text().splitlines(), time.perf_counter() - began


def snapshot(folder: Path) -> dict[str, str]:
    """SHA-256 of every file by name; of folders and of files that may differ, only the name."""
    found = {}
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        alike = path.is_file() and path.name != UNLIKE
        found[name] = hashlib.sha256(path.read_bytes()).hexdigest() if alike else ""
    return found


def differences(expected: dict[str, str], found: dict[str, str]) -> list[str]:
    """What is missing, left over or changed, by name."""
    missing = [f"missing {name}" for name in sorted(expected.keys() - found.keys())]
    left = [f"left over {name}" for name in sorted(found.keys() - expected.keys())]
    both = sorted(expected.keys() & found.keys())
    return missing + left + [f"changed {name}" for name in both if expected[name] != found[name]]


def _judge(bench: Bench, expected: dict[str, str], what: str, tally: Tally) -> None:
    ended = bench.finish()
    if ended.code:
        tally.faults.append(f"{what}: the rerun ended with {ended.code}: {ended.output[-500:]}")
        return
    wrong = differences(expected, snapshot(bench.root))
    if wrong:
        tally.faults.append(f"{what}: {', '.join(wrong[:6])}")


def kill_at_events(
    bench: Bench, expected: dict[str, str], events: Sequence[str], chosen: Sequence[int], tally: Tally
) -> None:
    """One kill at each chosen event, each on a run of its own."""
    for number in chosen:
        bench.clear()

        def work(at: int = number) -> None:
            Trap(bench.root, at=at).set()
            bench.command()

        ended = fork(work, bench.output)
        what = f"event {number} ({events[number]})"
        if ended.code != -signal.SIGKILL:
            tally.faults.append(f"{what}: not killed, ended with {ended.code}: {ended.output[-300:]}")
            continue
        tally.kills[events[number].partition(" ")[0]] += 1
        _judge(bench, expected, what, tally)


def kill_at_random(
    bench: Bench, expected: dict[str, str], count: int, seconds: float, tally: Tally, *, seed: int = 0
) -> None:
    """So many kills at random moments; a run is killed again while it resumes."""
    draw, left = random.Random(seed), count
    while left:
        bench.clear()
        moments = []
        for _ in range(min(AGAIN, left)):
            moment = draw.uniform(0, seconds)
            child = start(bench.command, bench.output)
            time.sleep(moment)
            os.kill(child, signal.SIGKILL)
            if wait(child, bench.output).code != -signal.SIGKILL:
                break  # it had finished
            moments.append(f"{moment:.2f} s")
            left -= 1
        tally.kills["random"] += len(moments)
        _judge(bench, expected, f"killed after {', '.join(moments)}", tally)


def kill_processes(
    bench: Bench, expected: dict[str, str], count: int, seconds: float, tally: Tally, *, seed: int = 1
) -> None:
    """The same with `python -m qarm run` in a process of its own, in place of a fork."""
    draw = random.Random(seed)
    arguments = [sys.executable, "-m", "qarm", "run", str(bench.config), "--out", str(bench.run)]
    environment = os.environ | {"TMPDIR": str(bench.root / "tmp")}
    for _ in range(count):
        bench.clear()
        moment = draw.uniform(seconds / 4, seconds)
        process = subprocess.Popen(
            arguments, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        time.sleep(moment)
        process.kill()
        if process.wait() == -signal.SIGKILL:
            tally.kills["process"] += 1
        _judge(bench, expected, f"process killed after {moment:.2f} s", tally)
