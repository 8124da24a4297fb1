"""Hashes of every file below a folder, and their differences by name."""

import hashlib
import sqlite3
from contextlib import closing
from pathlib import Path

__all__ = ["UNLIKE", "differences", "snapshot"]

# durations, clock times and places, outside every hash
UNLIKE = ("timing.json", "tables.json", "qarm.log")


def snapshot(folder: Path) -> dict[str, str]:
    """SHA-256 of every file by name, of a database that of its rows; of what may differ, only the name."""
    return {path.relative_to(folder).as_posix(): _hash(path) for path in sorted(folder.rglob("*"))}


def _hash(path: Path) -> str:
    if path.is_symlink() or not path.is_file() or path.name in UNLIKE:
        return ""
    if path.suffix == ".sqlite":  # pages differ with the number of checkpoints
        with closing(sqlite3.connect(path)) as database:
            content = "\n".join(database.iterdump()).encode()
    else:
        content = path.read_bytes()
    return hashlib.sha256(content).hexdigest()


def differences(expected: dict[str, str], found: dict[str, str]) -> list[str]:
    """What is missing, left over or changed, by name."""
    missing = [f"missing {name}" for name in sorted(expected.keys() - found.keys())]
    left = [f"left over {name}" for name in sorted(found.keys() - expected.keys())]
    both = sorted(expected.keys() & found.keys())
    return missing + left + [f"changed {name}" for name in both if expected[name] != found[name]]
