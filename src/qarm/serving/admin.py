"""Admin routes: list of bundles, swap, and rollback."""

import asyncio

from fastapi import APIRouter, Depends, Request
from starlette.responses import Response

from qarm.serving.bundle_manager import LoadedBundle
from qarm.serving.openapi import body_of, problems
from qarm.serving.problems import Problem
from qarm.serving.request_parsing import read_json_body
from qarm.serving.routes import reply
from qarm.serving.schemas import BundleList, BundleName
from qarm.serving.service import Service

__all__ = ["admin_routes"]


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
    editions = service.editions

    async def answer_with(edition: LoadedBundle) -> Response:
        names = await asyncio.to_thread(editions.names)
        previous = None if editions.previous is None else editions.previous.name
        return reply(
            {
                "current": edition.folder.name,
                "bundle": edition.bundle.version,
                "previous": previous,
                "names": names,
            }
        )

    @router.get("/bundles", summary="Bundles", responses={200: {"model": BundleList}, **problems(403, 503)})
    async def bundles() -> Response:
        """The bundle in use, the one before, and those that may be swapped in."""
        return await answer_with(editions.current)

    @router.post(
        "/bundle",
        summary="Swap a bundle in",
        responses={200: {"model": BundleList}, **problems(400, 403, 404, 409, 413, 415, 422, 503)},
        openapi_extra=body_of(BundleName, one={"name": "2024-06-01"}),
    )
    async def swap(request: Request) -> Response:
        """Answers when the bundle is in use; what has begun ends with the old one."""
        return await answer_with(
            await editions.swap_to_name((await read_json_body(request, BundleName)).name)
        )

    @router.post(
        "/rollback",
        summary="The bundle before",
        responses={200: {"model": BundleList}, **problems(403, 409, 503)},
    )
    async def rollback() -> Response:
        """Swap the bundle before this one in again."""
        return await answer_with(await editions.back())

    return router
