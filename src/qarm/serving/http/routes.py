"""Routes of the service, each a call of `Service`."""

import asyncio
import json
from contextlib import suppress
from typing import Annotated

from fastapi import APIRouter, Depends, Path, Query, Request
from pydantic import BaseModel
from starlette.responses import Response

from qarm.quantizer.code_prefix import parse_prefix
from qarm.serving.bundle_manager import LoadedBundle
from qarm.serving.http.openapi import CODES_BODY, RECOMMEND_BODY, SCORE_BODY, body_of, problems
from qarm.serving.http.problems import Problem
from qarm.serving.http.request_parsing import read_items, read_json_body
from qarm.serving.http.schemas import (
    BundleList,
    BundleName,
    CodesAnswer,
    Deletion,
    ItemAnswer,
    ItemList,
    Prefix,
    PrefixAnswer,
    RankerAnswer,
    RecommendAnswer,
    RecommendRequest,
    ScoreAnswer,
    ScoreRequest,
    SimilarAnswer,
    Status,
)
from qarm.serving.prometheus_metrics import METRICS_TYPE
from qarm.serving.scoring import longest_request, ranker_answer
from qarm.serving.service import Service

__all__ = ["admin_routes", "reply", "routes"]

Limit = Annotated[int, Query(ge=1, description="items of a page")]
Offset = Annotated[int, Query(ge=0, le=10**9, description="items to pass over; `next` of the page before")]
Query_ = Annotated[
    str, Query(max_length=200, description="part of an id or a title, in any case", examples=["scarf"])
]
Store = Annotated[bool, Query(description="keep the codes of items that have an id")]


def reply(answer: BaseModel) -> Response:
    """JSON of an answer, as Python writes it; it was checked when it was made."""
    content = json.dumps(answer.model_dump(), separators=(",", ":"), allow_nan=False)
    return Response(content, media_type="application/json")


def routes(service: Service) -> APIRouter:
    """Every route but the admin's."""
    router = APIRouter()
    for part in (_code_routes, _recommend_routes, _item_routes, _score_routes, _health_routes):
        router.include_router(part(service))
    return router


def _code_routes(service: Service) -> APIRouter:
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
        items = await read_items(request, service.bundles.current.bundle.text_fields, limits)
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

    return router


def _recommend_routes(service: Service) -> APIRouter:
    """Routes of the recommender; before those of items, whose ids may hold any path."""
    router, limits = APIRouter(), service.limits

    @router.post(
        "/v1/recommend",
        tags=["recommend"],
        summary="Recommend items",
        responses={200: {"model": RecommendAnswer}, **problems(400, 404, 408, 409, 413, 415, 422, 503)},
        openapi_extra=RECOMMEND_BODY,
    )
    async def recommend(request: Request) -> Response:
        """The best items of the whole catalogue for a user or a history; later items by their codes."""
        asked = await read_json_body(request, RecommendRequest, tokens=limits.tokens)
        return reply(await service.recommend(asked))

    @router.get(
        "/v1/items/{item_id:path}/similar",
        tags=["recommend"],
        summary="Items similar to one",
        responses={200: {"model": SimilarAnswer}, **problems(404, 409, 422, 503)},
    )
    async def similar(
        item_id: Annotated[str, Path(min_length=1, examples=["i00001"])],
        k: Annotated[int, Query(ge=1, description="items of the list")] = 10,
    ) -> Response:
        """Items whose vectors in the retriever are nearest; `nearest` of an item is by aligned vectors."""
        try:
            return reply(await service.similar(item_id, count=min(k, limits.nearest)))
        except Problem as problem:
            if problem.kind != "no-such-item":
                raise
            whole = f"{item_id}/similar"  # an id may end like this
            with suppress(Problem):
                return reply(await service.item(whole, nearest=min(10, limits.nearest)))
            raise

    return router


