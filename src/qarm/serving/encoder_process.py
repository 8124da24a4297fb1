"""Encoder process: coding in a child process, so that reads stay fast and a bad medium crashes only it."""

import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import numpy.typing as npt

from qarm.errors import ArtifactError, InputError, QarmError
from qarm.serving.child_process import ChildProcess, ProcessDiedError, entered, watch_parent
from qarm.serving.limits import Limits

if TYPE_CHECKING:
    from qarm.serving.bundle import Bundle

__all__ = ["Coded", "EncoderProcess", "Row", "Worker", "code_rows", "main"]

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


class Worker(Protocol):
    """Codes items; `code` blocks and is called by one thread at a time."""

    def start(self) -> None:
        """Be ready for `code`."""

    def code(self, rows: Sequence[Row]) -> list[Coded | InputError]:
        """Codes of items, or what is wrong with each.

        Raises:
            ProcessDiedError: it has to be started again.
        """

    def stop(self) -> None:
        """End; also from another thread in the midst of `start`, which then fails. `start` begins anew."""


class EncoderProcess:
    """A worker in another process, which opens the bundle itself.

    Beside it waits a process that has imported everything: a restart only has to open the bundle.

    Args:
        folder: of the bundle.
        limits: the time a call may take.
        threads: of torch.
    """

    def __init__(self, folder: Path, *, limits: Limits, threads: int = 1) -> None:
        self.folder, self.limits, self.threads = folder, limits, threads
        self._child: ChildProcess | None = None
        self._standby: ChildProcess | None = None
        self._changing = Lock()
        self._stopped = False

    @property
    def pid(self) -> int | None:
        """Id of the process; None when it is stopped."""
        return None if self._child is None else self._child.pid

    def start(self) -> None:
        """Start the process and wait until it has coded one item.

        Raises:
            ArtifactError: it cannot open the bundle.
        """
        self._stopped = False
        child = self._taken()
        try:
            child.send((self.folder, self.threads))
            answer = child.receive(START_SECONDS)
        except ProcessDiedError as error:
            raise ArtifactError(f"{self.folder}: the encoder's process did not start: {error}") from None
        if isinstance(answer, QarmError):
            self.stop()
            raise answer
        with self._changing:
            if not self._stopped:
                self._standby = self._new()

    def _taken(self) -> ChildProcess:
        """The process on standby, or a new one, as the one that codes from now on."""
        with self._changing:
            child, self._standby = self._standby, None
            if child is None or not child.alive:
                child = self._new()
            self._child = child
        return child

    def _new(self) -> ChildProcess:
        environment = {"OMP_NUM_THREADS": str(self.threads), "MALLOC_ARENA_MAX": "2"}
        return ChildProcess(__name__, niceness=NICENESS, environment=environment)

    def code(self, rows: Sequence[Row]) -> list[Coded | InputError]:
        """Codes of the rows, or the error of each row that cannot be coded."""
        if self._child is None:
            raise ProcessDiedError("it is stopped")
        self._child.send(list(rows))
        found = self._child.receive(self.limits.code_seconds)
        if isinstance(found, QarmError):
            raise found
        return list(found)

    def stop(self) -> None:
        """End of the process; nothing happens when it is stopped already."""
        with self._changing:
            self._stopped = True
            ending = [self._child, self._standby]
            self._child = self._standby = None
        for child in ending:
            if child is not None:
                child.stop()


def code_rows(bundle: "Bundle", rows: Sequence[Row]) -> list[Coded | InputError]:
    """Codes of items given as values, as `qarm encode` gives them, or what is wrong with each.

    Args:
        rows: what `Bundle.catalog_of` takes; ids need not be distinct.
    """
    found: list[Coded | InputError | None] = [None] * len(rows)
    _fill(found, bundle, list(range(len(rows))), rows)
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


def main(descriptor: int, niceness: int) -> None:
    """What the child does: import everything, open the bundle, then answer until the other end is closed."""
    pipe = entered(descriptor, niceness)
    watch_parent(descriptor)
    _import_everything()
    with contextlib.suppress(EOFError, ConnectionError):
        folder, threads = pipe.recv()
        try:
            bundle = _ready(folder, threads)
        except QarmError as error:
            pipe.send(ArtifactError(str(error)))
            return
        pipe.send("ready")
        while True:
            pipe.send(code_rows(bundle, pipe.recv()))


def _import_everything() -> None:
    """Modules that a bundle may need, those that take long."""
    from importlib import import_module
    from importlib.util import find_spec

    for module in ("qarm.serving.bundle", "sentence_transformers", "numba"):
        if find_spec(module) is not None:
            import_module(module)


def _ready(folder: Path, threads: int) -> "Bundle":
    import gc

    import torch

    from qarm.serving.bundle import Bundle

    torch.set_num_threads(threads)
    bundle = Bundle.load(folder).warm()
    gc.freeze()
    return bundle
