"""Problem documents (RFC 9457) for errors; a traceback stays in the log."""

import json
import logging
from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import Any
from uuid import uuid4

from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from qarm.serving.code_store import StoreError

__all__ = ["PROBLEM_TYPE", "Problem", "add_handlers", "answer", "busy", "document", "hidden", "pointer"]

PROBLEM_TYPE = "application/problem+json"
KIND = "urn:qarm:problem:"
LOG = logging.getLogger("qarm.serving")


class Problem(Exception):  # noqa: N818 - RFC 9457's word
    """Becomes the answer to the request.

    Args:
        status: of HTTP.
        kind: ends the `type`, `urn:qarm:problem:...`; None for a status that says it all.
        detail: a sentence: the value, the rule and the way out.
        errors: where in the body what is wrong, `{"pointer": ..., "detail": ...}` each.
        headers: further ones of the answer.
    """

    def __init__(
        self,
        status: int,
        kind: str | None,
        detail: str,
        *,
        errors: Sequence[Mapping[str, Any]] = (),
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(detail)
        self.status, self.kind, self.detail = status, kind, detail
        self.errors, self.headers = list(errors), dict(headers or {})


def busy() -> Problem:
    """Status 503 of a service that can hold no more."""
    return Problem(
        503,
        "busy",
        "the service has as much in hand as it can hold; try again",
        headers={"Retry-After": "1", "Connection": "close"},
    )


def document(problem: Problem) -> dict[str, Any]:
    """The problem document's content."""
    phrase = HTTPStatus(problem.status).phrase
    content: dict[str, Any] = {
        "type": "about:blank" if problem.kind is None else KIND + problem.kind,
        "title": phrase if problem.kind is None else problem.kind.replace("-", " ").capitalize(),
        "status": problem.status,
        "detail": problem.detail,
    }
    if problem.errors:
        content["errors"] = problem.errors
    return content


def answer(problem: Problem) -> Response:
    """The problem as a response."""
    content = json.dumps(document(problem))
    return Response(content, problem.status, headers=problem.headers, media_type=PROBLEM_TYPE)


def hidden(error: Exception) -> Response:
    """Status 500 for what nobody foresaw: a number in the answer, the traceback beside it in the log."""
    number = f"urn:uuid:{uuid4()}"
    LOG.error("%s", number, exc_info=error)
    content = {
        "type": "about:blank",
        "title": HTTPStatus.INTERNAL_SERVER_ERROR.phrase,
        "status": 500,
        "detail": "This is our fault; the server's log has it under the number in `instance`.",
        "instance": number,
    }
    return Response(json.dumps(content), 500, media_type=PROBLEM_TYPE)


def add_handlers(app: FastAPI) -> None:
    """Let every error that the app knows of leave as a problem document."""
    app.add_exception_handler(Problem, _own)
    app.add_exception_handler(StoreError, _store)
    app.add_exception_handler(HTTPException, _http)
    app.add_exception_handler(RequestValidationError, _invalid)


async def _own(request: Request, error: Exception) -> Response:
    return answer(error) if isinstance(error, Problem) else hidden(error)


async def _store(request: Request, error: Exception) -> Response:
    """A store that cannot be used: 507 where its disk is full, else 503; the log has the rest."""
    LOG.error("the store cannot be used: %s", error)
    full = isinstance(error, StoreError) and error.full
    return answer(Problem(507 if full else 503, "store-full" if full else "store-unusable", str(error)))


async def _http(request: Request, error: Exception) -> Response:
    if not isinstance(error, HTTPException):
        return hidden(error)
    detail = str(error.detail)
    if error.status_code == 404:
        detail = f"there is nothing at {request.scope['path']}; GET /openapi.json lists what there is"
    elif error.status_code == 405:
        detail = f"got {request.method}, which {request.scope['path']} does not take; see the header Allow"
    return answer(Problem(error.status_code, None, detail, headers=error.headers))


async def _invalid(request: Request, error: Exception) -> Response:
    if not isinstance(error, RequestValidationError):
        return hidden(error)
    return answer(
        Problem(
            422,
            "invalid-request",
            "the request's parameters break rules; `errors` says which",
            errors=[
                {"parameter": str(found["loc"][-1]), "detail": str(found["msg"])} for found in error.errors()
            ],
        )
    )


def pointer(place: Sequence[str | int]) -> str:
    """RFC 6901: a place in a JSON document."""
    return "".join("/" + str(part).replace("~", "~0").replace("/", "~1") for part in place)
