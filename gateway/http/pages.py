"""The gateway's own pages: FastAPI, with the ids and the errors that every reply of this gateway has.

Knows how FastAPI refuses, and says it again in the shape that OpenAI's clients read. Knows no page by name.
"""

from collections.abc import Sequence
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.routing import Match
from starlette.types import Message, Receive, Scope, Send

from gateway import __version__
from gateway.errors import BadRequest, GatewayError, InternalError, MethodNotAllowed, UnknownRoute
from gateway.http.errors import error_reply, send_error
from gateway.http.requests import Head
from gateway.http.routes import check_clean
from gateway.relay.live import CallIds
from gateway.terms import limit_meant

_METHODS = ("GET", "POST", "PUT", "PATCH", "DELETE")
_WANTED = {
    "missing": "is missing",
    "model_attributes_type": "must be a JSON object",
    "dict_type": "must be a JSON object",
    "list_type": "must be a list",
}
_KEYS = "Keys are made at POST /admin/v1/keys: see docs/from-litellm.md."
_HEALTH = "Whether this gateway runs is told at GET /healthz, and whether it is ready at GET /readyz."
_ELSEWHERE = {
    b"/key/generate": _KEYS,
    b"/key/info": "Keys are at GET /admin/v1/keys: see docs/from-litellm.md.",
    b"/health": _HEALTH,
    b"/health/liveliness": _HEALTH,
    b"/health/readiness": _HEALTH,
}
"""LiteLLM's paths, and where it is here."""


class OwnPages(FastAPI):
    """FastAPI whose replies carry `x-request-id` and whose refusals are OpenAI's error object."""

    def __init__(self, **options: Any) -> None:
        super().__init__(version=__version__, redirect_slashes=False, redoc_url=None, **options)
        self.ids = CallIds()
        _shape_errors(self)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            call_id = self.ids.next()
            try:
                check_clean(scope["raw_path"])
                Head(scope["headers"], scope["http_version"])
            except GatewayError as error:
                await send_error(error, call_id, send)
                return
            send = _with_ids(send, call_id)
        await super().__call__(scope, receive, send)


def _with_ids(send: Send, call_id: bytes) -> Send:
    """`send`, with the ids that every reply carries on the pages that FastAPI answers."""

    async def send_with_ids(message: Message) -> None:
        if message["type"] == "http.response.start" and not any(
            name == b"x-request-id" for name, _ in message["headers"]
        ):
            ids = [(b"x-request-id", call_id), (b"x-gateway-request-id", call_id)]
            message = {**message, "headers": [*message["headers"], *ids]}
        await send(message)

    return send_with_ids


def _shape_errors(app: OwnPages) -> None:
    def respond(error: GatewayError) -> Response:
        status, headers, body = error_reply(error, app.ids.next())
        response = Response(body, status)
        response.raw_headers = headers
        return response

    @app.exception_handler(GatewayError)
    async def _own(_: Request, error: GatewayError) -> Response:
        return respond(error)

    @app.exception_handler(HTTPException)
    async def _http(request: Request, error: HTTPException) -> Response:
        response = respond(_own_words(error.status_code, request))
        response.headers.update(error.headers or {})
        return response

    @app.exception_handler(RequestValidationError)
    async def _invalid(_: Request, error: RequestValidationError) -> Response:
        return respond(_bad_member(error.errors()[0]))

    @app.exception_handler(Exception)
    async def _bug(_: Request, _error: Exception) -> Response:
        return respond(InternalError("The gateway failed on a bug of its own. Tell whoever runs it the x-request-id."))


def _own_words(status: int, request: Request) -> GatewayError:
    path = request.scope["raw_path"]
    where = f"({request.method} {path.decode('ascii', 'replace')})"
    if status == 404 and path in _ELSEWHERE:
        return UnknownRoute(f"Invalid URL {where}. {_ELSEWHERE[path]}")
    if status == 404 and path.startswith(b"/admin/"):
        cure = (
            "No path of the admin API ends in a slash: is a variable at its end empty? /docs has those that there are."
            if path.endswith(b"/")
            else "The admin API has no such path; /docs has those that there are."
        )
        return UnknownRoute(f"Invalid URL {where}. {cure}")
    if status == 404:
        cure = "Check the path, and the base URL of your client: it ends in /v1. The description is at /docs."
        return UnknownRoute(f"Invalid URL {where}. {cure}")
    if status == 405:
        takes = _methods(request)
        return MethodNotAllowed(f"Not allowed {where}. This path takes {' and '.join(takes)}: see /docs.")
    return BadRequest(f"The request was refused {where}. See /docs for what is expected.")


def _methods(request: Request) -> list[str]:
    """Those that the path takes, which several routes may have."""
    asked = [{**request.scope, "method": method} for method in _METHODS]
    return [
        each["method"] for each in asked if any(route.matches(each)[0] is Match.FULL for route in request.app.routes)
    ]


def _bad_member(problem: dict[str, Any]) -> BadRequest:
    """The refusal that names the member and what is expected, and never repeats what was sent."""
    kind, (place, *path) = problem["type"], problem["loc"]
    if kind == "json_invalid":
        return BadRequest("The body is not valid JSON. See /docs for what is expected.")
    where = ".".join(map(str, path)) or str(place)
    if kind == "extra_forbidden":
        if (meant := _limit_meant(path)) is not None:
            return BadRequest(f"{where}: no such limit. Perhaps {meant} was meant.", param=where)
        name = "query parameter" if place == "query" else "member"
        return BadRequest(f"{where}: no such {name}. See /docs for those that there are.", param=where)
    wanted = _WANTED.get(kind) or problem["msg"].replace("Input should", "must")
    return BadRequest(f"{where}: {wanted}. See /docs for what is expected.", param=where)


def _limit_meant(path: Sequence[object]) -> str | None:
    """What the unknown member at `path` was perhaps meant to be, if it stands among limits."""
    is_limit = "limits" in path[-2:-1] or "model_limits" in path[-3:-2]
    return limit_meant(str(path[-1])) if is_limit else None
