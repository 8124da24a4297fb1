"""Child process: a function of this package in another process and the pipe to it; ends with its parent."""

import contextlib
import os
import socket
import subprocess
import sys
from multiprocessing.connection import Connection
from threading import Lock, Thread
from typing import Any

__all__ = ["ChildProcess", "ProcessDiedError", "entered", "watch_parent"]


class ProcessDiedError(Exception):
    """A child process ended, or took too long, and was ended."""


class ChildProcess:
    """A process that runs `main` of a module with a pipe's descriptor and a niceness.

    Args:
        module: with a function `main(descriptor, niceness)`, whose first call is `entered`.
        niceness: added to this process's: who reads goes first.
        environment: variables of its own.
    """

    def __init__(self, module: str, *, niceness: int, environment: dict[str, str]) -> None:
        ours, theirs = socket.socketpair()
        self._ending = Lock()
        with theirs:
            self._pipe: Connection | None = Connection(ours.detach())
            started = f"from {module} import main; main({theirs.fileno()}, {niceness})"
            self._child: subprocess.Popen[bytes] | None = subprocess.Popen(  # noqa: S603 - our own module
                [sys.executable, "-c", started],
                pass_fds=[theirs.fileno()],
                env={**os.environ, **environment},
                stdin=subprocess.DEVNULL,
            )

    @property
    def pid(self) -> int | None:
        """Id of the process; None when it is stopped."""
        return None if self._child is None else self._child.pid

    @property
    def alive(self) -> bool:
        """Whether it runs."""
        child = self._child
        return child is not None and child.poll() is None

    def send(self, message: Any, content: bytes | None = None) -> None:
        """Send an object, and bytes after it.

        Raises:
            ProcessDiedError: nobody receives it.
        """
        pipe = self._pipe
        if pipe is None:
            raise ProcessDiedError("it is stopped")
        try:
            pipe.send(message)
            if content is not None:
                pipe.send_bytes(content)
        except OSError:
            self.stop()
            raise ProcessDiedError("it ended") from None

    def receive(self, seconds: float) -> Any:
        """The next object that it sends.

        Raises:
            ProcessDiedError: it ended, or has sent nothing for so many seconds, and was ended.
        """
        return self._received(seconds, "recv")

    def receive_bytes(self, seconds: float) -> bytes:
        """The bytes that it sends; errors as of `receive`."""
        return bytes(self._received(seconds, "recv_bytes"))

    def _received(self, seconds: float, method: str) -> Any:
        pipe = self._pipe
        try:
            if pipe is not None and pipe.poll(seconds):
                return getattr(pipe, method)()
            reason = "it is stopped" if pipe is None else f"no answer in {seconds:,.0f} seconds"
        except (EOFError, OSError):
            reason = "it ended"
        self.stop()
        raise ProcessDiedError(reason)

    def stop(self) -> None:
        """End of the process, at once, from any thread; nothing happens when it is stopped already."""
        with self._ending:
            pipe, child, self._pipe, self._child = self._pipe, self._child, None, None
        if child is not None:
            child.kill()  # it holds nothing that has to be saved
            child.wait()
        if pipe is not None:
            pipe.close()


def entered(descriptor: int, niceness: int) -> Connection:
    """The pipe to the parent, in a child that leaves signals of the terminal to the parent."""
    import signal

    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches both; the parent ends this one
    if hasattr(signal, "SIGHUP"):  # Windows has none
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
    with contextlib.suppress(OSError):
        os.nice(niceness)
    return Connection(descriptor)


def watch_parent(descriptor: int) -> None:
    """End this process, whatever it is doing, when the other end of its pipe is closed."""
    import select

    def wait() -> None:
        closed = select.poll()
        closed.register(descriptor, 0)  # no event but the end
        closed.poll()
        os._exit(0)

    Thread(target=wait, name="parent-watcher", daemon=True).start()
