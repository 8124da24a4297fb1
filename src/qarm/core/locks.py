"""Locks between processes: a lock file that one process holds while all others are refused."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from qarm.errors import ArtifactError

__all__ = ["lock_file", "locked"]


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
