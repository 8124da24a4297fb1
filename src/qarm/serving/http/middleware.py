"""Middleware before every route: metrics, protocol faults, the last error handler, limits of bodies."""

import asyncio
import json
import time

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from qarm.serving.http.problems import PROBLEM_TYPE, Problem, answer, busy, document, hidden
from qarm.serving.limits import Limits
from qarm.serving.prometheus_metrics import Metrics

__all__ = ["SAFE", "BodyLimitMiddleware", "ErrorMiddleware"]

SAFE = ("GET", "HEAD", "OPTIONS")


class ErrorMiddleware:
    """Outermost: counts and times requests, answers HEAD as GET, and makes every error a problem document."""

    def __init__(self, app: ASGIApp, *, metrics: Metrics) -> None:
        self.app, self.metrics = app, metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Entry point of ASGI."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        started = time.perf_counter()
        head = scope["method"] == "HEAD"
        inner = {**scope, "method": "GET"} if head else scope
        answering = _Answer(send, path=scope["path"], body=not head)
        try:
            fault = _protocol_fault(scope)
            await (self.app if fault is None else answer(fault))(inner, receive, answering)
        except asyncio.CancelledError:  # the service is stopping, and has waited long enough
            if answering.status == 0:
                await answer(busy())(inner, receive, answering)
        except Exception as error:  # noqa: BLE001 - nothing of it may reach the other side
            response = hidden(error)
            if answering.status == 0:
                await response(inner, receive, answering)
        finally:
            self.metrics.request(inner, answering.status or 500, time.perf_counter() - started)


def _protocol_fault(scope: Scope) -> Problem | None:
    """What is wrong with a request's head, whatever its route."""
    names = {name for name, _ in scope["headers"]}
    if {b"content-length", b"transfer-encoding"} <= names:  # two readers may see two requests in it
        detail = "Content-Length and Transfer-Encoding stand in one request; send one of them"
        return Problem(400, None, detail, headers={"Connection": "close"})
    if any(sign < " " or sign == "\x7f" for sign in scope["path"]):
        return Problem(400, None, "the path holds control characters, which no route and no id has")
    return None


class _Answer:
    """`send` of one request: keeps the status, replaces errors in plain text, leaves bodies to HEAD out."""

    def __init__(self, send: Send, *, path: str, body: bool) -> None:
        self.send, self.path, self.body, self.status = send, path, body, 0
        self._replaced: bytes | None = None

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            message = self._started(message)
        elif message["type"] == "http.response.body" and self._replaced is not None:
            if message.get("more_body", False):
                return
            message = {**message, "body": self._replaced}
        if message["type"] == "http.response.body" and not self.body:
            message = {**message, "body": b""}
        await self.send(message)

    def _started(self, message: Message) -> Message:
        headers = [(name.lower(), value) for name, value in message.get("headers", [])]
        kind = dict(headers).get(b"content-type", b"").decode("latin-1")
        if self.status < 400 or kind.startswith(PROBLEM_TYPE):
            return message
        detail = f"{self.path} cannot be answered as it was asked for; see the headers"
        self._replaced = json.dumps(document(Problem(self.status, None, detail))).encode()
        kept = [(name, value) for name, value in headers if name not in (b"content-type", b"content-length")]
        length = str(len(self._replaced)).encode()
        new = [(b"content-type", PROBLEM_TYPE.encode()), (b"content-length", length)]
        return {**message, "headers": [*kept, *new]}


class BodyLimitMiddleware:
    """Refuses bodies that are too large or too slow, and requests that are too many at a time.

    A request counts as in work when its body has arrived, so that half-sent ones hold nobody up. Where the
    bodies of all are too many bytes, the one is cut that has waited for its client the longest.
    """

    def __init__(self, app: ASGIApp, *, limits: Limits) -> None:
        self.app, self.limits = app, limits
        self.held = 0  # bytes of all bodies that are being read or worked on
        self.running = 0
        self.bodies: set[_Body] = set()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Entry point of ASGI."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        announced = _length(scope)
        if announced > self.limits.body:
            await answer(self.too_large())(scope, receive, send)
            return
        body = _Body(self, receive)
        try:
            if scope["method"] in SAFE and not announced:
                body.begin()
            await self.app(scope, body, send)
        except Problem as problem:  # before the app's own handlers were reached
            await answer(problem)(scope, receive, send)
        finally:
            body.end()

    def too_large(self) -> Problem:
        """Status 413."""
        return Problem(
            413,
            "body-too-large",
            f"need a body of at most {self.limits.body:,} bytes; send fewer items or smaller media",
            headers={"Connection": "close"},
        )

    def hold(self, body: "_Body", length: int) -> None:
        """Count bytes of a body; cuts others that wait where there are too many.

        Raises:
            Problem: 503, all that is held is being worked on.
        """
        self.held += length
        body.size += length
        waiting = sorted((one for one in self.bodies if one is not body), key=lambda one: one.heard)
        for one in waiting:
            if self.held <= self.limits.bodies:
                return
            one.cut()
        if self.held > self.limits.bodies:
            raise busy()


class _Body:
    """`receive` of one request, counted and timed."""

    def __init__(self, gate: BodyLimitMiddleware, receive: Receive) -> None:
        self.gate, self.receive, self.size, self.counted = gate, receive, 0, False
        self.heard = time.monotonic()
        self.until = self.heard + gate.limits.body_seconds
        self._timeout: asyncio.Timeout | None = None

    def begin(self) -> None:
        """The request is in work from now on.

        Raises:
            Problem: 503, too many are.
        """
        self.gate.bodies.discard(self)
        if self.gate.running >= self.gate.limits.requests:
            raise busy()
        self.gate.running += 1
        self.counted = True

    def end(self) -> None:
        """The request is answered."""
        self.gate.bodies.discard(self)
        self.gate.running -= self.counted
        self.gate.held -= self.size
        self.size = 0

    def cut(self) -> None:
        """End the wait for the rest of the body; what has come no longer counts."""
        self.gate.bodies.discard(self)
        self.gate.held -= self.size
        self.size, self.until = 0, 0.0
        if self._timeout is not None:
            self._timeout.reschedule(asyncio.get_running_loop().time())

    async def __call__(self) -> Message:
        if self.counted:
            return await self.receive()
        self.gate.bodies.add(self)
        try:
            async with asyncio.timeout(self.until - time.monotonic()) as self._timeout:
                message = await self.receive()
        except TimeoutError:
            raise self._too_slow() from None
        finally:
            self._timeout = None
        if self.until == 0.0:
            raise self._too_slow()
        self.heard = time.monotonic()
        self.gate.hold(self, len(message.get("body", b"")))
        if self.size > self.gate.limits.body:
            raise self.gate.too_large()
        if not message.get("more_body", False):
            self.begin()
        return message

    def _too_slow(self) -> Problem:
        return Problem(
            408,
            None,
            f"the body took more than {self.gate.limits.body_seconds:,.0f} seconds to arrive, or waited "
            "while others needed its place",
            headers={"Connection": "close"},
        )


def _length(scope: Scope) -> int:
    given = next((value for name, value in scope["headers"] if name == b"content-length"), b"0")
    return int(given) if given.isdigit() else 0
