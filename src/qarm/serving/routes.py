"""Routes of the service, each a call of `Service`."""

import json
from typing import Annotated, Any

from fastapi import APIRouter, Path, Query, Request
from starlette.responses import Response

from qarm.quantizer.code_prefix import parse_prefix
from qarm.serving.metrics import METRICS_TYPE
from qarm.serving.openapi import CODES_BODY, SCORE_BODY, problems
from qarm.serving.problems import Problem
from qarm.serving.request_parsing import read_items, read_json_body
from qarm.serving.schemas import (
    CodesAnswer,
    ItemAnswer,
    ItemList,
    Prefix,
    PrefixAnswer,
    ScoreAnswer,
    ScoreRequest,
    Status,
)
from qarm.serving.service import Service

__all__ = ["reply", "routes"]

Limit = Annotated[int, Query(ge=1, description="items of a page")]
Offset = Annotated[int, Query(ge=0, le=10**9, description="items to pass over; `next` of the page before")]
Query_ = Annotated[
    str, Query(max_length=200, description="part of an id or a title, in any case", examples=["scarf"])
]
Store = Annotated[bool, Query(description="keep the codes of items that have an id")]


def reply(content: Any) -> Response:
    """JSON as it is: the answers were made here, so nothing checks them again."""
    return Response(
        json.dumps(content, separators=(",", ":"), allow_nan=False), media_type="application/json"
    )


def routes(service: Service) -> APIRouter:
    """Every route but the admin's."""
    router, limits = APIRouter(), service.limits

    @router.post(
        "/v1/codes",
        tags=["codes"],
        summary="Code new items",
        responses={200: {"model": CodesAnswer}, **problems(400, 408, 409, 413, 415, 422, 503)},
        openapi_extra=CODES_BODY,
    )
    async def post_codes(request: Request, store: Store = True) -> Response:
        """Vector, RQ and VQ codes of one item or of several, by JSON or a form.

        An item with an id is appended to the store, on the disk before the answer. The same item again gets
        the same answer; another content under a known id is refused with 409.
        """
        items = await read_items(request, service.editions.current.bundle.text_fields, limits)
        return reply(await service.code(items, store=store))

    @router.get(
        "/v1/codes/{prefix}",
        tags=["codes"],
        summary="Items under a code prefix",
        responses={200: {"model": PrefixAnswer}, **problems(422, 503)},
    )
    async def get_prefix(
        prefix: Annotated[Prefix, Path()], limit: Limit = 100, offset: Offset = 0
    ) -> Response:
        """The items whose RQ code begins with these codes, `12` or `12-3`."""
        codes = parse_prefix(prefix, levels=len(prefix))
        return reply(await service.under(codes, first=offset, count=min(limit, limits.page)))

    @router.get(
        "/v1/items",
        tags=["items"],
        summary="Search",
        responses={200: {"model": ItemList}, **problems(422, 503)},
    )
    async def search(query: Query_ = "", limit: Limit = 20, offset: Offset = 0) -> Response:
        """Published items whose id or title contains a text; all where it is empty."""
        return reply(await service.search(query, first=offset, count=min(limit, limits.page)))

    @router.get(
        "/v1/items/{item_id:path}",
        tags=["items"],
        summary="An item",
        responses={200: {"model": ItemAnswer}, **problems(404, 422, 503)},
    )
    async def get_item(
        item_id: Annotated[str, Path(min_length=1, examples=["i00001"])],
        nearest: Annotated[int, Query(ge=0, description="neighbours to list")] = 10,
    ) -> Response:
        """Codes, facts and nearest published items."""
        return reply(await service.item(item_id, nearest=min(nearest, limits.nearest)))

    @router.post(
        "/v1/score",
        tags=["score"],
        summary="Score candidates",
        responses={200: {"model": ScoreAnswer}, **problems(400, 404, 408, 413, 415, 422, 503)},
        openapi_extra=SCORE_BODY,
    )
    async def score(request: Request) -> Response:
        """The ranker's logits of candidates for a user with a history."""
        asked = await read_json_body(request, ScoreRequest)
        for name, most in (("history", limits.history), ("candidates", limits.candidates)):
            if len(getattr(asked, name)) > most:
                raise Problem(
                    422, "too-many-items", f"got {len(getattr(asked, name)):,} {name}, need at most {most:,}"
                )
        return reply(await service.score(asked.candidates, asked.history))

    @router.get("/healthz", tags=["health"], summary="Alive", responses={200: {"model": Status}})
    async def healthz() -> Response:
        """The process answers."""
        return reply({"status": "ok"})

    @router.get(
        "/readyz", tags=["health"], summary="Ready", responses={200: {"model": Status}, **problems(503)}
    )
    async def readyz() -> Response:
        """A bundle is loaded and the encoder runs."""
        if not service.editions.current.batcher.ready:
            raise Problem(503, "busy", "the encoder is starting; try again", headers={"Retry-After": "1"})
        return reply({"status": "ready"})

    @router.get("/metrics", tags=["health"], summary="Figures for Prometheus", response_class=Response)
    async def metrics() -> Response:
        return Response(service.metrics.text(), headers={"Content-Type": METRICS_TYPE})

    return router
