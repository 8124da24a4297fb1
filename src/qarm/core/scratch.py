"""Scratch folders: locked while they are in use, removed when their process was killed."""

import fcntl
import os
import shutil
from contextlib import suppress
from pathlib import Path
from tempfile import gettempdir, mkdtemp
from types import TracebackType
from typing import Self

__all__ = ["Scratch", "sweep_scratch"]

PREFIX = "qarm-scratch-"


class Scratch:
    """A temporary folder at `path`, locked while it is in use, so that others know when its owner was killed.

    A context manager; or `close` removes it.
    """

    def __init__(self) -> None:
        sweep_scratch()
        self.path, self._lock = _locked()

    def close(self) -> None:
        shutil.rmtree(self.path, ignore_errors=True)
        with suppress(OSError):
            os.close(self._lock)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _locked() -> tuple[Path, int]:
    while True:
        path = Path(mkdtemp(prefix=PREFIX))
        with suppress(FileNotFoundError):  # swept before it was locked
            descriptor = os.open(path, os.O_RDONLY)
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            if path.is_dir():
                return path, descriptor
            os.close(descriptor)


def sweep_scratch() -> None:
    """Remove the scratch folders of this user that no process holds any more."""
    for path in Path(gettempdir()).glob(f"{PREFIX}*"):
        try:
            descriptor = os.open(path, os.O_RDONLY)
        except OSError:  # another user's, or just gone
            continue
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(path, ignore_errors=True)
        except OSError:
            continue
        finally:
            os.close(descriptor)
