"""Atomic folder swap: a finished folder takes the place of another one, in one step where the system can."""

import ctypes
import errno
import os
import shutil
import sys
from functools import cache
from pathlib import Path
from typing import Any

from qarm.core.atomic_io import flush

__all__ = ["flush_tree", "swap_folder"]

HERE, EXCHANGE = -100, 2  # AT_FDCWD and RENAME_EXCHANGE of Linux
UNABLE = (errno.ENOSYS, errno.EINVAL, errno.ENOTSUP, errno.EOPNOTSUPP)


def swap_folder(work: Path, folder: Path, *, aside: Path | None = None) -> None:
    """Put `work` in the place of `folder`, on the disk when it returns.

    Linux exchanges the two names in one step, on file systems that can. Elsewhere there are two renames; a
    kill between them leaves `work` finished and what was there in `aside`.

    Args:
        work: a finished folder of the same file system, flushed.
        folder: the name that it takes, of a folder or of nothing.
        aside: where the replaced folder lies until it is removed; None where nothing may be replaced.
    """
    if aside is not None:
        shutil.rmtree(aside, ignore_errors=True)
    if aside is None or not folder.exists():
        work.rename(folder)
    elif _exchanged(work, folder):
        work.rename(aside)
    else:
        folder.rename(aside)
        work.rename(folder)
    for parent in {folder.parent, work.parent}:
        flush(parent)
    if aside is not None:
        shutil.rmtree(aside, ignore_errors=True)


def flush_tree(folder: Path) -> None:
    """Flush of a folder's names, and of all files and folders below it, to the disk.

    Files with a second name are left out: they are of an earlier version, and were flushed then.
    """
    for path in (*folder.rglob("*"), folder):
        state = path.lstat()
        if path.is_symlink() or (path.is_file() and state.st_nlink > 1):
            continue
        flush(path)


def _exchanged(one: Path, other: Path) -> bool:
    """Exchange of two names; False where the system or the file system has none."""
    function = _renameat2()
    if function is None:
        return False
    sys.audit("os.rename", os.fspath(one), os.fspath(other), -1, -1)  # as Python's own calls do
    if function(HERE, os.fsencode(one), HERE, os.fsencode(other), EXCHANGE) == 0:
        return True
    number = ctypes.get_errno()
    if number in UNABLE:
        return False
    raise OSError(number, os.strerror(number), os.fspath(one), None, os.fspath(other))


@cache
def _renameat2() -> Any:
    """The C library's function; None where it has none."""
    if sys.platform != "linux":
        return None
    function = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)
    if function is not None:
        function.argtypes = [ctypes.c_int, ctypes.c_char_p, ctypes.c_int, ctypes.c_char_p, ctypes.c_uint]
    return function
