"""Locks between processes: a lock file for one process, and a folder's lock for readers and writers."""

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from qarm.errors import ArtifactError

__all__ = ["folder_lock", "lock_file", "locked"]

PATIENCE, PAUSE = 60.0, 0.005  # seconds


def lock_file(path: Path) -> FileLock:
    """Lock on `path` that is not acquired yet; an attempt to acquire it does not wait.

    Raises:
        ArtifactError: `path` is a symbolic link.
    """
    if path.is_symlink():
        raise ArtifactError(f"{path} is a symbolic link, need a file; remove the link")
    return FileLock(path, timeout=0, thread_local=False)


@contextmanager
def locked(path: Path, *, busy: str) -> Iterator[None]:
    """Lock on `path` for the length of the block; the file stays, its content is not touched.

    Raises:
        ArtifactError: another process holds the lock: `busy` is the message; or `path` is a symbolic link.
    """
    lock = lock_file(path)
    try:
        lock.acquire()
    except Timeout:
        raise ArtifactError(busy) from None
    try:
        yield
    finally:
        lock.release()


@contextmanager
def folder_lock(folder: Path, *, shared: bool) -> Iterator[None]:
    """Lock on a folder, which many readers hold together (`shared`) or one writer alone; waits for it.

    It keeps readers and writers from waiting on each other in vain, no more: after a minute, and where the
    system or the file system has no such lock, the block runs without it. Nothing is written.
    """
    descriptor = _opened(folder)
    if descriptor is None:
        yield
        return
    try:
        _wait_for(descriptor, shared=shared)
        yield
    finally:
        os.close(descriptor)


def _opened(folder: Path) -> int | None:
    if os.name == "nt":  # opens no folder
        return None
    try:
        return os.open(folder, os.O_RDONLY)
    except OSError:
        return None


def _wait_for(descriptor: int, *, shared: bool) -> None:
    import fcntl

    operation = (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB
    last = time.monotonic() + PATIENCE
    while time.monotonic() < last:
        try:
            fcntl.flock(descriptor, operation)
        except BlockingIOError:
            time.sleep(PAUSE)
        except OSError:  # no such locks here
            return
        else:
            return
