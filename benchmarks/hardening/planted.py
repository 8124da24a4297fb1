"""Links, files and pipes planted at every working name that can be foretold; nobody's files change."""

import os
import signal
from collections.abc import Callable
from pathlib import Path

from hardening.commands import Bench, Command
from hardening.forks import fork
from hardening.kills import Tally, spread
from hardening.snapshots import snapshot
from hardening.syscalls import Event

__all__ = ["KINDS", "Victim", "foretold", "plant_at_names"]

RANDOM = ("qarm-scratch-", ".tmp")  # in names that nobody can foretell
SECONDS = 600


class Victim:
    """A folder and a file of somebody else, outside of where a command may write."""

    def __init__(self, root: Path) -> None:
        self.root, self.folder, self.file = root, root / "folder", root / "file"
        self.folder.mkdir(parents=True)
        for path in (self.folder / "codes-1", self.folder / "codes.parquet", self.file):
            path.write_text("mine")
        self.before = snapshot(root)

    def changed(self) -> list[str]:
        """Names of what is no longer as it was."""
        now = snapshot(self.root)
        return sorted(name for name in {*now, *self.before} if now.get(name) != self.before.get(name))


KINDS: dict[str, Callable[[Path, Victim], None]] = {
    "link to a folder": lambda path, victim: path.symlink_to(victim.folder),
    "link to a file": lambda path, victim: path.symlink_to(victim.file),
    "dangling link": lambda path, victim: path.symlink_to(victim.root / "new"),
    "hard link": lambda path, victim: path.hardlink_to(victim.file),
    "file": lambda path, victim: path.write_text("mine") and None,
    "pipe": lambda path, victim: os.mkfifo(path),
}


def foretold(events: list[Event], left: dict[str, str]) -> list[str]:
    """Names at which a command works and that can be foretold, but for those of its results."""
    names = dict.fromkeys(name for event in events for name in (event.path, event.new) if name)
    return [
        name
        for name in names
        if name not in left and name != "." and not any(part in name for part in RANDOM)
    ]


def plant_at_names(bench: Bench, command: Command, count: int, tally: Tally) -> None:
    """Each kind in turn at so many of the names, and at the locks."""
    reference = bench.reference(command)
    locks = [name for name in reference.files if name.endswith(".lock")]
    names = foretold(reference.events, reference.files)
    trials = [(name, kind) for name in (*locks, *names) for kind in KINDS]
    for number in spread(range(len(trials)), count):
        name, kind = trials[number]
        bench.clear(command)
        victim, path = Victim(bench.root / "victim"), bench.root / name
        if not os.path.lexists(path):
            path.parent.mkdir(parents=True, exist_ok=True)
        elif path.is_file():
            path.unlink()
        else:
            continue
        KINDS[kind](path, victim)
        tally.note("planted", f"{kind} at {name} of {command.name}", _wrong(bench, command, victim))


def _wrong(bench: Bench, command: Command, victim: Victim) -> str | None:
    def timed() -> None:
        signal.alarm(SECONDS)
        bench.work(command)()

    ended = fork(timed, bench.output)
    if changed := victim.changed():
        return f"changed {', '.join(changed)}"
    if ended.code not in (0, 1, 2) or "Traceback" in ended.output:
        return f"ended with {ended.code}: {ended.output[-600:]}"
    return None
