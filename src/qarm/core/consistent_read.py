"""Consistent reads of a run folder: a reader without the run's lock sees one version of each stage."""

import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TypeVar

from qarm.core.locks import folder_lock
from qarm.core.run_folder import MANIFEST, PARTIAL, finish_swap, run_lock
from qarm.errors import ArtifactError

__all__ = ["read_consistently"]

Result = TypeVar("Result")
ATTEMPTS, PAUSE = 20, 0.02  # seconds between two attempts


def read_consistently(run: Path, stages: Sequence[str], read: Callable[[], Result]) -> Result:
    """What `read` returns, after no folder of these stages was replaced while it ran; else it runs again.

    Errors of a `read` during which a folder was replaced do not count. A swap of folders that a kill cut
    short is completed first.

    Args:
        run: a run folder.
        stages: names of the stage folders that are read.
        read: reads everything into memory; nothing of it is read later.

    Raises:
        ArtifactError: folders were replaced each time, or what `read` raises.
    """
    for _ in range(ATTEMPTS):
        _complete(run, stages)
        with folder_lock(run, shared=True), ExitStack() as stack:
            before = [stack.enter_context(_held(run / stage)) for stage in stages]
            try:
                result = read()
            except Exception:
                if before == [_identity(run / stage) for stage in stages] and not _cut_short(run, stages):
                    raise
            else:
                if before == [_identity(run / stage) for stage in stages]:
                    return result
        time.sleep(PAUSE)
    raise ArtifactError(f"{run} changed each of the {ATTEMPTS} times that it was read; try again later")


def _cut_short(run: Path, stages: Sequence[str]) -> list[str]:
    """Stages without a folder whose successor is finished, between two renames or after a kill."""
    missing = [stage for stage in stages if not (run / stage).is_dir()]
    return [stage for stage in missing if any((run / PARTIAL).glob(f"{stage}-*/{MANIFEST}"))]


def _complete(run: Path, stages: Sequence[str]) -> None:
    stages = _cut_short(run, stages)
    if not stages:
        return
    try:
        with run_lock(run):
            for stage in stages:
                finish_swap(run / stage)
    except ArtifactError:  # a writer is at it, or the disk is read-only
        return


@contextmanager
def _held(folder: Path) -> Iterator[tuple[int, int] | None]:
    """Identity of a folder, which stays taken while the block runs, even where the folder is removed."""
    if os.name == "nt":  # opens no folder
        yield _identity(folder)
        return
    try:
        descriptor = os.open(folder, os.O_RDONLY)
    except FileNotFoundError:
        yield None
        return
    try:
        state = os.fstat(descriptor)
        yield state.st_dev, state.st_ino
    finally:
        os.close(descriptor)


def _identity(folder: Path) -> tuple[int, int] | None:
    try:
        state = folder.stat()
    except FileNotFoundError:
        return None
    return state.st_dev, state.st_ino
