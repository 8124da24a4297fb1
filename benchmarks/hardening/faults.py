"""Full and read-only disks, two processes, a clock that jumps, files changed by hand; nothing is lost."""

import errno
import shutil
import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from hardening.commands import Bench, Command
from hardening.forks import Ended, fork, start, wait
from hardening.kills import Tally, rerun, spread
from hardening.snapshots import UNLIKE, differences, snapshot
from hardening.syscalls import Tracer

REFUSED = ("create", "write", "fsync", "rename", "mkdir", "link")

__all__ = ["changed_by_hand", "clock_jumps", "full_disk", "refused_writes", "two_processes"]


def _clear_words(ended: Ended, words: str) -> str | None:
    """What is wrong with how a command refused, or None."""
    lines = [line for line in ended.output.splitlines() if line.startswith("qarm: ")]
    if ended.code != 1:
        return f"ended with {ended.code}: {ended.output[-300:]}"
    if "Traceback" in ended.output or len(lines) != 1:
        return f"no single line: {ended.output[-600:]}"
    return None if words in lines[0] else f"{lines[0]!r} lacks {words!r}"


def refused_writes(bench: Bench, command: Command, count: int, tally: Tally) -> None:
    """The disk refuses one call: by turns because it is full, and read-only."""
    events = bench.reference(command).events
    chosen = [number for number, event in enumerate(events) if event.kind in REFUSED]
    for turn, number in enumerate(spread(chosen, count)):
        full = turn % 2 == 0
        bench.clear(command)
        tracer = Tracer(bench.root, at=number, error=errno.ENOSPC if full else errno.EROFS)
        wrong = _clear_words(
            tracer.run(bench.work(command), bench.output), "no space left" if full else "not writable"
        )
        what = f"{'ENOSPC' if full else 'EROFS'} at {number} of {command.name} ({events[number]})"
        tally.note("refused write", what, wrong or rerun(bench, command))


def full_disk(bench: Bench, command: Command, sizes: Sequence[int], tally: Tally) -> None:
    """A small disk of `sizes` KiB fills up; then it grows, then it is read-only. Needs the right to mount."""
    for size in sizes:
        bench.clear(command)
        options = ["-t", "tmpfs", "-o", f"size={size}k", "tmpfs", str(bench.run)]
        bench.run.mkdir()
        if subprocess.run(["mount", *options], capture_output=True).returncode:
            print("full disk: not tried, mounting needs root", flush=True)
            return
        try:
            wrong = _clear_words(bench.finish(command), "no space left")
            _remount(bench.run, "size=1g")
            tally.note("full disk", f"{size} KiB", wrong or rerun(bench, command))
            _remount(bench.run, "ro")
            tally.note("read-only disk", f"{size} KiB", _clear_words(bench.finish(command), "not writable"))
        finally:
            subprocess.run(["umount", str(bench.run)], check=True)


def _remount(folder: Path, options: str) -> None:
    subprocess.run(["mount", "-o", f"remount,{options}", str(folder)], check=True)


def two_processes(bench: Bench, command: Command, tally: Tally) -> None:
    """A second process on the run folder is refused, and the first one does not notice."""
    bench.clear(command)
    child = start(bench.work(command), bench.output)
    while not (bench.run / ".partial").exists():
        time.sleep(0.01)
    second = bench.output.with_name("second.txt")
    wrong = _clear_words(fork(bench.work(command), second), "in use by another qarm process")
    first = wait(child, bench.output)
    if first.code:
        wrong = wrong or f"the first ended with {first.code}"
    wrong = wrong or ", ".join(differences(bench.reference(command).files, snapshot(bench.root))[:6])
    tally.note("second process", "refused", wrong)


def clock_jumps(bench: Bench, command: Command, tally: Tally) -> None:
    """The clock goes backwards with every look, or stands in 1970 or in 2100: the same bytes."""
    clocks: dict[str, Callable[[int], float]] = {
        "backwards": lambda look: 1e9 - 3600.0 * look,
        "1970": lambda look: 0.0,
        "2100": lambda look: 4.1e9 + look,
    }
    for name, clock in clocks.items():
        bench.clear(command)

        def work(clock: Callable[[int], float] = clock) -> None:
            looks = iter(range(10**9))
            time.time = lambda: clock(next(looks))
            time.time_ns = lambda: int(clock(next(looks)) * 1e9)
            bench.work(command)()

        ended = fork(work, bench.output)
        wrong = (
            ended.output[-300:]
            if ended.code
            else ", ".join(differences(bench.reference(command).files, snapshot(bench.root)))
        )
        tally.note("clock", name, wrong)


def _flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def _cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-2])


HANDS: tuple[Callable[[Path], None], ...] = (_flip, _cut, Path.unlink)


def changed_by_hand(bench: Bench, command: Command, tally: Tally, *, every: int = 1) -> None:
    """Each file of a finished run, one after another: a bit flipped, the end cut off, or removed."""
    bench.clear(command)
    bench.finish(command)
    files = [path for path in sorted(bench.run.glob("*/**/*")) if path.is_file() and path.name != UNLIKE]
    files = [path for path in files if path.relative_to(bench.run).parts[0] != "cache"][::every]
    kept = bench.root / "kept"
    for number, path in enumerate(files):
        hand = HANDS[number % len(HANDS)]
        if path.name == "manifest.json" and hand is Path.unlink:
            hand = _flip  # a stage without a manifest is one that has not finished
        shutil.copy2(path, kept)
        hand(path)
        name = path.relative_to(bench.run).as_posix()
        wrong = _clear_words(bench.finish(command), path.name)
        shutil.move(kept, path)
        tally.note("by hand", f"{hand.__name__} {name}", wrong)
    if (again := bench.finish(command)).code or "every stage is fresh" not in again.output:
        tally.faults.append(f"by hand: restored, and yet {again.output[-300:]}")
