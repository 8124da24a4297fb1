"""Atomic folder swap: a finished folder takes the place of another one in two renames."""

import shutil
from pathlib import Path

from qarm.core.atomic_io import flush

__all__ = ["swap_folder"]


def swap_folder(work: Path, folder: Path, *, aside: Path | None = None) -> None:
    """Put `work` in the place of `folder`, on the disk when it returns.

    A kill between the renames leaves `work` finished and what was there in `aside`.

    Args:
        work: a finished folder of the same file system.
        folder: the name that it takes, of a folder or of nothing.
        aside: where the replaced folder lies until it is removed; None where nothing may be replaced.
    """
    if aside is not None:
        shutil.rmtree(aside, ignore_errors=True)
        if folder.exists():
            folder.rename(aside)
    work.rename(folder)
    flush(folder.parent)
    if aside is not None:
        shutil.rmtree(aside, ignore_errors=True)
