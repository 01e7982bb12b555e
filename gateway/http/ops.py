"""Health, readiness and metrics, for whoever keeps the gateway running."""

from collections.abc import Callable

from fastapi import APIRouter, Response

from gateway.errors import Draining


def ops_router(is_draining: Callable[[], bool], render_metrics: Callable[[], bytes]) -> APIRouter:
    """The routes /healthz, /readyz and /metrics."""
    router = APIRouter(tags=["operations"])

    @router.get("/healthz", summary="Is the process alive?")
    async def healthz() -> dict[str, str]:
        return {"status": "ok"}

    @router.get("/readyz", summary="Should this node get new calls?")
    async def readyz() -> dict[str, str]:
        if is_draining():
            raise Draining("This node is shutting down and takes no new calls.")
        return {"status": "ready"}

    @router.get("/metrics", summary="Metrics in Prometheus' text format.")
    async def metrics() -> Response:
        return Response(render_metrics(), media_type="text/plain; version=0.0.4; charset=utf-8")

    return router
