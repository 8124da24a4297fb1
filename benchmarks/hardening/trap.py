"""Sees every write, fsync, rename and removal below a folder, and dies or fails at the one asked for.

Set inside a forked child only. Python's own calls are seen through audit events; fsync and the writers that
are not Python (polars, safetensors) are wrapped.
"""

import functools
import os
import re
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

__all__ = ["Trap"]

WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
CHANGES = {
    "os.rename": "rename",
    "os.remove": "remove",
    "os.mkdir": "mkdir",
    "os.rmdir": "rmdir",
    "os.link": "link",
}
PID = re.compile(r"\.\d+\.tmp$")


class Trap:
    """Events in order, as `kind name`; at number `at` (from 0) the process kills itself, before it happens.

    At a file's first fsync it loses its second half first, as in a kill in the middle of the write. With an
    `error` number the operation fails with it instead.
    """

    def __init__(self, folder: Path, *, at: int | None = None, error: int | None = None) -> None:
        self.folder, self.at, self.error = os.path.realpath(folder), at, error
        self.seen: list[str] = []
        self.synced: set[tuple[int, int]] = set()

    def set(self) -> None:
        import polars
        import safetensors.numpy
        import safetensors.torch

        sys.addaudithook(self._audit)
        os.fsync = functools.partial(self._fsync, os.fsync)
        for owner, name, place in (
            (polars.DataFrame, "write_parquet", 1),
            (safetensors.torch, "serialize_file", 1),
            (safetensors.numpy, "serialize_file", 1),
        ):
            setattr(owner, name, self._seen_first(getattr(owner, name), place))

    def _audit(self, event: str, arguments: tuple[Any, ...]) -> None:
        if event == "open":
            path, _, flags = arguments
            if flags & WRITING and not isinstance(path, int):
                self._event("write", path)
        elif event in CHANGES and not (event == "os.mkdir" and Path(arguments[0]).is_dir()):
            self._event(CHANGES[event], arguments[0])

    def _fsync(self, original: Callable[[int], None], descriptor: int) -> None:
        path, state = Path(f"/proc/self/fd/{descriptor}").readlink(), os.fstat(descriptor)
        version = state.st_ino, state.st_mtime_ns
        self._event("fsync", path, half=path.is_file() and version not in self.synced)
        original(descriptor)
        self.synced.add(version)

    def _seen_first(self, original: Callable[..., Any], place: int) -> Callable[..., Any]:
        @functools.wraps(original)
        def write(*arguments: Any, **named: Any) -> Any:
            if isinstance(arguments[place], str | os.PathLike):
                self._event("write", arguments[place])
            return original(*arguments, **named)

        return write

    def _event(self, kind: str, path: Any, *, half: bool = False) -> None:
        name = os.path.abspath(os.fsdecode(path))  # noqa: PTH100 - a Path for each event is slow
        if not name.startswith(self.folder + os.sep):
            return
        short = PID.sub(".tmp", os.path.relpath(name, self.folder))
        self.seen.append(f"{kind} {short}")
        if len(self.seen) - 1 != self.at:
            return
        if self.error is not None:
            raise OSError(self.error, os.strerror(self.error), name)
        if half:
            os.truncate(name, Path(name).stat().st_size // 2)
        os.kill(os.getpid(), signal.SIGKILL)
