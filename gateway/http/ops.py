"""Health and readiness, for whoever keeps the gateway running."""

from collections.abc import Callable

from fastapi import APIRouter

from gateway.errors import Draining


def ops_router(is_draining: Callable[[], bool]) -> APIRouter:
    """The routes /healthz and /readyz."""
    router = APIRouter(tags=["operations"])

    @router.get("/healthz", summary="Is the process alive?")
    async def healthz() -> dict[str, str]:
        return {"status": "ok"}

    @router.get("/readyz", summary="Should this node get new calls?")
    async def readyz() -> dict[str, str]:
        if is_draining():
            raise Draining("This node is shutting down and takes no new calls.")
        return {"status": "ready"}

    return router
