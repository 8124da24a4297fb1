"""Scratch folders: temporary, locked while in use, removed after their process was killed."""

import shutil
from contextlib import suppress
from pathlib import Path
from tempfile import gettempdir, mkdtemp
from types import TracebackType
from typing import Self

from filelock import FileLock

from qarm.core.locks import lock_file
from qarm.errors import ArtifactError

__all__ = ["Scratch", "sweep_scratch"]

PREFIX, LOCK, FILES = "qarm-scratch-", ".lock", "files"


class Scratch:
    """A temporary folder, empty at first, and the lock that tells other processes that it is in use.

    A context manager; or `close` removes it.

    Attributes:
        path: the folder; the lock file lies beside it, in a parent folder of its own.
    """

    def __init__(self) -> None:
        sweep_scratch()
        self._parent, self._lock = _new_folder()
        self.path = self._parent / FILES
        self.path.mkdir()

    def close(self) -> None:
        """Removal of the folder and of its lock; a second call does nothing."""
        _remove(self._parent, self._lock)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _new_folder() -> tuple[Path, FileLock]:
    while True:
        folder = Path(mkdtemp(prefix=PREFIX))
        lock = lock_file(folder / LOCK)
        with suppress(FileNotFoundError, TimeoutError):  # swept by another process before it was locked
            lock.acquire()
            if folder.is_dir():
                return folder, lock
            lock.release()


def _remove(folder: Path, lock: FileLock) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    lock.release()
    shutil.rmtree(folder, ignore_errors=True)  # on Windows the lock file cannot be removed while it is open


def sweep_scratch() -> None:
    """Removal of this user's scratch folders that no process has locked."""
    for folder in Path(gettempdir()).glob(f"{PREFIX}*"):
        if folder.is_symlink():
            continue
        with suppress(OSError, ArtifactError):  # in use, another user's, or just removed
            lock = lock_file(folder / LOCK)
            lock.acquire()
            _remove(folder, lock)
