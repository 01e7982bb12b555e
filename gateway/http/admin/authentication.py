"""Who administers is settled before anything of a request but its head is read, and how much is read is bounded.

Knows where in the way of a request that is; who a key belongs to, the injected `Authenticate` knows. All of it runs on
the loop that calls run on, and any key may ask: so what a body can cost is bounded before it is known whose it is.
"""

import contextlib
import json
from collections.abc import Awaitable, Callable, Coroutine
from typing import Annotated, Any

from fastapi import Depends, Request, Response
from fastapi.routing import APIRoute
from fastapi.security import HTTPBearer
from starlette.requests import ClientDisconnect
from starlette.types import Message, Receive

from gateway.access import rules
from gateway.access.records import Actor
from gateway.errors import BadRequest, Forbidden, RequestTooLarge, UnsupportedMediaType

PREFIX = "/admin/v1"

Authenticate = Callable[[Request], Awaitable[Actor]]
"""Finds who sent a request. Raises `MissingKey`, `InvalidKey`, `NetworkNotAllowed` or `StoreUnavailable`."""

_ACTOR = "gateway.actor"
MAX_BODY_BYTES = 64 * 1024
_MOST_MEMBERS = 256
"""Of one object: more than any has that would be taken."""
_LONGEST_SHOWN = 100

describe_key = Depends(HTTPBearer(scheme_name="key", auto_error=False))
"""Says in the API's description that a key is wanted; it refuses nobody."""


async def _actor_of(request: Request) -> Actor:
    actor: Actor = request.scope[_ACTOR]
    return actor


ActorOf = Annotated[Actor, Depends(_actor_of)]


async def for_team_admins(request: Request) -> None:
    """For routes that members never have. As a dependency of a route it is asked before the body is read."""
    rules.require_team_admin(_authority(request))


async def for_who_sees_others(request: Request) -> None:
    """As `for_team_admins`; members are told where they see the same of their own key."""
    if _authority(request).role == "member":
        path = request.url.path
        own = path.replace(f"{PREFIX}/", f"{PREFIX}/me/", 1)
        raise Forbidden(f"A key with the role member sees what is its own alone: {own} in place of {path}.")


async def for_admins(request: Request) -> None:
    """As `for_team_admins`, for routes that team admins have not either."""
    rules.require_admin(_authority(request))


def _authority(request: Request) -> rules.Authority:
    actor: Actor = request.scope[_ACTOR]
    return rules.Authority(actor.role)


_BEFORE_THE_BODY = (for_team_admins, for_who_sees_others, for_admins)


def route_class(authenticate: Authenticate, *, max_body_bytes: int = MAX_BODY_BYTES) -> type[APIRoute]:
    """Routes that ask `authenticate` first, and only then read the body, of a bounded size."""

    class AdminRoute(APIRoute):
        def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
            handle = super().get_route_handler()
            takes_json = self.body_field is not None
            asked = {each.dependency for each in self.dependencies}
            roles = [each for each in _BEFORE_THE_BODY if each in asked]

            async def guarded(request: Request) -> Response:
                request.scope[_ACTOR] = await authenticate(request)
                for may in roles:
                    await may(request)
                _check_query(request)
                body = await _read_body(request, max_body_bytes)
                if takes_json and body:
                    _check_is_json(request)
                    _check_members_come_once(body)
                response = await handle(Request(request.scope, _replay(body)))
                response.headers["cache-control"] = "no-store"
                return response

            return guarded

    return AdminRoute


async def _read_body(request: Request, most_bytes: int) -> bytes:
    body = bytearray()
    try:
        async for piece in request.stream():
            body += piece
            if len(body) > most_bytes:
                raise RequestTooLarge(f"The body is over {most_bytes} bytes. Send it in several requests.")
    except ClientDisconnect:
        raise BadRequest("The client left before its request was complete.") from None
    return bytes(body)


def _replay(body: bytes) -> Receive:
    async def receive() -> Message:
        return {"type": "http.request", "body": body, "more_body": False}

    return receive


def _check_query(request: Request) -> None:
    names = [name for name, _ in request.query_params.multi_items()]
    for name in set(names):
        if names.count(name) > 1:
            raise BadRequest(f"{name}: came more than once. Send it once.", param=name)


def _check_is_json(request: Request) -> None:
    if content_type(request) != "application/json":
        raise UnsupportedMediaType("The body must be JSON. Send it with Content-Type: application/json.")


def _check_members_come_once(body: bytes) -> None:
    """Of two that are equal the last would count here and the first elsewhere (RFC 8259, section 4): neither does."""
    # What is no JSON at all is refused where its members are read.
    with contextlib.suppress(ValueError, RecursionError):
        json.loads(body, object_pairs_hook=_members_once)


def _members_once(members: list[tuple[str, object]]) -> None:
    if len(members) > _MOST_MEMBERS:
        raise BadRequest(f"The body has an object of over {_MOST_MEMBERS} members. See /docs for those that there are.")
    seen = set()
    for name, _ in members:
        if name in seen:
            # A half of a surrogate pair would break the reply that quotes it.
            shown = ascii(name)[1:-1][:_LONGEST_SHOWN]
            raise BadRequest(f"{shown}: came more than once in one object. Send it once.", param=shown)
        seen.add(name)


def content_type(request: Request) -> str:
    """The media type of the body, without parameters."""
    return request.headers.get("content-type", "").partition(";")[0].strip().lower()


async def no_query(request: Request) -> None:
    """For routes without query parameters: whoever sends one expects something that would not happen."""
    for name in request.query_params:
        raise BadRequest(f"{name}: no such query parameter. See /docs for those that there are.", param=name)


async def no_body(request: Request) -> None:
    """For routes without a body, as `no_query`."""
    if await request.body() not in (b"", b"{}"):
        raise BadRequest("This request takes no body. Send none.")
