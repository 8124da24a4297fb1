"""Full and read-only disks, two processes, a clock that jumps, files changed by hand; nothing is lost."""

import errno
import shutil
import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from hardening.forks import Ended, fork, start, wait
from hardening.kills import UNLIKE, Bench, Tally, differences, snapshot
from hardening.trap import Trap

__all__ = ["changed_by_hand", "clock_jumps", "full_disk", "refused_writes", "two_processes"]


def _clear_words(ended: Ended, words: str) -> str | None:
    """What is wrong with how a command refused, or None."""
    lines = [line for line in ended.output.splitlines() if line.startswith("qarm: ")]
    if ended.code != 1:
        return f"ended with {ended.code}: {ended.output[-300:]}"
    if "Traceback" in ended.output or len(lines) != 1:
        return f"no single line: {ended.output[-600:]}"
    return None if words in lines[0] else f"{lines[0]!r} lacks {words!r}"


def _note(tally: Tally, kind: str, what: str, wrong: str | None) -> None:
    tally.kills[kind] += 1
    if wrong:
        tally.faults.append(f"{kind}, {what}: {wrong}")


def _same(bench: Bench, expected: dict[str, str]) -> str | None:
    """The same command, now undisturbed, ends with the expected bytes."""
    ended = bench.finish()
    if ended.code:
        return f"the rerun ended with {ended.code}: {ended.output[-300:]}"
    return ", ".join(differences(expected, snapshot(bench.root))[:6]) or None


def refused_writes(
    bench: Bench, expected: dict[str, str], events: Sequence[str], chosen: Sequence[int], tally: Tally
) -> None:
    """The disk refuses one write, fsync, rename or mkdir: by turns because it is full, and read-only."""
    for turn, number in enumerate(chosen):
        full = turn % 2 == 0
        bench.clear()

        def work(at: int = number, code: int = errno.ENOSPC if full else errno.EROFS) -> None:
            Trap(bench.root, at=at, error=code).set()
            bench.command()

        wrong = _clear_words(fork(work, bench.output), "no space left" if full else "not writable")
        what = f"{'ENOSPC' if full else 'EROFS'} at event {number} ({events[number]})"
        _note(tally, "refused write", what, wrong or _same(bench, expected))


def full_disk(bench: Bench, expected: dict[str, str], sizes: Sequence[int], tally: Tally) -> None:
    """A small disk of `sizes` KiB fills up; then it grows, then it is read-only. Needs the right to mount."""
    for size in sizes:
        bench.clear()
        options = ["-t", "tmpfs", "-o", f"size={size}k", "tmpfs", str(bench.run)]
        bench.run.mkdir()
        if subprocess.run(["mount", *options], capture_output=True).returncode:
            print("full disk: not tried, mounting needs root", flush=True)
            return
        try:
            wrong = _clear_words(bench.finish(), "no space left")
            _remount(bench.run, "size=1g")
            _note(tally, "full disk", f"{size} KiB", wrong or _same(bench, expected))
            _remount(bench.run, "ro")
            _note(tally, "read-only disk", f"{size} KiB", _clear_words(bench.finish(), "not writable"))
        finally:
            subprocess.run(["umount", str(bench.run)], check=True)


def _remount(folder: Path, options: str) -> None:
    subprocess.run(["mount", "-o", f"remount,{options}", str(folder)], check=True)


def two_processes(bench: Bench, expected: dict[str, str], tally: Tally) -> None:
    """A second process on the run folder is refused, and the first one does not notice."""
    bench.clear()
    child = start(bench.command, bench.output)
    while not (bench.run / ".partial").exists():
        time.sleep(0.01)
    second = bench.output.with_name("second.txt")
    wrong = _clear_words(fork(bench.command, second), "in use by another qarm process")
    first = wait(child, bench.output)
    if first.code:
        wrong = wrong or f"the first ended with {first.code}"
    wrong = wrong or ", ".join(differences(expected, snapshot(bench.root))[:6])
    _note(tally, "second process", "refused", wrong)


def clock_jumps(bench: Bench, expected: dict[str, str], tally: Tally) -> None:
    """The clock goes backwards with every look, or stands in 1970 or in 2100: the same bytes."""
    clocks: dict[str, Callable[[int], float]] = {
        "backwards": lambda look: 1e9 - 3600.0 * look,
        "1970": lambda look: 0.0,
        "2100": lambda look: 4.1e9 + look,
    }
    for name, clock in clocks.items():
        bench.clear()

        def work(clock: Callable[[int], float] = clock) -> None:
            looks = iter(range(10**9))
            time.time = lambda: clock(next(looks))
            time.time_ns = lambda: int(clock(next(looks)) * 1e9)
            bench.command()

        ended = fork(work, bench.output)
        wrong = ended.output[-300:] if ended.code else ", ".join(differences(expected, snapshot(bench.root)))
        _note(tally, "clock", name, wrong)


def _flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def _cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-2])


HANDS: tuple[Callable[[Path], None], ...] = (_flip, _cut, Path.unlink)


def changed_by_hand(bench: Bench, tally: Tally, *, every: int = 1) -> None:
    """Each file of a finished run, one after another: a bit flipped, the end cut off, or removed."""
    bench.clear()
    bench.finish()
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
        wrong = _clear_words(bench.finish(), path.name)
        shutil.move(kept, path)
        _note(tally, "by hand", f"{hand.__name__} {name}", wrong)
    if (again := bench.finish()).code or "every stage is fresh" not in again.output:
        tally.faults.append(f"by hand: restored, and yet {again.output[-300:]}")
