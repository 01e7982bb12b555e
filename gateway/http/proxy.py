"""The mirrored surface: one raw ASGI endpoint for every row of the route table.

Knows the order of the steps of a call (match, authenticate, read, peek, send, settle) and nothing of how each is done.
FastAPI's own stack is not in the way: it costs as much as the rest of the call together.
"""

import asyncio
import contextlib
import logging
from collections.abc import Callable, Iterable, MutableMapping
from time import perf_counter
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, unquote_to_bytes

from gateway.access.directory import KeyDirectory
from gateway.access.grants import allows_model, check_address, check_model, check_route
from gateway.call import Body, Dialect, Makes, Principal, Reply, Route, TraceContext
from gateway.errors import Draining, GatewayError, InternalError
from gateway.http.changed_keys import ChangedKeys
from gateway.http.client_address import address_of, compile_networks
from gateway.http.errors import send_error
from gateway.http.forms import Forms
from gateway.http.given import BUG, LONGEST_NAME, given
from gateway.http.repeated import Repeated, RepeatedHeads
from gateway.http.requests import (
    ClientLeft,
    Head,
    Receive,
    Scope,
    check_media_type,
    is_form,
    read_body,
    too_large,
)
from gateway.http.routes import MAKES_RESPONSES, Match, RouteTable
from gateway.http.unknown import no_route
from gateway.observe.traces.context import HEADERS as TRACE_HEADERS
from gateway.relay.allowance import Allowance
from gateway.relay.body import ask_for_usage, peek, replace_model, replace_text
from gateway.relay.client import Send
from gateway.relay.headers import RequestHeaders
from gateway.relay.listing import Listing, read_query
from gateway.relay.live import CallIds, LiveCall
from gateway.relay.mask import without_keys
from gateway.relay.objects import WITH_ITEMS
from gateway.relay.receipt import receipt
from gateway.relay.relay import Relay
from gateway.relay.settlement import Settlement
from gateway.relay.stated import stated_output
from gateway.relay.tags import joined, tags_of_body
from gateway.relay.tool_models import tool_models
from gateway.settings import Settings
from gateway.upstream.request_writer import serialise_head
from gateway.upstream.transport import UpstreamRequest

if TYPE_CHECKING:
    from gateway.http.cycle import GatewayCycle
    from gateway.http.protocol import GatewayProtocol

_log = logging.getLogger("gateway")
_DECODED = frozenset((b"content-encoding",))
_NOT_FOR_LISTS = frozenset((b"content-encoding", b"content-type", b"range", b"if-none-match", b"if-modified-since"))
"""They speak of a body that is not sent on, or ask for less than the whole, which must be read."""
_ONCE = frozenset((b"content-encoding", b"idempotency-key"))
"""With these, what goes upstream depends on more than on the head."""
_NOT_REMEMBERED = _ONCE | TRACE_HEADERS
"""And a head with a place in a trace is unlike all others."""
_NOTHING: frozenset[bytes] = frozenset()


