"""The page of metrics, where the calls go or at an address of its own, open or for whoever has a token.

Knows who may read it, and that it is written beside the calls, which go on meanwhile; nothing of what is measured.
"""

import asyncio
from collections.abc import Callable
from hashlib import sha256
from hmac import compare_digest

from fastapi import APIRouter, Request, Response

from gateway.errors import InvalidKey, MissingKey
from gateway.http.pages import OwnPages
from gateway.observe.families import Reading
from gateway.observe.text import MEDIA_TYPE, render

_HOW = "Send it as 'Authorization: Bearer TOKEN'; in Prometheus' configuration it is authorization.credentials."


def metrics_router(collect: Callable[[], list[Reading]], token: str | None) -> APIRouter:
    """The route /metrics, which shows what `collect` tells; to anybody where `token` is None."""
    router = APIRouter(tags=["operations"])
    wanted = None if token is None else _digest(token.encode())

    @router.get("/metrics", summary="Metrics in Prometheus' text format.")
    async def metrics(request: Request) -> Response:
        if wanted is not None:
            _check(request.headers.get("authorization"), wanted)
        text = await asyncio.to_thread(render, collect())
        return Response(text, media_type=MEDIA_TYPE)

    return router


def metrics_app(collect: Callable[[], list[Reading]], token: str | None) -> OwnPages:
    """/metrics as an application of its own."""
    app = OwnPages(title="GMI gateway's metrics", docs_url=None, openapi_url=None)
    app.include_router(metrics_router(collect, token))
    return app


def _check(authorization: str | None, wanted: bytes) -> None:
    """Raises `MissingKey` or `InvalidKey`; how long it takes says nothing of the token."""
    if authorization is None:
        raise MissingKey(f"Metrics need a token here (metrics.token). {_HOW}")
    scheme, _, token = authorization.partition(" ")
    if scheme.lower() != "bearer" or not compare_digest(_digest(token.strip().encode("latin-1")), wanted):
        raise InvalidKey(f"This is not the token of the metrics (metrics.token). {_HOW}")


def _digest(token: bytes) -> bytes:
    return sha256(token).digest()
