"""Disk errors: full or broken disks and impossible names as one-line messages with the way out."""

import errno
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from qarm.errors import ArtifactError, QarmError

__all__ = ["explained", "refusal"]

FULL = "no space left; free some, then give the same command again: it goes on from here"
NOT_WRITABLE = "not writable; change its permissions, or choose another folder"
NO_FOLDER = "a file or a dangling link is where a folder is needed; move it away, or give another name"
REFUSALS = {
    errno.ENOSPC: FULL,
    errno.EDQUOT: FULL,
    errno.EROFS: NOT_WRITABLE,
    errno.EACCES: NOT_WRITABLE,
    errno.EPERM: NOT_WRITABLE,
    errno.EFBIG: "the file would be larger than its disk or `ulimit -f` allows; raise the limit",
    errno.EIO: "the disk reports an error; check the disk, then give the same command again",
    errno.ESTALE: "the network disk was mounted anew, or it is gone there; give the same command again",
    errno.EISDIR: "a folder is where a file is needed; move it away, or give another name",
    errno.EEXIST: NO_FOLDER,
    errno.ENOTDIR: NO_FOLDER,
    errno.ENOTEMPTY: "another folder is in the way; move it away, or give another name",
    errno.ENAMETOOLONG: "the name is too long for this disk; give a shorter one",
    errno.ELOOP: "symbolic links lead in a circle or are not allowed here; give the path that is meant",
    errno.EMFILE: "too many open files; raise `ulimit -n`",
    errno.ENFILE: "too many open files on this machine; close some, then give the same command again",
    errno.EBUSY: "in use by the system, such as a mounted disk; give another name",
    errno.EXDEV: "a mounted disk is in the way; give a folder without one",
    errno.ETXTBSY: "in use by a running program; give another name",
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
    """Conversion of disk errors, and of names that are not UTF-8, to a one-line error that names the file.

    Args:
        place: a file, which is named where the error is of it or of something beside it or in it; or words,
            for errors without a file.

    Raises:
        ArtifactError: the disk is full, read-only or broken, or a name is impossible.
    """
    try:
        yield
    except QarmError:
        raise
    except UnicodeEncodeError as error:
        if error.reason != "surrogates not allowed":
            raise
        raise ArtifactError(f"{error.object!r}: the name is not UTF-8; rename the file or folder") from error
    except ValueError as error:
        if "embedded null" not in str(error):
            raise
        raise ArtifactError(f"{place}: a name holds a zero byte; give another one") from error
    except Exception as error:
        reason = refusal(error)
        if reason is None:
            raise
        raise ArtifactError(f"{_named(error, place)}: {reason}") from error


def _named(error: Exception, place: Path | str) -> str:
    name = getattr(error, "filename", None)
    if not isinstance(name, str | bytes) or not name:
        return str(place)
    path = Path(os.fsdecode(name))
    near = isinstance(place, Path) and path.is_relative_to(place.parent)
    return str(place if near else path)
