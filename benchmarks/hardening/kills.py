"""Kill -9 at system calls of every command and at random moments; the rerun's bytes are the same."""

import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

from hardening.commands import Bench, Command
from hardening.forks import Ended, start, wait
from hardening.snapshots import differences, snapshot
from hardening.syscalls import Tracer

__all__ = ["Tally", "kill_at_calls", "kill_at_random", "kill_processes", "rerun", "spread"]

AGAIN = 3  # a command killed at a random moment is killed up to so many times


@dataclass
class Tally:
    """What was tried, by kind, and the faults."""

    tried: Counter[str] = field(default_factory=Counter)
    faults: list[str] = field(default_factory=list)

    def note(self, kind: str, what: str, wrong: str | None) -> None:
        """One trial, and what was wrong with it."""
        self.tried[kind] += 1
        if wrong:
            self.faults.append(f"{kind}, {what}: {wrong}")
            print(f"FAULT {self.faults[-1]}", flush=True)


def spread(numbers: Iterable[int], count: int) -> list[int]:
    """`count` of the numbers, evenly spread."""
    numbers = list(numbers)
    return [numbers[i * len(numbers) // count] for i in range(min(count, len(numbers)))]


def rerun(bench: Bench, command: Command) -> str | None:
    """What is wrong after the same command, now undisturbed; None where its files are as expected."""
    ended = bench.finish(command)
    if ended.code:
        return f"the rerun ended with {ended.code}: {ended.output[-500:]}"
    return ", ".join(differences(bench.reference(command).files, snapshot(bench.root))[:6]) or None


def kill_at_calls(bench: Bench, command: Command, count: int, tally: Tally) -> None:
    """Kills at so many of the calls that change the disk, evenly spread, each on a place of its own."""
    reference = bench.reference(command)
    tally.note("flushed", command.name, ", ".join(reference.unflushed[:6]))
    for number in spread(range(len(reference.events)), count):
        bench.clear(command)
        tracer = Tracer(bench.root, at=number)
        ended = tracer.run(bench.work(command), bench.output)
        if ended.code == 0:  # threads: fewer calls than in the reference
            continue
        wrong = _answered(bench, ended) or rerun(bench, command)
        tally.note(command.name, f"killed at call {number} ({tracer.seen[-1]})", wrong)


def _answered(bench: Bench, ended: Ended) -> str | None:
    """What is wrong with a killed command: not killed, or rows of the store that it had answered are gone."""
    if ended.code != -signal.SIGKILL:
        return f"not killed, ended with {ended.code}: {ended.output[-300:]}"
    store = bench.root / "store" / "codes.sqlite"
    if not store.is_file():
        return None
    from qarm.serving.code_store import Store

    kept = Store(store.parent)
    lost = [item for item in ended.output.split() if kept.latest(item) is None]
    kept.close()
    return f"answered and lost: {lost}" if lost else None


def kill_at_random(bench: Bench, command: Command, count: int, tally: Tally, *, seed: int = 0) -> None:
    """So many kills at random moments; a command is killed again while it resumes."""
    draw, left = random.Random(seed), count
    seconds = bench.reference(command).seconds
    while left > 0:
        bench.clear(command)
        moments = []
        for _ in range(min(AGAIN, left)):
            moment = draw.uniform(0, seconds)
            child = start(bench.work(command), bench.output)
            time.sleep(moment)
            os.kill(child, signal.SIGKILL)
            left -= 1
            if wait(child, bench.output).code != -signal.SIGKILL:
                break  # it had finished
            moments.append(f"{moment:.2f} s")
        tally.tried[f"{command.name} at random"] += max(len(moments) - 1, 0)
        tally.note(f"{command.name} at random", ", ".join(moments), rerun(bench, command))


def kill_processes(bench: Bench, command: Command, count: int, tally: Tally, *, seed: int = 1) -> None:
    """The same with `python -m qarm` in a process of its own, in place of a fork."""
    draw = random.Random(seed)
    environment = os.environ | {"TMPDIR": str(bench.root / "tmp")}
    for _ in range(count):
        bench.clear(command)
        moment = draw.uniform(0.25, 1) * 2 * bench.reference(command).seconds
        process = subprocess.Popen(
            [sys.executable, "-m", "qarm", *bench.words(command)],
            env=environment,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        time.sleep(moment)
        process.kill()
        process.wait()
        tally.note("process", f"killed after {moment:.2f} s", rerun(bench, command))
