"""Disk errors: full, read-only and broken disks as one-line messages with the way out."""

import errno
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from qarm.errors import ArtifactError, QarmError

__all__ = ["explained", "refusal"]

FULL = "no space left; free some, then give the same command again: it goes on from here"
NOT_WRITABLE = "not writable; change its permissions, or choose another folder"
REFUSALS = {
    errno.ENOSPC: FULL,
    errno.EDQUOT: FULL,
    errno.EROFS: NOT_WRITABLE,
    errno.EACCES: NOT_WRITABLE,
    errno.EPERM: NOT_WRITABLE,
    errno.EFBIG: "the file would be larger than its disk or `ulimit -f` allows; raise the limit",
    errno.EIO: "the disk reports an error; check the disk, then give the same command again",
}
FOREIGN = re.compile(r"os error (\d+)\)|\[Errno (\d+)\]")  # errno in the messages of Rust and C++ libraries


def refusal(error: BaseException) -> str | None:
    """Reason of a disk error and the way out; None where the error is of another kind."""
    number = error.errno if isinstance(error, OSError) else None
    if number is None and (match := FOREIGN.search(str(error))):
        number = int(match[1] or match[2])
    return REFUSALS.get(number) if number is not None else None


@contextmanager
def explained(place: Path | str) -> Iterator[None]:
    """Conversion of disk errors to a one-line error that names the file, or else `place`.

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