class Proxy:
    """The endpoint. `open_calls` are the calls in flight; `draining` refuses new ones."""

    def __init__(  # noqa: PLR0913 - the rooms that a call passes through
        self,
        settings: Settings,
        directory: KeyDirectory,
        relay: Relay,
        headers: RequestHeaders,
        base_path: bytes,
        allowance: Allowance,
    ) -> None:
        self._allowance = allowance
        self._directory = directory
        self._relay = relay
        self._headers = headers
        self._objects = relay.objects
        self._base_path = base_path
        self._routes = RouteTable()
        self.repeated = RepeatedHeads()
        self._ids = CallIds()
        self._trusted_proxies = compile_networks(settings.server.trusted_proxies)
        self._aliases = settings.models.aliases
        self._max_body_bytes = settings.server.max_body_bytes
        self._forms = Forms(settings, allowance)
        self._include_usage = settings.streams.include_usage
        self._tags_from_body = settings.access.tags_from_body
        self._drains = settings.upstream.on_client_disconnect == "drain"
        self.begin_trace: Callable[[Iterable[tuple[bytes, bytes]]], TraceContext] | None = None
        """Gives a call with these headers its place in a trace, where traces are on."""
        self.open_calls: set[LiveCall] = set()
        self.settlement = Settlement(allowance, MAKES_RESPONSES, self.open_calls)
        allowance.room.on_look = ChangedKeys(directory, allowance, self.open_calls).look
        self.draining = False

    @property
    def is_busy(self) -> bool:
        """Whether a call is under way, or not settled yet."""
        return bool(self.open_calls) or self.settlement.is_behind

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one call. Never raises but `CancelledError`, and settles exactly once."""
        connection: GatewayProtocol = scope["connection"]
        cycle: GatewayCycle = scope["cycle"]
        cycle.holds_end = True
        call = LiveCall(self._ids.next(), scope["method"], cycle)
        call.task = cycle.task
        call.on_end = self.settlement.end
        if self.begin_trace is not None:
            # A head that came before has no place in a trace.
            call.trace = self.begin_trace(scope["headers"] if scope["repeated"] is None else ())
        self.open_calls.add(call)
        connection.watch(call.client_left)
        try:
            await self._answer(call, scope, receive, send)
        except GatewayError as error:
            if call.principal is None:
                error.detail = self._with_address(error.detail, scope)
            await self._refuse_whole(call, error, scope, send)
        except ClientLeft:
            call.left = call.is_free = True
            await self._broken_off(call, connection.refusal, send)
        except asyncio.CancelledError:
            await self._broken_off(call, connection.refusal, send)
        except Exception as error:
            _log.exception("call %s failed on a bug", call.id.decode())
            await self._refuse(call, InternalError(BUG, detail=repr(type(error))), send)
        finally:
            connection.unwatch(call.client_left)
            connection.tasks.discard(call.task)
            self.open_calls.discard(call)
            if call.on_end is not None:
                self.settlement.end(call)
            del scope["cycle"]  # which holds the scope: no garbage collector need find them, and stall other calls

    async def _answer(self, call: LiveCall, scope: Scope, receive: Receive, send: Send) -> None:
        known: Repeated | None = scope["repeated"]
        match = self._match(call, scope) if known is None else known.match
        route = call.route = match.route
        if self.draining:
            raise Draining("This gateway is shutting down; send the request again, another one will take it.")
        head = Head(scope["headers"], scope["http_version"]) if known is None else known.head
        principal = self._directory.remembered(head.digest) or await self._directory.look_up(head.authorization)
        call.principal = principal
        call.tags = joined(principal.tags, head.tags) if principal.tags else head.tags
        if principal.grants:
            self._check_grants(principal, match, head, scope)
        if route.owned:
            call.owner = await self._objects.check_path(principal, route, match.ids)
        if route.lists:
            await self._body(call, match, head, scope, receive)
            await self._list(call, head, scope, send)
            return
        if known is None:
            request = await self._request(call, match, head, scope, receive)
        else:
            request = self._repetition(call, principal, known, scope["cycle"])
        if call.in_doubt:
            await self._objects.check_ids(principal, call.in_doubt)
        if call.asked is not None:
            await self._admit(call, match, head, scope)
        if route.runs_file:
            await self._check_files(call, head, request)
            await self._look_again(call, match, head, scope)
        await self._relay.carry(call, request, send)

    async def _admit(self, call: LiveCall, match: Match, head: Head, scope: Scope) -> None:
        """Reserve what the call takes, by the terms that its key has when its turn has come."""
        while (asked := call.asked) is not None:
            if not await self._allowance.admit(call, asked):
                return
            await self._look_again(call, match, head, scope)
            principal = given(call.principal)
            if principal.grants:
                check_model(principal.grants, call.names)
                if not allows_model(principal.grants, ()) and not is_form(head):
                    self._check_tools(principal, call.body)
            if asked.is_unread:
                self._forms.check_waited(principal)
            if not self._allowance.is_outdated(principal, asked):
                return
            self._allowance.ask_again(call, principal, asked)

    async def _check_files(self, call: LiveCall, head: Head, request: UpstreamRequest) -> None:
        """Look through the files of requests that the body names, of which upstream runs one."""
        body = request.body if isinstance(request.body, bytes) else b""
        headers = self._upstream_headers(call, head, None, _ONCE | _NOT_FOR_LISTS)
        if call.asked is not None:
            call.asked.is_taken = True
        for file_id in dict.fromkeys(self._objects.named(body)):
            target = self._base_path + f"/files/{quote(file_id, safe='')}/content".encode()
            await self._relay.check_file(call, UpstreamRequest(b"GET", target, headers), given(call.principal))

    async def _list(self, call: LiveCall, head: Head, scope: Scope, send: Send) -> None:
        principal, route = given(call.principal), given(call.route)
        query = read_query(scope["query_string"])
        await self._objects.check_ids(principal, query.cursors)
        headers = self._upstream_headers(call, head, None, _NOT_FOR_LISTS)
        path = self._base_path + b"/" + route.pattern.encode()
        listing = Listing(self._objects, principal, route, query)

        def request_for(query: bytes) -> UpstreamRequest:
            return UpstreamRequest(b"GET", path + b"?" + query, list(headers))

        await self._relay.carry_list(call, listing, request_for, send)

    async def _body(self, call: LiveCall, match: Match, head: Head, scope: Scope, receive: Receive) -> bytes:
        is_late = scope["cycle"].more_body
        body = await read_body(receive, head, self._max_body_bytes)
        if is_late:
            await self._look_again(call, match, head, scope)
        return body

    async def _look_again(self, call: LiveCall, match: Match, head: Head, scope: Scope) -> None:
        """While the rest of the request was waited for, its key may have been changed or revoked."""
        principal = await self._directory.look_up(head.authorization)
        if principal is not call.principal:
            call.principal = principal
            if principal.grants:
                self._check_grants(principal, match, head, scope)

    def _check_grants(self, principal: Principal, match: Match, head: Head, scope: Scope) -> None:
        """Whether the key may do this at all; which model it may use is seen when that is known."""
        route = match.route
        check_address(principal.grants, address_of(scope, head.headers, self._trusted_proxies))
        check_route(principal.grants, route.group)
        if route.reply is Reply.MODEL:
            name = unquote_to_bytes(match.ids["model_id"]).decode("utf-8", "replace")
            check_model(principal.grants, (name, self._aliases.get(name, name)))

    def _match(self, call: LiveCall, scope: Scope) -> Match:
        raw_path: bytes = scope["raw_path"]
        match = self._routes.match(call.method, raw_path)
        if match is not None:
            return match
        takes = self._routes.methods(raw_path)
        raise no_route(call.method, raw_path, scope["upgrade"], self._by(scope), takes)

    def _by(self, scope: Scope) -> str:
        """For the log, of a call that goes nowhere: the key that it came with, if that is known anyway."""
        with contextlib.suppress(GatewayError):
            principal = self._directory.known(Head(scope["headers"], scope["http_version"]).authorization)
            return "" if principal is None else f", by {principal.key_id}"
        return ""

    async def _request(
        self, call: LiveCall, match: Match, head: Head, scope: Scope, receive: Receive
    ) -> UpstreamRequest:
        if match.route.body is Body.RAW and is_form(head):
            return await self._form(call, match, head, scope, receive)
        body = await self._body(call, match, head, scope, receive)
        if match.route.body is Body.NONE:
            call.new_ids = self._objects.expected(given(call.principal), match.route, None, call.owner)
            call.outlives_client = call.may_tell_late  # else what it tells at its end would be counted for nobody
        else:
            check_media_type(head)
            body = self._apply_policy(call, given(call.principal), match.route, body)
        drop = _NOTHING if head.content_encoding is None else _DECODED
        length = len(body) if body or call.method == "POST" else None
        headers = self._upstream_headers(call, head, length, drop)
        request = UpstreamRequest(call.method.encode(), self._target(match, scope), headers, body)
        if match.route.body is Body.JSON:
            self._remember(match, head, scope, request)
        return request

    def _repetition(
        self, call: LiveCall, principal: Principal, known: Repeated, cycle: "GatewayCycle"
    ) -> UpstreamRequest:
        """The request to upstream for a head that came before."""
        body = cycle.whole_body()
        if body is None:
            raise ClientLeft
        if len(body) > self._max_body_bytes:
            raise too_large(self._max_body_bytes)
        body = self._apply_policy(call, principal, known.match.route, body)
        length = b"%d" % len(body)
        headers = [*known.headers, (b"content-length", length)]
        return UpstreamRequest(b"POST", known.target, headers, body, b"%b%b\r\n\r\n" % (known.prefix, length))

    def _remember(self, match: Match, head: Head, scope: Scope, request: UpstreamRequest) -> None:
        """Take less trouble over the next request with this head, if there is nothing about it but what is read."""
        cycle: GatewayCycle = scope["cycle"]
        segment, cycle.segment = cycle.segment, None
        if segment is None or not cycle.is_ordinary or scope["upgrade"] or not _NOT_REMEMBERED.isdisjoint(head.fields):
            return
        prefix = serialise_head(request)[: -len(request.headers[-1][1]) - 4]
        parts = {name: scope[name] for name in ("method", "raw_path", "query_string", "http_version")}
        known = Repeated(parts, match, head, request.target, request.headers[:-1], prefix)
        self.repeated.remember(segment, known)

    async def _form(self, call: LiveCall, match: Match, head: Head, scope: Scope, receive: Receive) -> UpstreamRequest:
        async def receive_and_look() -> MutableMapping[str, Any]:
            is_late = scope["cycle"].more_body
            message = await receive()
            if is_late:
                await self._look_again(call, match, head, scope)
            return message

        body = await self._forms.body(call, match.route, head, receive_and_look)
        call.new_ids = self._objects.expected(given(call.principal), match.route, None, call.owner)
        length, drop = (len(body), _DECODED) if isinstance(body, bytes) else (head.content_length, _NOTHING)
        headers = self._upstream_headers(call, head, length, drop)
        return UpstreamRequest(call.method.encode(), self._target(match, scope), headers, body)

    def _upstream_headers(
        self, call: LiveCall, head: Head, length: int | None, drop: frozenset[bytes]
    ) -> list[tuple[bytes, bytes]]:
        principal = given(call.principal)
        return self._headers.build(head.headers, head.fields, principal, content_length=length, drop=drop)

    def _apply_policy(self, call: LiveCall, principal: Principal, route: Route, body: bytes) -> bytes:
        """The body that goes upstream; the call is told what it asks for."""
        seen = peek(body)
        if seen.background or self._drains:
            call.is_background = seen.background and route.makes is Makes.RESPONSE
            call.outlives_client = self._drains or call.is_background
        model, target = seen.model, None
        if model is not None:
            target = self._aliases.get(model)
            name = target or model
            call.model = without_keys(name)[:LONGEST_NAME]
            call.names = (model, name)
        if principal.grants:
            self._check_models(principal, route, call.names, body)
        if self._tags_from_body:
            call.tags = joined(call.tags, tags_of_body(body))
        call.in_doubt = self._objects.in_doubt(principal, body, seen, items=route.group in WITH_ITEMS)
        call.new_ids = self._objects.expected(principal, route, seen, call.owner)
        if seen.prompt_cache_key and self._headers.namespaces_keys:
            body = replace_text(body, "prompt_cache_key", self._headers.cache_key(seen.prompt_cache_key, principal))
        if target is not None:
            body = replace_model(body, target)
        call.body = body
        if route.runs_model:
            call.asked = self._allowance.ask(principal, call.model or "", body, *stated_output(route, seen))
        if seen.stream and route.dialect is Dialect.CHAT and self._include_usage and not seen.include_usage:
            call.removes_usage = True
            return ask_for_usage(body)
        return body

    def _check_models(self, principal: Principal, route: Route, names: tuple[str, ...], body: bytes) -> None:
        if names or route.runs_model:
            check_model(principal.grants, names)
        if not allows_model(principal.grants, ()):
            self._check_tools(principal, body)

    def _check_tools(self, principal: Principal, body: bytes) -> None:
        """Whether the key may use the models that its tools use; upstream reads their names as they are."""
        for name in tool_models(body):
            check_model(principal.grants, () if name is None or name in self._aliases else (name,))

    def _target(self, match: Match, scope: Scope) -> bytes:
        subpath = match.subpath
        if match.route.reply is Reply.MODEL:
            name = unquote_to_bytes(match.ids["model_id"]).decode("utf-8", "replace")
            if (target := self._aliases.get(name)) is not None:
                subpath = b"/models/" + quote(target, safe="").encode()
        query: bytes = scope["query_string"]
        return self._base_path + subpath + (b"?" + query if query else b"")

    def _with_address(self, detail: str, scope: Scope) -> str:
        """Of a call by nobody who is known, the log tells where it came from."""
        known: Repeated | None = scope["repeated"]
        headers = scope["headers"] if known is None else known.head.headers
        came_from = f"from {address_of(scope, headers, self._trusted_proxies)}"
        return f"{detail}, {came_from}" if detail else came_from

    async def _refuse_whole(self, call: LiveCall, error: GatewayError, scope: Scope, send: Send) -> None:
        """`_refuse`, once the request is there. A client that does not wait for that is refused all the same."""
        known_at = perf_counter()
        if scope["cycle"].more_body:
            try:
                await scope["cycle"].hear_out()
            except asyncio.CancelledError:
                refusal: GatewayError | None = scope["connection"].refusal
                await self._broken_off(call, error if refusal is None and call.left else refusal, send)
                return
        await self._refuse(call, error, send, known_at)

    async def _refuse(self, call: LiveCall, error: GatewayError, send: Send, known_at: float | None = None) -> None:
        """Tell the client of `error`, and end the call. `known_at`: since when it was to be told, if not since now."""
        if call.outcome is not None or call.status:
            call.wire.abort()  # the reply has begun: its end can only be broken off
        else:
            call.status = error.status
            # Strangers learn nothing of how long it took to see that they are.
            told = [] if call.principal is None else receipt(call, known_at or perf_counter())
            call.sent_bytes = await send_error(error, call.id, send, [*told, *call.limit_headers])
        self._end(call, error)

    def _end(self, call: LiveCall, error: GatewayError) -> None:
        call.fail(error)
        call.end("refused" if error.status < 500 else "drained" if isinstance(error, Draining) else "failed")

    async def _broken_off(self, call: LiveCall, refusal: GatewayError | None, send: Send) -> None:
        """The call was ended from outside: by its client, by the connection itself, or by a shutdown."""
        if refusal is not None:
            call.left, call.status = False, refusal.status
            self._end(call, refusal)
        elif call.left:
            call.end("client_left")
        elif call.cut_by is not None:
            call.uncancel()
            await self._refuse(call, call.cut_by, send)
        else:
            call.end("failed")
            raise asyncio.CancelledError


def target_base(base_url_path: str) -> bytes:
    """The path that upstream's API lives under, for targets on the wire."""
    return quote(base_url_path.rstrip("/"), safe="/%").encode()
