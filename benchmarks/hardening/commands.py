"""Every command that writes, each from the folder that another one left."""

import os
import shutil
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from hardening.forks import Ended, fork
from hardening.snapshots import snapshot
from hardening.syscalls import Event, Tracer, unflushed

__all__ = ["COMMANDS", "Bench", "Command", "Reference"]

LOG = "qarm.log"  # messages, which no command reads
ROWS, STORED = 3, 4  # rows of each append to the store, and appends


@dataclass(frozen=True)
class Command:
    """A command line with `{place}`, `{config}` and so on, or work that is none; and what it starts from."""

    name: str
    after: str | None
    line: str | Callable[[Path], None]


def _fill_store(place: Path) -> None:
    """What the service does with each request that brings new items; an answer is printed after its flush."""
    import numpy as np

    from qarm.serving.code_store import NewCode, Store

    store = Store(place / "store")
    codes = np.arange(3, dtype=np.int32)
    for turn in range(STORED):
        ids = [f"n{turn}-{row}" for row in range(ROWS)]
        vector = np.full(8, turn, dtype=np.float32)
        rows = [NewCode(i, "b" * 64, 1, b"c" * 32, codes, codes, vector, {"title": i}) for i in ids]
        store.append([rows])
        print(*ids, flush=True)
    store.close()


RUN, CODES, TABLES = "{place}/run", "--out {place}/run", "--out {place}/out/codes"
COMMANDS = (
    Command("run", None, f"run {{config}} {CODES}"),
    Command("append", "run", f"quantize {{config}} {CODES} --append {{new}}"),
    Command("refit", "append", f"quantize {{config}} {CODES} --refit"),
    Command("rollback", "refit", f"quantize {{config}} {CODES} --rollback 1"),
    Command("compare", "run", f"compare {{config}} {CODES}"),
    Command("encode", "run", f"encode {{new}} --run {RUN} --out {{place}}/out/new.parquet"),
    Command("export", "run", f"export {RUN} --items {{items}} --media --out {{place}}/out/bundle"),
    Command("export-codes", "refit", f"export-codes {RUN} --to parquet {TABLES}"),
    Command("export-codes jsonl", "refit", f"export-codes {RUN} --to jsonl --since 1 {TABLES}"),
    Command("export-codes redis", "refit", f"export-codes {RUN} --to redis {TABLES}"),
    Command("recommend", "run", f"recommend --run {RUN} --users all --out {{place}}/out/lists.parquet"),
    Command("init", None, "init {items} {interactions} --out {place}/out/config.yaml"),
    Command("serve's store", None, _fill_store),
)


@dataclass(frozen=True)
class Reference:
    """An undisturbed call: its events, its seconds, the hash of each file left, and what was not flushed."""

    events: list[Event]
    seconds: float
    files: dict[str, str]
    unflushed: list[str]


class Bench:
    """A place for one command at a time, and a copy of what each left when it was not disturbed."""

    def __init__(self, folder: Path, config: Path) -> None:
        self.root, self.config, self.left = folder / "place", config, folder / "left"
        self.run, self.new = self.root / "run", config.with_name("new.parquet")
        self.output = folder / "output.txt"
        self.references: dict[str, Reference] = {}

    def reference(self, command: Command) -> Reference:
        """The undisturbed call, made once, after those that it needs."""
        if command.name not in self.references:
            self.clear(command)
            tracer, began = Tracer(self.root), time.perf_counter()
            ended = tracer.run(self.work(command), self.output)
            seconds = time.perf_counter() - began
            if ended.code:
                raise RuntimeError(f"{command.name}, undisturbed, ended with {ended.code}:\n{ended.output}")
            files = snapshot(self.root)
            shutil.copytree(self.root, self.left / command.name, symlinks=True)
            kept = {name for name in files if name.partition("/")[0] != "tmp" and Path(name).name != LOG}
            lost = unflushed(tracer.seen, {*kept, "."})
            self.references[command.name] = Reference(tracer.seen, seconds, files, lost)
        return self.references[command.name]

    def clear(self, command: Command) -> None:
        """The place as it is before the command."""
        before = None if command.after is None else self.left / command.after
        if before is not None and not before.is_dir():
            self.reference(next(earlier for earlier in COMMANDS if earlier.name == command.after))
        shutil.rmtree(self.root, ignore_errors=True)
        if before is None:
            (self.root / "tmp").mkdir(parents=True)
        else:
            shutil.copytree(before, self.root, symlinks=True)

    def work(self, command: Command) -> Callable[[], None]:
        """What a child does, with a TMPDIR of its own."""

        def done() -> None:
            from qarm.cli import main

            tempfile.tempdir = os.environ["TMPDIR"] = str(self.root / "tmp")
            if callable(command.line):
                command.line(self.root)
                return
            main(self.words(command))

        return done

    def words(self, command: Command) -> list[str]:
        """Arguments of a command line."""
        given = {"place": self.root, "config": self.config, "new": self.new}
        world = self.config.with_name("world")
        tables = {name: world / f"{name}.parquet" for name in ("items", "interactions")}
        return str(command.line).format(**given, **tables).split()

    def finish(self, command: Command) -> Ended:
        """The command, undisturbed."""
        return fork(self.work(command), self.output)