def _item_routes(service: Service) -> APIRouter:
    router, limits = APIRouter(), service.limits

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

    @router.delete(
        "/v1/items/{item_id:path}",
        tags=["items"],
        summary="Delete what the store holds of an item",
        responses={200: {"model": Deletion}, **problems(403, 404, 409, 422, 503, 507)},
    )
    async def delete_item(item_id: Annotated[str, Path(min_length=1, examples=["n00001"])]) -> Response:
        """Codes of a new item are removed, for all bundles; the store keeps a line that says when."""
        return reply(await service.delete(item_id))

    return router


def _score_routes(service: Service) -> APIRouter:
    router, limits = APIRouter(), service.limits

    @router.post(
        "/v1/score",
        tags=["score"],
        summary="Score candidates",
        responses={200: {"model": ScoreAnswer}, **problems(400, 404, 408, 413, 415, 422, 503)},
        openapi_extra=SCORE_BODY,
    )
    async def score(request: Request) -> Response:
        """The ranker's logits of candidates for a user with a history; later items by their codes."""
        tokens = max(limits.tokens, 4 * longest_request(service.bundles.current, limits))
        return reply(await service.score(await read_json_body(request, ScoreRequest, tokens=tokens)))

    @router.get(
        "/v1/ranker",
        tags=["score"],
        summary="What the ranker reads",
        responses={200: {"model": RankerAnswer}, **problems(404, 503)},
    )
    async def ranker() -> Response:
        """Item features, lengths of histories, user features with their values, auxiliary labels."""
        return reply(ranker_answer(service.bundles.current))

    return router


def _health_routes(service: Service) -> APIRouter:
    router = APIRouter()

    @router.get("/healthz", tags=["health"], summary="Alive", responses={200: {"model": Status}})
    async def healthz() -> Response:
        """The process answers."""
        return reply(Status(status="ok"))

    @router.get(
        "/readyz", tags=["health"], summary="Ready", responses={200: {"model": Status}, **problems(503)}
    )
    async def readyz() -> Response:
        """A bundle is loaded, the encoder runs, and the store can be written."""
        await service.check_store()
        if not service.bundles.current.encoder.ready:
            raise Problem(503, "busy", "the encoder is starting; try again", headers={"Retry-After": "1"})
        return reply(Status(status="ready"))

    @router.get("/metrics", tags=["health"], summary="Figures for Prometheus", response_class=Response)
    async def metrics() -> Response:
        """Prometheus metrics in text form."""
        return Response(service.metrics.text(), headers={"Content-Type": METRICS_TYPE})

    return router


def admin_routes(service: Service, *, token: bool) -> APIRouter:
    """Routes under `/v1/admin`, which a service without a token refuses.

    Args:
        token: the service has one, which was checked before.
    """

    def allowed() -> None:
        if not token:
            raise Problem(
                403, "needs-token", "start the service with --token-file to use this; SIGHUP works without"
            )

    router = APIRouter(prefix="/v1/admin", tags=["admin"], dependencies=[Depends(allowed)])
    manager = service.bundles

    async def answer_with(loaded: LoadedBundle) -> Response:
        names = await asyncio.to_thread(manager.names)
        previous = None if manager.previous is None else manager.previous.name
        return reply(
            BundleList(
                current=loaded.folder.name, bundle=loaded.bundle.version, previous=previous, names=names
            )
        )

    @router.get("/bundles", summary="Bundles", responses={200: {"model": BundleList}, **problems(403, 503)})
    async def bundles() -> Response:
        """The bundle in use, the one before, and those that may be swapped in."""
        return await answer_with(manager.current)

    @router.post(
        "/bundle",
        summary="Swap a bundle in",
        responses={200: {"model": BundleList}, **problems(400, 403, 404, 409, 413, 415, 422, 503)},
        openapi_extra=body_of(BundleName, one={"name": "2024-06-01"}),
    )
    async def swap(request: Request) -> Response:
        """Answers when the bundle is in use; what has begun ends with the old one."""
        asked = await read_json_body(request, BundleName, tokens=service.limits.tokens)
        return await answer_with(await manager.swap_to_name(asked.name))

    @router.post(
        "/rollback",
        summary="The bundle before",
        responses={200: {"model": BundleList}, **problems(403, 409, 503)},
    )
    async def rollback() -> Response:
        """Swap the bundle before this one in again."""
        return await answer_with(await manager.back())

    return router
