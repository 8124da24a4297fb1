"""Middleware before every route: metrics, token, body limit, and the last error handler."""

import asyncio
import hashlib
import hmac
import time

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from qarm.serving.http.problems import Problem, answer, hidden
from qarm.serving.limits import Limits
from qarm.serving.prometheus_metrics import Metrics

__all__ = ["BodyLimitMiddleware", "ErrorMiddleware", "TokenMiddleware"]

GUARDED = ("/v1/", "/metrics")


class ErrorMiddleware:
    """Outermost: counts and times requests, turns away too many, answers 500 for what nothing else caught."""

    def __init__(self, app: ASGIApp, *, limits: Limits, metrics: Metrics) -> None:
        self.app, self.limits, self.metrics = app, limits, metrics
        self.running = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Entry point of ASGI."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        started, status = time.perf_counter(), 0

        async def watched(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        self.running += 1
        try:
            if self.running > self.limits.requests:
                await answer(_busy())(scope, receive, watched)
            else:
                await self.app(scope, receive, watched)
        except Exception as error:  # noqa: BLE001 - nothing of it may reach the other side
            response = hidden(error)
            if status == 0:
                await response(scope, receive, watched)
        finally:
            self.running -= 1
            self.metrics.request(scope, status or 500, time.perf_counter() - started)


class TokenMiddleware:
    """Lets requests to `/v1/` and `/metrics` pass that bring the token; all of them where there is none."""

    def __init__(self, app: ASGIApp, *, token: str | None) -> None:
        self.app = app
        self._digest = None if token is None else _digest(token.encode())

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Entry point of ASGI."""
        guarded = scope["type"] == "http" and scope["path"].startswith(GUARDED)
        if guarded and self._digest is not None and not self._brought(scope):
            await _refuse(
                scope,
                receive,
                send,
                Problem(
                    401,
                    None,
                    "need the header Authorization: Bearer TOKEN with this service's token",
                    headers={"WWW-Authenticate": "Bearer"},
                ),
            )
            return
        await self.app(scope, receive, send)

    def _brought(self, scope: Scope) -> bool:
        given = next((value for name, value in scope["headers"] if name == b"authorization"), b"")
        scheme, _, token = given.partition(b" ")
        # of equal length and through hashes, so that the time tells nothing of the token
        same = hmac.compare_digest(_digest(token.strip()), self._digest or b"")
        return bool(scheme.lower() == b"bearer" and same)


class BodyLimitMiddleware:
    """Refuses bodies that are too large, too slow, or too many at a time."""

    def __init__(self, app: ASGIApp, *, limits: Limits) -> None:
        self.app, self.limits = app, limits
        self.held = 0  # bytes of all bodies that are being read or worked on

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Entry point of ASGI."""
        if scope["type"] != "http" or scope["method"] in ("GET", "HEAD", "OPTIONS"):
            await self.app(scope, receive, send)
            return
        announced = _length(scope)
        if announced > self.limits.body:
            await _refuse(scope, receive, send, self._too_large())
            return
        if self.held + announced > self.limits.bodies:
            await _refuse(scope, receive, send, _busy())
            return
        gate = _Body(self, receive)
        try:
            await self.app(scope, gate, send)
        finally:
            self.held -= gate.size

    def _too_large(self) -> Problem:
        return Problem(
            413,
            "body-too-large",
            f"need a body of at most {self.limits.body:,} bytes; send fewer items or smaller media",
            headers={"Connection": "close"},
        )


class _Body:
    """`receive` of one request, counted."""

    def __init__(self, gate: BodyLimitMiddleware, receive: Receive) -> None:
        self.gate, self.receive, self.size, self.whole = gate, receive, 0, False
        self.until = time.monotonic() + gate.limits.body_seconds

    async def __call__(self) -> Message:
        if self.whole:
            return await self.receive()
        try:
            async with asyncio.timeout(self.until - time.monotonic()):
                message = await self.receive()
        except TimeoutError:
            raise Problem(
                408,
                None,
                f"the body took more than {self.gate.limits.body_seconds:,.0f} seconds to arrive",
                headers={"Connection": "close"},
            ) from None
        length = len(message.get("body", b""))
        self.size += length
        self.gate.held += length
        self.whole = not message.get("more_body", False)
        if self.size > self.gate.limits.body:
            raise self.gate._too_large()
        if self.gate.held > self.gate.limits.bodies:
            raise _busy()
        return message


def _length(scope: Scope) -> int:
    given = next((value for name, value in scope["headers"] if name == b"content-length"), b"0")
    return int(given) if given.isdigit() else 0


def _busy() -> Problem:
    return Problem(
        503,
        "busy",
        "the service has as much in hand as it can hold; try again",
        headers={"Retry-After": "1", "Connection": "close"},
    )


async def _refuse(scope: Scope, receive: Receive, send: Send, problem: Problem) -> None:
    await answer(problem)(scope, receive, send)


def _digest(token: bytes) -> bytes:
    return hashlib.sha256(token).digest()
