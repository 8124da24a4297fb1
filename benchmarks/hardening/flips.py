"""One flipped bit at a time in every kind of file: what reads it names it, or its results are as ever."""

import random
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from hardening.commands import COMMANDS, RUN, TABLES, Bench, Command
from hardening.forks import Ended, fork
from hardening.kills import Tally
from hardening.snapshots import differences, snapshot

__all__ = ["KINDS", "Kind", "flip", "flip_bits"]


def _read_bundle(place: Path) -> None:
    from qarm.errors import QarmError
    from qarm.serving.bundle import Bundle

    try:
        Bundle.load(place / "out" / "bundle")
    except QarmError as error:
        print(f"qarm: {error}")
        raise SystemExit(1) from None


def _read_store(place: Path) -> None:
    from qarm.errors import QarmError
    from qarm.serving.code_store import Store

    try:
        store = Store(place / "store")
        rows = [store.latest(f"n{turn}-{row}") for turn in range(4) for row in range(3)]
        store.close()
    except QarmError as error:
        print(f"qarm: {error}")
        raise SystemExit(1) from None
    (place / "read.txt").write_text("\n".join(map(repr, rows)))


def _embed_again(place: Path) -> None:
    """The stages after alignment anew, with the cached features."""
    shutil.rmtree(place / "run" / "embeddings")


@dataclass(frozen=True)
class Kind:
    """Files, by a pattern in the place that a command left, and the command that reads them."""

    name: str
    pattern: str
    reader: Command
    first: Callable[[Path], None] | None = None  # before the reader


KINDS = (
    Kind("stages", "run/*/**/*", Command("fresh", "run", COMMANDS[0].line)),
    Kind("stages", "run/codes/**/*", Command("exported", "run", f"export-codes {RUN} --to parquet {TABLES}")),
    Kind("versions", "run/codes/versions/**/*", COMMANDS[3]),
    Kind("features", "run/cache/**/*", Command("embedded", "run", COMMANDS[0].line), _embed_again),
    Kind("comparison", "run/compare/**/*", Command("compared", "compare", COMMANDS[4].line)),
    Kind("bundle", "out/bundle/**/*", Command("loaded", "export", _read_bundle)),
    Kind("store", "store/*", Command("asked", "serve's store", _read_store)),
)


def flip(path: Path, draw: random.Random) -> int:
    """The bit that was flipped."""
    content = bytearray(path.read_bytes())
    bit = draw.randrange(8 * len(content))
    content[bit // 8] ^= 1 << bit % 8
    path.write_bytes(content)
    return bit


def flip_bits(bench: Bench, count: int, tally: Tally, *, seed: int = 0) -> None:
    """So many flips, by turns in each kind; its files in a drawn order."""
    draw = random.Random(seed)
    for kind in KINDS:
        reader = kind.reader
        expected = _expected(bench, kind)
        bench.clear(reader)
        files = [path for path in sorted(bench.root.glob(kind.pattern)) if path.is_file()]
        files = [path for path in files if path.stat().st_size and _belongs(kind, path, bench.root)]
        for path in draw.sample(files, min(len(files), -(-count // len(KINDS)))):
            bench.clear(reader)
            bit, name = flip(path, draw), path.relative_to(bench.root).as_posix()
            tally.note(f"flipped {kind.name}", f"bit {bit} of {name}", _silent(bench, kind, name, expected))


def _belongs(kind: Kind, path: Path, root: Path) -> bool:
    """Whether the files of a kind of its own are left to that."""
    return kind.name != "stages" or path.relative_to(root).parts[1] not in ("cache", "compare")


def _expected(bench: Bench, kind: Kind) -> dict[str, str]:
    bench.clear(kind.reader)
    ended = _read(bench, kind)
    if ended.code:
        raise RuntimeError(f"{kind.name}, unchanged, ended with {ended.code}: {ended.output}")
    return snapshot(bench.root)


def _read(bench: Bench, kind: Kind) -> Ended:
    if kind.first is not None:
        kind.first(bench.root)
    return fork(bench.work(kind.reader), bench.output)


def _silent(bench: Bench, kind: Kind, name: str, expected: dict[str, str]) -> str | None:
    """What is wrong: another result without a word, or words that do not name the file."""
    ended = _read(bench, kind)
    if ended.code == 0:
        changed = differences(expected, snapshot(bench.root))
        return ", ".join(line for line in changed if line != f"changed {name}")[:300] or None
    if "Traceback" in ended.output:
        return f"no single line: {ended.output[-600:]}"
    named = Path(name).name in ended.output or Path(name).parent.name in ended.output
    return None if named else f"not named: {ended.output[-300:]}"
