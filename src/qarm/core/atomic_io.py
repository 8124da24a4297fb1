"""What a disk refuses, said in one sentence, and what a killed process leaves behind, swept up."""

import errno
import fcntl
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import gettempdir, mkdtemp
from types import TracebackType
from typing import Self

from qarm.errors import ArtifactError, QarmError

__all__ = ["Scratch", "explained", "flush", "sweep_scratch", "sweep_temporaries", "temporary_name"]

FULL = "no space left; free some, then give the same command again: it goes on from here"
SHUT = "not writable; change its permissions, or choose another folder"
REFUSALS = {
    errno.ENOSPC: FULL,
    errno.EDQUOT: FULL,
    errno.EROFS: SHUT,
    errno.EACCES: SHUT,
    errno.EPERM: SHUT,
    errno.EFBIG: "the file would be larger than its disk or `ulimit -f` allows; raise the limit",
    errno.EIO: "the disk reports an error; look after the disk, then give the same command again",
}
FOREIGN = re.compile(r"os error (\d+)\)|\[Errno (\d+)\]")  # how writers in Rust and C++ tell an errno
TEMPORARY = re.compile(r"\..+\.(\d+)\.tmp")
PREFIX = "qarm-scratch-"


def refusal(error: BaseException) -> str | None:
    """Why the disk refused, and the way out; None where the error is of another kind."""
    number = error.errno if isinstance(error, OSError) else None
    if number is None and (found := FOREIGN.search(str(error))):
        number = int(found[1] or found[2])
    return REFUSALS.get(number) if number is not None else None


@contextmanager
def explained(place: Path | str) -> Iterator[None]:
    """Turns a refusal of the disk into an error that names the file, or else `place`.

    Raises:
        ArtifactError: the disk is full, read-only or broken.
    """
    try:
        yield
    except QarmError:
        raise
    except Exception as error:
        reason = refusal(error)
        if reason is None:
            raise
        raise ArtifactError(f"{getattr(error, 'filename', None) or place}: {reason}") from error


def flush(path: Path) -> None:
    """Wait until the file's content, or the folder's list of names, is on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


# ---- temporary files and folders ----------------------------------------------------------------


def temporary_name(path: Path) -> Path:
    """A neighbour of `path` that tells which process writes it."""
    return path.with_name(f".{path.name}.{os.getpid()}.tmp")


def sweep_temporaries(folder: Path, *, all_of_them: bool = False) -> None:
    """Remove unfinished files under `folder` whose writer is gone; of a caller that writes none itself."""
    for path in folder.rglob(".*.tmp"):
        found = TEMPORARY.fullmatch(path.name)
        if found and (all_of_them or not _alive(int(found[1]))):
            path.unlink(missing_ok=True)


def _alive(process: int) -> bool:
    if process == os.getpid():  # in a container, the number of the one that was killed
        return False
    try:
        os.kill(process, 0)
    except PermissionError:
        return True
    except (ProcessLookupError, OverflowError):
        return False
    return True


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
