"""Scratch folders: temporary, of a random name, locked while in use, removed after a kill."""

import os
import shutil
from contextlib import suppress
from functools import lru_cache
from pathlib import Path
from tempfile import gettempdir, mkdtemp
from types import TracebackType
from typing import Self

from filelock import FileLock

from qarm.core.locks import lock_file
from qarm.errors import ArtifactError

__all__ = ["Scratch", "remove", "sweep_scratch"]

PREFIX, LOCK, FILES, GONE = "qarm-scratch-", ".lock", "files", ".gone"
HIDDEN = f".{PREFIX}"  # where it lies beside files of the user or of a run


class Scratch:
    """A temporary folder, empty at first, and the lock that tells other processes that it is in use.

    Its random name is made by the call that makes the folder, so that nothing can be planted at it. A context
    manager; or `close` removes it.

    Args:
        beside: folder to make it in, for files that are renamed into that folder; by default the system's
            temporary folder.

    Attributes:
        path: the folder; the lock file lies beside it, in a parent folder of its own.
    """

    def __init__(self, beside: Path | None = None) -> None:
        place = Path(gettempdir()) if beside is None else beside
        _sweep_once(place.absolute(), os.getpid())
        self._parent, self._lock = _new_folder(place, PREFIX if beside is None else HIDDEN)
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


def _new_folder(place: Path, prefix: str) -> tuple[Path, FileLock]:
    while True:
        folder = Path(mkdtemp(prefix=prefix, dir=place))
        if (lock := _locked(folder)) is not None:
            return folder, lock


def _locked(folder: Path) -> FileLock | None:
    """Lock of a scratch folder, acquired; None where another process has it or has taken the folder away.

    Who makes a folder and who sweeps it both come here, so that one of them gets it. Acquiring a lock makes
    missing folders anew: the folder must still be the one that it was.
    """
    with suppress(FileNotFoundError, TimeoutError):
        before, lock = folder.stat(), lock_file(folder / LOCK)
        lock.acquire()
        with suppress(FileNotFoundError):
            if os.path.samestat(before, folder.stat()) and (folder / LOCK).exists():
                return lock
        lock.release()
    return None


def _remove(folder: Path, lock: FileLock) -> None:
    """Removal of a folder whose lock this process has; renamed first, so that nothing new is in it."""
    gone = folder.with_name(f"{folder.name}{GONE}")
    with suppress(OSError):  # Windows renames no folder with an open file in it
        folder.replace(gone)
    for _ in range(2):  # the lock file goes when it is closed where the system keeps open files
        shutil.rmtree(gone, ignore_errors=True)
        if os.name == "nt":
            shutil.rmtree(folder, ignore_errors=True)
        lock.release()


@lru_cache(maxsize=4096)
def _sweep_once(folder: Path, process: int) -> None:
    """Sweep of a folder, the first time that this process makes a scratch folder in it."""
    sweep_scratch(folder)


def sweep_scratch(folder: Path | None = None, *, below: bool = False) -> None:
    """Removal of this user's scratch folders that no process has locked.

    Args:
        folder: where they lie; by default the system's temporary folder.
        below: also those in the folders below it.
    """
    place = Path(gettempdir()) if folder is None else folder
    pattern = f"{PREFIX if folder is None else HIDDEN}*"
    for path in place.rglob(pattern) if below else place.glob(pattern):
        with suppress(OSError, ArtifactError):  # in use, another user's, or just removed
            if path.is_symlink() or not path.is_dir() or not _is_ours(path):
                continue
            if (lock := _locked(path)) is not None:
                _remove(path, lock)


def _is_ours(folder: Path) -> bool:
    return os.name == "nt" or folder.stat().st_uid == os.geteuid()


def remove(path: Path) -> None:
    """Removal of a file, a pipe, a folder with all in it, or a link, but not of what the link leads to."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)
