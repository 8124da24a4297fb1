"""Encoder process: coding in a child process, so that reads stay fast and a bad medium crashes only it."""

import contextlib
import os
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import numpy.typing as npt

from qarm.errors import ArtifactError, InputError, QarmError
from qarm.serving.limits import Limits, check_media_of

if TYPE_CHECKING:
    from qarm.serving.bundle import Bundle

__all__ = ["Coded", "EncoderDiedError", "EncoderProcess", "Row", "Worker", "code_rows", "main"]

STARTED = f"from {__name__} import main; main"  # under its own name, so that both ends have the same classes
NICENESS = 5  # whoever reads goes first
START_SECONDS = 600.0
Row = Mapping[str, Any]


@dataclass(frozen=True)
class Coded:
    """vector float32 [d], rq int32 [levels], vq int32 [nearest] or None, version of the codebooks."""

    vector: npt.NDArray[np.float32]
    rq: npt.NDArray[np.int32]
    vq: npt.NDArray[np.int32] | None
    version: int


class EncoderDiedError(Exception):
    """The encoder's process ended, or took too long, and was ended."""


class Worker(Protocol):
    """Codes items; `code` blocks and is called by one thread at a time."""

    def start(self) -> None:
        """Be ready for `code`."""

    def code(self, rows: Sequence[Row]) -> list[Coded | InputError]:
        """Codes of items, or what is wrong with each.

        Raises:
            EncoderDiedError: it has to be started again.
        """

    def stop(self) -> None:
        """End; also from another thread in the midst of `start`, which then fails. `start` begins anew."""


class EncoderProcess:
    """A worker in another process, which opens the bundle itself.

    Args:
        folder: of the bundle.
        limits: for the media; and the time a call may take.
        threads: of torch.
    """

    def __init__(self, folder: Path, *, limits: Limits, threads: int = 1) -> None:
        self.folder, self.limits, self.threads = folder, limits, threads
        self._child: subprocess.Popen[bytes] | None = None
        self._pipe: Connection | None = None
        self._ending = Lock()

    @property
    def pid(self) -> int | None:
        """Id of the process; None when it is stopped."""
        return None if self._child is None else self._child.pid

    def start(self) -> None:
        """Start the process and wait until it has coded one item.

        Raises:
            ArtifactError: it cannot open the bundle.
        """
        ours, theirs = socket.socketpair()
        with theirs:
            command = [sys.executable, "-c", f"{STARTED}({theirs.fileno()})"]
            self._pipe = pipe = Connection(ours.detach())
            self._child = subprocess.Popen(  # noqa: S603 - our own module
                command,
                pass_fds=[theirs.fileno()],
                env={**os.environ, "OMP_NUM_THREADS": str(self.threads), "MALLOC_ARENA_MAX": "2"},
                stdin=subprocess.DEVNULL,
            )
        try:
            pipe.send((self.folder, self.limits, self.threads))
            answer = self._answer(START_SECONDS)
        except (EncoderDiedError, OSError) as error:
            raise ArtifactError(f"{self.folder}: the encoder's process did not start: {error}") from None
        if isinstance(answer, QarmError):
            self.stop()
            raise answer

    def code(self, rows: Sequence[Row]) -> list[Coded | InputError]:
        """Codes of the rows, or the error of each row that cannot be coded."""
        if self._pipe is None:
            raise EncoderDiedError("it is stopped")
        try:
            self._pipe.send(list(rows))
        except OSError:
            self.stop()
            raise EncoderDiedError("it ended") from None
        found = self._answer(self.limits.code_seconds)
        if isinstance(found, QarmError):
            raise found
        return list(found)

    def _answer(self, seconds: float) -> Any:
        pipe = self._pipe
        try:
            if pipe is not None and pipe.poll(seconds):
                return pipe.recv()
            reason = f"no answer in {seconds:,.0f} seconds"
        except (EOFError, OSError):
            reason = "it ended"
        self.stop()
        raise EncoderDiedError(reason)

    def stop(self) -> None:
        """End of the process; nothing happens when it is stopped already."""
        with self._ending:
            pipe, child, self._pipe, self._child = self._pipe, self._child, None, None
        if pipe is not None:
            pipe.close()
        if child is not None:
            child.kill()  # it holds nothing that has to be saved
            child.wait()


def code_rows(bundle: "Bundle", rows: Sequence[Row], limits: Limits) -> list[Coded | InputError]:
    """Codes of items given as values, as `qarm encode` gives them, or what is wrong with each.

    Args:
        rows: what `Bundle.catalog_of` takes; ids need not be distinct.
    """
    found: list[Coded | InputError | None] = [None] * len(rows)
    good = []
    for place, row in enumerate(rows):
        try:
            check_media_of(row, limits)
        except InputError as error:
            found[place] = error
        else:
            good.append(place)
    if good:
        _fill(found, bundle, good, rows)
    return [one for one in found if one is not None]


def _fill(
    found: list[Coded | InputError | None], bundle: "Bundle", places: list[int], rows: Sequence[Row]
) -> None:
    try:
        catalog = bundle.catalog_of([{**rows[place], "item_id": str(place)} for place in places])
        vectors, codes = bundle.code(catalog)
    except InputError as error:
        if len(places) == 1:
            found[places[0]] = error
            return
        for place in places:  # whose fault it is shows one by one
            _fill(found, bundle, [place], rows)
        return
    for row, place in enumerate(places):
        vq = None if codes.vq is None else codes.vq[row]
        found[place] = Coded(vectors.vectors[row], codes.rq[row], vq, codes.version)


def main(descriptor: int) -> None:
    """What the child does: open the bundle, then answer until the other end is closed."""
    import signal

    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches both; the parent ends this one
    if hasattr(signal, "SIGHUP"):  # Windows has none
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
    with contextlib.suppress(OSError):
        os.nice(NICENESS)
    pipe = Connection(descriptor)
    folder, limits, threads = pipe.recv()
    try:
        bundle = _ready(folder, threads)
    except QarmError as error:
        pipe.send(ArtifactError(str(error)))
        return
    pipe.send("ready")
    with contextlib.suppress(EOFError, ConnectionError):
        while True:
            pipe.send(code_rows(bundle, pipe.recv(), limits))


def _ready(folder: Path, threads: int) -> "Bundle":
    import gc

    import torch

    from qarm.serving.bundle import Bundle

    torch.set_num_threads(threads)
    bundle = Bundle.load(folder).warm()
    gc.freeze()
    return bundle
