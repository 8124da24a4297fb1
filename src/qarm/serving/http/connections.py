"""Connections of the service: timeouts of heads and answers, a cap, and ends of bodies that nobody reads."""

import asyncio
import errno
import json
import logging
import time
from collections.abc import Callable
from http import HTTPStatus
from typing import Any

import h11
from uvicorn.config import Config
from uvicorn.protocols.http.h11_impl import H11Protocol
from uvicorn.server import ServerState

from qarm.serving.http.problems import PROBLEM_TYPE, Problem, busy, document
from qarm.serving.limits import Limits

__all__ = ["BACKLOG", "connection_class", "log_rarely", "most_connections"]

BACKLOG = 128  # asyncio accepts as many in one go, before any of them can be closed
RESERVED = 128  # descriptors for files, the store and the encoder
LINGER_SECONDS, LINGER_BYTES = 2.0, 2**20  # for a client to read its answer before the connection is cut
LOG_SECONDS = 60.0
LOG = logging.getLogger("qarm.serving")


def most_connections(limits: Limits) -> int:
    """Cap on connections: the limit's, or what the process's descriptors leave; raises their soft limit."""
    try:
        import resource
    except ImportError:  # Windows has no such limit
        return limits.connections
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = limits.connections + BACKLOG + RESERVED
    if soft != resource.RLIM_INFINITY and soft < wanted:
        soft = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        return max(min(limits.connections, soft - BACKLOG - RESERVED), soft // 4)
    return limits.connections


def log_rarely(loop: asyncio.AbstractEventLoop) -> None:
    """Log a lack of descriptors once a minute; asyncio tries again after a second."""
    said = -LOG_SECONDS

    def handle(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        nonlocal said
        error = context.get("exception")
        if isinstance(error, OSError) and error.errno in (errno.EMFILE, errno.ENFILE):
            if time.monotonic() - said < LOG_SECONDS:
                return
            said = time.monotonic()
            LOG.error("no descriptor is left for a connection; raise ulimit -n, or lower --max-connections")
            return
        loop.default_exception_handler(context)

    loop.set_exception_handler(handle)


def connection_class(limits: Limits, most: int) -> type[H11Protocol]:
    """Protocol of a connection, with this service's limits.

    Args:
        most: connections at a time. Beyond it the one is cut that has waited for its client the longest.
    """

    class Connection(_Connection):
        """A connection with the limits of one service."""

    Connection.limits, Connection.most = limits, most
    return Connection


class _Transport:
    """A transport that lets the client read its answer before it is closed with a body under way."""

    def __init__(self, transport: asyncio.Transport, unread: Callable[[], bool], received: Any) -> None:
        self._transport, self._unread, self._received = transport, unread, received
        self.lingering = False

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)

    def is_closing(self) -> bool:
        """Whether nothing more will be answered."""
        return self.lingering or self._transport.is_closing()

    def close(self) -> None:
        """End, at once or when the client has had time to read."""
        if self.is_closing():
            return
        if not self._unread() or not self._transport.can_write_eof():
            self._transport.close()
            return
        self.lingering = True
        try:
            self._transport.write_eof()
        except OSError:  # the client is gone already
            self._transport.abort()
            return
        self._transport.resume_reading()
        self._received.loop.call_later(LINGER_SECONDS, self._transport.abort)


class _Connection(H11Protocol):
    """uvicorn's connection, which has no timeout but that of an idle one, and no cap."""

    limits: Limits
    most: int

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        super().__init__(config, server_state, app_state, _loop)
        self._head_timer: asyncio.TimerHandle | None = None
        self._write_timer: asyncio.TimerHandle | None = None
        self._discarded = 0
        self.heard = self.loop.time()

    @property
    def waits(self) -> bool:
        """Whether the client is to send something: a head, or the rest of a body."""
        return self.cycle is None or self.cycle.response_complete or self.cycle.more_body

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Take a connection, in place of the longest waiting one where there are too many."""
        super().connection_made(_Transport(transport, self._unread, self))  # type: ignore[arg-type]
        self._expect_head()
        if len(self.connections) > self.most:
            self._make_room()

    def _make_room(self) -> None:
        others = [
            one
            for one in self.connections
            if one is not self and isinstance(one, _Connection) and one.waits and not one.gone
        ]
        if others:
            min(others, key=lambda one: one.heard).cut()
        else:
            self.refuse(busy())

    @property
    def gone(self) -> bool:
        """Whether the connection is about to end."""
        return self.transport.is_closing()

    def cut(self) -> None:
        """End at once."""
        self.connections.discard(self)
        self.transport.abort()

    def _unread(self) -> bool:
        """Whether a request's body is still under way."""
        return self.cycle is not None and self.cycle.more_body

    def data_received(self, data: bytes) -> None:
        """Bytes of a request, or of a body that nobody reads any more."""
        if self.gone:
            self._discarded += len(data)
            if self._discarded > LINGER_BYTES:
                self.transport.abort()
            return
        self.heard = self.loop.time()
        super().data_received(data)
        if self.conn.their_state is h11.IDLE:
            self._expect_head()
        else:
            self._unset_head_timer()

    def _expect_head(self) -> None:
        if self._head_timer is None:
            self._head_timer = self.loop.call_later(self.limits.head_seconds, self._late)

    def _unset_head_timer(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None

    def _late(self) -> None:
        self._head_timer = None
        if self.gone:
            return
        if self.conn.their_state is h11.IDLE and (self.cycle is None or self.cycle.response_complete):
            seconds = self.limits.head_seconds
            self.refuse(Problem(408, None, f"the head took more than {seconds:,.0f} seconds to arrive"))

    def on_response_complete(self) -> None:
        """An answer is out: the rest of a body that it did not wait for is cut off."""
        if self._unread():
            self.transport.close()
        super().on_response_complete()

    def pause_writing(self) -> None:
        """The client does not read: it has some time."""
        super().pause_writing()
        if self._write_timer is None:
            self._write_timer = self.loop.call_later(self.limits.body_seconds, self.cut)

    def resume_writing(self) -> None:
        """The client reads again."""
        if self._write_timer is not None:
            self._write_timer.cancel()
            self._write_timer = None
        super().resume_writing()

    def connection_lost(self, exc: Exception | None) -> None:
        """End of the connection."""
        self._unset_head_timer()
        if self._write_timer is not None:
            self._write_timer.cancel()
        super().connection_lost(exc)

    def send_400_response(self, msg: str) -> None:
        """Answer what is no HTTP with a problem document."""
        self.refuse(Problem(400, None, "the request is not valid HTTP/1.1; its head breaks the protocol"))

    def refuse(self, problem: Problem) -> None:
        """Answer before any request was read, then close."""
        if self.cycle is None or self.cycle.response_complete:
            content = json.dumps(document(problem)).encode()
            head = (
                f"HTTP/1.1 {problem.status} {HTTPStatus(problem.status).phrase}\r\n"
                f"content-type: {PROBLEM_TYPE}\r\ncontent-length: {len(content)}\r\nconnection: close\r\n\r\n"
            )
            self.transport.write(head.encode() + content)
        self.transport.close()
