"""uvicorn's HTTP/1.1 connection, with the bounds that a gateway needs and uvicorn leaves to others.

Adds caps on the head, a deadline for the sending of a request, JSON errors for requests that cannot be parsed, and a
call-back for a client that leaves. The parsing and the ASGI cycle stay uvicorn's.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, cast
from urllib.parse import unquote

import httptools
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from gateway.errors import BadRequest, GatewayError, HeadersTooLarge, RequestTimeout, UrlTooLong
from gateway.http.cycle import GatewayCycle, reset
from gateway.http.errors import raw_error_reply
from gateway.http.flow import WatchfulFlow
from gateway.http.heads import may_hold_blanks, split_target, without_upgrade
from gateway.http.repeated import RepeatedHeads
from gateway.http.routes import is_mirrored
from gateway.relay.live import CallIds

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable, Coroutine

    from uvicorn._types import ASGI3Application
    from uvicorn.config import Config
    from uvicorn.protocols.http.httptools_impl import RequestResponseCycle
    from uvicorn.server import ServerState

    from gateway.settings import Server

    Endpoint = Callable[[Any, Any, Any], Coroutine[Any, Any, None]]

MIN_RATE_BYTES_S = 64 * 1024
"""What a client must send on average, beyond `request_timeout_s`, for its request not to be cut."""

_MAX_KNOWN_NAMES, _MAX_KNOWN_LENGTH = 1024, 64
_lowered: dict[bytes, bytes] = {}
"""Header names as they come, and in lower case: the same few come with every request."""

_MOST_PIPELINED = 16
"""Requests that may wait behind one; until then reading goes on, so that a client that leaves is noticed."""

_MOST_PIPELINED_EVER = 256
"""One piece off the network may hold many, past the point where reading stops; at this the connection is dropped."""
_LEAST_TICK_S, _WAITING_TICK_S = 0.01, 1.0

_ids = CallIds()


class GatewayProtocol(HttpToolsProtocol):
    """One client connection.

    The application's state holds its bounds as `limits`, a `gateway.settings.Server`; and, if the application has the
    mirrored surface, as `endpoint` its raw ASGI endpoint and as `repeated_heads` what that has learnt. It holds
    `is_leaving` once new connections are to serve one request and no more.
    """

    cycle: GatewayCycle
    flow: WatchfulFlow

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        super().__init__(config, server_state, app_state, _loop)
        self._limits: Server = app_state["limits"]
        self._endpoint: Endpoint | None = app_state.get("endpoint")
        self._repeated: RepeatedHeads = app_state.get("repeated_heads") or RepeatedHeads()
        self._in_head = True
        self._in_request = True
        self._head_bytes = self._segment_bytes = 0
        self._quiet_bytes = 0
        """Bytes that brought no body: of a head, of trailers, of chunk extensions. They are held, or for nothing."""
        self._received_bytes = 0
        self._began_s = self.loop.time()
        self._idle_since_s = 0.0
        limits = self._limits
        self._tick_s = min(filter(None, (limits.request_timeout_s, limits.keep_alive_s, limits.send_timeout_s)))
        self._timer: asyncio.TimerHandle | None = None
        self._tick_at_s = self._began_s
        self._is_due = self._is_stuck = False
        self._refusal: GatewayError | None = None
        self._upgrade = b""
        self._starts_in_head = True
        """The piece that is being read began with a head, or in one; else one may follow a body in it."""
        self._has_blanks = False
        """Some header's value may end in blanks, which are no part of it; the parser leaves them there."""
        self.refusal: GatewayError | None = None
        """What the request under way was refused with, where it was this connection that refused it."""
        self._on_leave: Callable[[], None] | None = None
        self._running: GatewayCycle | None = None
        """The request that is being answered; `cycle` is the one that was read last."""
        self._is_ending = False
        """No request is to follow the one that is read next."""
        self._is_spared = False
        """It was to end behind a reply that could not say so, and was left for one request more."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self.flow = WatchfulFlow(transport)
        if self.app_state.get("is_leaving"):
            self.end_after_next()
        self._tick()

    def end_after_next(self) -> None:
        """Serve what has come by now, or else one more request, and close; replies say so where they can.

        After one that cannot, a request more is served: who sends it could not know. That is for once.
        """
        self._is_ending = True
        self._repeated = RepeatedHeads()  # nothing is found in it, so that the next head is read anew
        if self._has_cycle() and not self.cycle.response_complete:
            self.cycle.be_last()

    @property
    def is_idle(self) -> bool:
        """No request is being answered, or has begun to come."""
        is_coming = self._in_head and self._received_bytes
        is_answering = self._has_cycle() and not self.cycle.response_complete
        return not (is_coming or is_answering or self.transport.is_closing())

    def close_if_idle(self, least_s: float) -> None:
        """Close if it has been idle for `least_s` seconds: what its client sent before it knew has come by then."""
        if self.is_idle and self.loop.time() - self._idle_since_s >= least_s:
            self.transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        if self._running is not None:
            self._running.disconnected = True  # uvicorn marks the request that came last
        if self._timer is not None:
            self._timer.cancel()
        self._leave()
        # Something may hold on to this object until some collection, which is no reason to keep what was read.
        self.scope, self.headers, self.url = cast("Any", {}), [], b""

    def eof_received(self) -> None:
        """A client that says no more has left, whatever it still reads: the transport closes behind this."""
        running = self._running
        if running is not None and not running.response_complete:
            running.abort()
            running.set()
            self._leave()

    def watch(self, on_leave: Callable[[], None]) -> None:
        """Call `on_leave` when this connection is lost; reading goes on, since that is how a loss is noticed."""
        self._on_leave = on_leave
        self._read_on()

    def unwatch(self, on_leave: Callable[[], None]) -> None:
        """Forget `on_leave`, unless a later request has put its own in place."""
        if self._on_leave == on_leave:
            self._on_leave = None

    def _leave(self) -> None:
        on_leave, self._on_leave = self._on_leave, None
        if on_leave is not None:
            on_leave()

    def data_received(self, data: bytes) -> None:
        is_fresh = not (self._in_request and self._received_bytes)
        if is_fresh and self._take_repeated(data):
            return
        size = self._segment_bytes = len(data)
        self._received_bytes += size
        self._quiet_bytes += size
        if self._in_head:
            self._head_bytes += size
        self._starts_in_head = self._in_head or not self._in_request
        if self._starts_in_head and may_hold_blanks(data):
            self._has_blanks = True
        rest = data
        while rest:
            rest = self._parse(rest)
        if is_fresh and not self._in_request:
            self.cycle.segment = data
        most = self._limits.max_head_bytes
        if (self._in_head and self._head_bytes > most) or (self._in_request and self._quiet_bytes - size > most):
            self._refuse(self._too_large())

    def _take_repeated(self, data: bytes) -> bool:
        """Start the request that `data` is, if that is a repetition of one that was read before."""
        last: GatewayCycle | None = self.cycle
        endpoint = self._endpoint
        if last is not None and not (last.response_complete and last.keep_alive):
            return False
        found = self._repeated.find(data)
        if found is None or endpoint is None or self.transport.is_closing():
            return False
        self._in_request = self._in_head = False
        known, body = found
        scope = {**known.scope, "client": self.client, "connection": self, "repeated": known}
        cycle = self.cycle = self._running = self._new_cycle(scope, expects_100=False, keep_alive=True)
        cycle.fill(body)
        self._start_call(cycle, endpoint)
        return True

    def _parse(self, data: bytes) -> bytes:
        """Feed the parser; what comes back is to be parsed anew."""
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            return self._without_upgrade() + data[upgrade.args[0] :]
        except httptools.HttpParserError:
            self._refuse(self._refusal or BadRequest("This is not a valid HTTP/1.1 request; check the client."))
        return b""

    def _without_upgrade(self) -> bytes:
        """The head that was just read as if it had not asked for an upgrade, which the parser takes for its end.

        Clients that would rather speak HTTP/2 in the clear ask so with every first request, a POST's body behind it.
        """
        line = b"%b %b HTTP/%b" % (self.parser.get_method(), self.url, self.parser.get_http_version().encode())
        self._upgrade = dict(self.headers).get(b"upgrade", b"").lower()
        self.parser = httptools.HttpRequestParser(self)
        return b"\r\n".join((line, *map(b": ".join, without_upgrade(self.headers)), b"", b""))

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self.scope["connection"] = self  # type: ignore[typeddict-unknown-key]
        self.scope["repeated"] = None  # type: ignore[typeddict-unknown-key]
        if not self._in_request:
            self._in_head = self._in_request = True
            self._received_bytes = self._quiet_bytes = self._segment_bytes
            self._head_bytes = self._segment_bytes if self._starts_in_head else 0
            self._has_blanks = self._has_blanks or not self._starts_in_head
            self._began_s = self.loop.time()

    def on_url(self, url: bytes) -> None:
        self.url += url
        if len(self.url) > self._limits.max_url_bytes:
            raise self._refused(UrlTooLong(f"The URL is over {self._limits.max_url_bytes} bytes; shorten it."))

    def on_header(self, name: bytes, value: bytes) -> None:
        if self._in_head:  # trailers are dropped: a call's headers do not change after it was let in
            self.headers.append((_lowered.get(name) or self._learn(name, value), value))

    def _learn(self, name: bytes, value: bytes) -> bytes:
        """Lower the name's case, once a name; Expect is looked at each time."""
        lower = name.lower()
        if lower == b"expect":
            self.expect_100_continue = value.lower() == b"100-continue"
        elif len(_lowered) < _MAX_KNOWN_NAMES and len(name) < _MAX_KNOWN_LENGTH:
            _lowered[name] = lower
        return lower

    def on_headers_complete(self) -> None:
        if self.parser.get_method() == b"CONNECT":
            raise self._refused(BadRequest("This is no forward proxy; send requests to its own URL."))
        if self.parser.should_upgrade():
            return  # it is declined, and read again
        if len(self.headers) > self._limits.max_headers or self._is_head_too_large():
            raise self._refused(self._too_large())
        if self._has_blanks:
            self._has_blanks = False
            self.headers[:] = [(name, value.rstrip(b" \t")) for name, value in self.headers]
        self._read_target()
        scope, version = self.scope, self.parser.get_http_version()
        scope["method"] = self.parser.get_method().decode()
        if version not in ("1.0", "1.1"):
            raise self._refused(BadRequest("This server speaks HTTP/1.1."))
        scope["http_version"] = version
        scope["upgrade"], self._upgrade = self._upgrade, b""  # type: ignore[typeddict-unknown-key]
        self._in_head = False
        is_busy = self._has_cycle() and not self.cycle.response_complete
        keep_alive = version != "1.0" and self.parser.should_keep_alive()
        cycle = self.cycle = self._new_cycle(scope, expects_100=self.expect_100_continue, keep_alive=keep_alive)
        if self._is_ending:
            cycle.be_last()
        if not is_busy:
            self._running = cycle
            self._start_asgi_task(cycle, self.app)
        else:
            self.pipeline.appendleft((cycle, self.app))
            if len(self.pipeline) >= _MOST_PIPELINED:
                self.flow.pause_reading()
            if len(self.pipeline) > _MOST_PIPELINED_EVER:
                raise self._refused(BadRequest("Too many requests wait on this connection; open more of them."))

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: ASGI3Application) -> None:
        """As uvicorn's; a call of the mirrored surface goes straight to the endpoint, which sees to errors itself."""
        if self._endpoint is not None and is_mirrored(cycle.scope["raw_path"]):
            self._start_call(cast("GatewayCycle", cycle), self._endpoint)
        else:
            super()._start_asgi_task(cycle, app)

    def _start_call(self, cycle: GatewayCycle, endpoint: Endpoint) -> None:
        task = cycle.task = self.loop.create_task(endpoint(cycle.scope, cycle.receive, cycle.send))
        self.tasks.add(task)  # taken out by the endpoint itself: a callback would be one more turn of the loop

    def _new_cycle(self, scope: Any, *, expects_100: bool, keep_alive: bool) -> GatewayCycle:
        cycle = scope["cycle"] = GatewayCycle(
            scope,
            self.transport,
            self.flow,
            self.logger,
            self.on_response_complete,
            expects_100=expects_100,
            keep_alive=keep_alive,
        )
        return cycle

    def _read_target(self) -> None:
        """The path stays raw, since that is what is authorised and sent on."""
        if not self.url.isascii():
            raise self._refused(BadRequest("The URL holds bytes that are not ASCII; percent-encode them."))
        raw_path, query = split_target(self.url)
        self.scope["raw_path"] = raw_path
        self.scope["path"] = unquote(raw_path.decode()) if b"%" in raw_path else raw_path.decode()
        self.scope["query_string"] = query

    def on_body(self, body: bytes) -> None:
        self._quiet_bytes = 0
        if not self.cycle.response_complete:
            self.cycle.hold(body)

    def on_message_complete(self) -> None:
        if self._in_head:
            return  # an upgrade that is declined
        self._in_request = False
        if not self.cycle.response_complete:
            self.cycle.more_body = False
            self.cycle.set()
            if self.cycle is self._running:
                self._read_on()  # its last piece may have been more than is held unread

    def _read_on(self) -> None:
        """Take more off the network, unless much waits: that is how a loss is noticed."""
        if self.flow.read_paused and len(self.pipeline) < _MOST_PIPELINED:
            self.flow.resume_reading()

    def _is_head_too_large(self) -> bool:
        if self._head_bytes <= self._limits.max_head_bytes and self._starts_in_head:
            return False  # all that came, body included, is within the cap
        size = len(self.url) + sum(len(name) + len(value) + 4 for name, value in self.headers)
        return size > self._limits.max_head_bytes

    def _refused(self, error: GatewayError) -> GatewayError:
        """Note why the parser is about to be stopped; it reports nothing but that it was."""
        self._refusal = error
        return error

    def _too_large(self) -> HeadersTooLarge:
        limits = self._limits
        return HeadersTooLarge(
            f"The request's headers are over {limits.max_head_bytes} bytes or {limits.max_headers} fields; send fewer."
        )

    def _refuse(self, error: GatewayError) -> None:
        """Answer a request that cannot be read, and close: what follows it on the connection means nothing."""
        self._refusal = None
        if self.transport.is_closing():
            return
        if self._is_answering():
            (self._running or self.cycle).abort()
            return
        if self._in_request and not self._in_head and self._has_cycle() and self.cycle.response_complete:
            self.transport.close()  # this request has its answer, and a second one would be taken for the next one's
            return
        if self._has_cycle() and not self.cycle.response_complete:
            self.cycle.disconnected = True
            self.cycle.set()
            self.refusal = error
        self.transport.write(raw_error_reply(error, _ids.next()))
        self.transport.close()

    def _is_answering(self) -> bool:
        """A reply is under way, or is owed to a request that came whole: nothing else may be written now."""
        if self.pipeline:
            return True
        cycle = self.cycle
        return self._has_cycle() and not cycle.response_complete and (cycle.response_started or not cycle.more_body)

    def _has_cycle(self) -> bool:
        cycle: object = self.cycle  # None before the first request, which uvicorn's annotation leaves out
        return cycle is not None

    def on_response_complete(self) -> None:
        self.server_state.total_requests += 1
        if self.transport.is_closing():
            return
        if self.pipeline:
            cycle, app = self.pipeline.pop()
            self._running = cast("GatewayCycle", cycle)
            self._start_asgi_task(cycle, app)
        elif self._is_spared:
            self.transport.close()
            return
        else:
            self._idle_since_s = self.loop.time()
            self._is_spared = self._is_ending
        self._read_on()

    def _tick(self) -> None:
        """One timer for all limits, which looks at the clock when it fires: a request need not set any."""
        now_s, most_s = self.loop.time(), self._tick_s
        self._began_s = min(self._began_s + now_s - self._tick_at_s, now_s)  # late is who stood still, and read nothing
        if self._in_request and (self.flow.read_paused or self._is_kept_waiting()):
            self._began_s, most_s = now_s, min(most_s, _WAITING_TICK_S)  # it is not the client who is slow
        due_s, was_due = self._due_s(), self._is_due
        self._is_due = due_s <= now_s
        if self._is_due and was_due and not self.transport.is_closing():  # what had come by then was read meanwhile
            self._expire()
        was_stuck, self._is_stuck = self._is_stuck, 0 < self._limits.send_timeout_s <= self.flow.stuck_s(now_s)
        if self._is_stuck and was_stuck:
            reset(self.transport)
        self._tick_at_s = min(max(now_s if self._is_stuck else due_s, now_s + _LEAST_TICK_S), now_s + most_s)
        self._timer = self.loop.call_at(self._tick_at_s, self._tick)

    def _is_kept_waiting(self) -> bool:
        """The request that is still to come is behind another that has no reply yet, or its body was not asked for."""
        running = self._running
        if running is None or running.response_complete:
            return False
        return self._in_head or self.cycle is not running or running.waiting_for_100_continue

    def _due_s(self) -> float:
        """When this connection has had its time; infinite while a reply is under way."""
        limits = self._limits
        if self._running is not None and self._running.response_started and not self._running.response_complete:
            return math.inf  # what is still to come of its request matters no more
        if self._in_request:
            allowed_s = limits.request_timeout_s + self._received_bytes / MIN_RATE_BYTES_S
            return self._began_s + allowed_s if limits.request_timeout_s else math.inf
        return math.inf if self._is_answering() else self._idle_since_s + limits.keep_alive_s

    def _expire(self) -> None:
        if not self._in_request or not self._received_bytes:
            self.transport.close()
            return
        limit_s = self._limits.request_timeout_s
        self._refuse(RequestTimeout(f"The request was not complete within {limit_s:g} s; send it again, faster."))
