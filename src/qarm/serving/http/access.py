"""Access to the service: host names, origins of pages, the token."""

import hashlib
import hmac
from collections.abc import Collection

from starlette.types import ASGIApp, Receive, Scope, Send

from qarm.serving.http.middleware import SAFE
from qarm.serving.http.problems import Problem, answer

__all__ = ["OriginMiddleware", "TokenMiddleware"]

GUARDED = ("/v1/", "/metrics")


class OriginMiddleware:
    """Refuses other host names than the service's own, and requests that pages of other origins make.

    A page of a name that an attacker lets point to this machine (DNS rebinding) asks with that name as Host;
    a form or a fetch of another site comes with its Origin.

    Args:
        hosts: names and addresses that a request may be sent to, without port; None: any, where a token
            protects the service.
    """

    def __init__(self, app: ASGIApp, *, hosts: Collection[str] | None) -> None:
        self.app = app
        self.hosts = None if hosts is None else {host.lower().strip("[]").rstrip(".") for host in hosts}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Entry point of ASGI."""
        fault = self._fault(scope) if scope["type"] == "http" and self.hosts is not None else None
        await (self.app if fault is None else answer(fault))(scope, receive, send)

    def _fault(self, scope: Scope) -> Problem | None:
        headers = dict(scope["headers"])
        if [name for name, _ in scope["headers"]].count(b"host") > 1:
            return Problem(400, None, "the header Host stands more than once")
        asked = headers.get(b"host", b"").decode("latin-1").lower()
        if _hostname(asked) not in (self.hosts or ()):
            return Problem(
                421,
                "host-not-allowed",
                f"got the host {asked[:100]!r}, not one of this service's; start it with --allow-host NAME",
            )
        origin = headers.get(b"origin", b"").decode("latin-1").lower()
        site = headers.get(b"sec-fetch-site", b"same-origin")
        foreign = bool(origin) and origin.partition("://")[2] != asked
        if scope["method"] not in SAFE and (foreign or site not in (b"same-origin", b"none")):
            return Problem(
                403,
                "cross-origin",
                f"got a {scope['method']} of a page of {origin[:100] or 'another site'}; only this service's "
                "own pages may change anything here",
            )
        return None


def _hostname(host: str) -> str:
    """A Host header without its port."""
    if host.startswith("["):
        return host[1:].partition("]")[0]
    return host.partition(":")[0].rstrip(".")


class TokenMiddleware:
    """Lets requests to `/v1/` and `/metrics` pass that bring the token; all of them where there is none."""

    def __init__(self, app: ASGIApp, *, token: str | None) -> None:
        self.app = app
        self._digest = None if token is None else _digest(token.encode())

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Entry point of ASGI."""
        guarded = scope["type"] == "http" and scope["path"].startswith(GUARDED)
        if guarded and self._digest is not None and not self._brought(scope):
            await answer(
                Problem(
                    401,
                    None,
                    "need the header Authorization: Bearer TOKEN with this service's token",
                    headers={"WWW-Authenticate": "Bearer"},
                )
            )(scope, receive, send)
            return
        await self.app(scope, receive, send)

    def _brought(self, scope: Scope) -> bool:
        given = next((value for name, value in scope["headers"] if name == b"authorization"), b"")
        scheme, _, token = given.partition(b" ")
        # of equal length and through hashes, so that the time tells nothing of the token
        same = hmac.compare_digest(_digest(token.strip()), self._digest or b"")
        return bool(scheme.lower() == b"bearer" and same)


def _digest(token: bytes) -> bytes:
    return hashlib.sha256(token).digest()
