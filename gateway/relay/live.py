"""What is known of a call while it goes on, and its one settlement.

A `LiveCall` collects facts as floors learn them and becomes a `CallRecord` exactly once, however the call ends. It
knows the task that carries the call, so that a leaving client or a shutdown can end it.
"""

from os import urandom
from time import perf_counter, time
from typing import TYPE_CHECKING, Protocol

from gateway.call import CallRecord, Due, Makes, Outcome, Principal, Reply, Route, TraceContext, Usage
from gateway.errors import GatewayError
from gateway.metering.late import LONGEST_ID
from gateway.metering.meter import NOTHING, Measured
from gateway.relay.tags import NO_TAGS

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable

    from gateway.access.ownership import Owner
    from gateway.metering.delivered import Sample
    from gateway.metering.late import Late
    from gateway.relay.allowance import Asked
    from gateway.relay.new_ids import NewIds


ENDPOINT = "upstream"
"""The one endpoint that there is."""

_NONE: list[str] = []
_NO_HEADERS: list[tuple[bytes, bytes]] = []


class Wire(Protocol):
    """What a call can do to its client's connection without waiting. A client that is gone takes all."""

    def respond_now(self, status: int, headers: list[tuple[bytes, bytes]], body: bytes, length: bytes | None) -> bool:
        """Send a whole reply; False if nothing was sent because the client is too slow for that.

        `headers` hold no line breaks; `length` is the Content-Length among them, if there is one.
        """

    def write_now(self, piece: bytes) -> bool:
        """Send a further piece of a chunked reply; False if nothing was sent because it must be waited for."""

    holds_end: bool
    """What ends the reply waits for `let_go`, so that the call can be settled before its client has all of it."""

    def let_go(self) -> None:
        """Send what ends the reply, if it waits; what ends it later does not wait any more."""

    def abort(self) -> None:
        """Drop the connection: the only honest end of a reply that broke off."""


class CallIds:
    """Ids of calls: `req_` + 16 hex digits that no other process has + a running number."""

    def __init__(self) -> None:
        self._prefix = b"req_" + urandom(8).hex().encode()
        self._number = 0

    def next(self) -> bytes:
        self._number += 1
        return b"%s%08x" % (self._prefix, self._number)


class LiveCall:
    """One call in flight; `wire` is its client's connection."""

    __slots__ = (
        "asked",
        "body",
        "complete_at",
        "cost_microusd",
        "cut_by",
        "detail",
        "error",
        "first_byte_at",
        "first_write_at",
        "id",
        "in_doubt",
        "in_line",
        "is_background",
        "is_costed",
        "is_free",
        "late",
        "left",
        "limit_headers",
        "longest_gap_s",
        "method",
        "model",
        "names",
        "new_ids",
        "on_end",
        "outcome",
        "outlives_client",
        "owner",
        "pieces",
        "principal",
        "queue_s",
        "removes_usage",
        "route",
        "sample",
        "sent_at",
        "sent_bytes",
        "started_at",
        "status",
        "streamed",
        "tags",
        "task",
        "trace",
        "upstream_error",
        "upstream_request_id",
        "usage",
        "wire",
    )

    def __init__(self, call_id: bytes, method: str, wire: Wire) -> None:  # noqa: PLR0915 - a value for each slot
        self.id = call_id
        self.method = method
        self.wire = wire
        self.started_at = perf_counter()
        self.task: asyncio.Task[object] | None = None
        self.trace: TraceContext | None = None
        self.route: Route | None = None
        self.principal: Principal | None = None
        self.model: str | None = None
        self.names: tuple[str, ...] = ()
        """The names of the model that the key must allow; none where it might be any."""
        self.tags = NO_TAGS
        self.body = b""
        """The request's, as far as it is held."""
        self.asked: Asked | None = None
        """What it was estimated to take, and what was granted."""
        self.limit_headers: list[tuple[bytes, bytes]] = _NO_HEADERS
        """What its client is told of its limits, once they were asked."""
        self.in_doubt: list[str] = _NONE
        """Objects that the body names, of which it is not known yet whether the caller may see them."""
        self.owner: Owner | None = None
        """Whose the object is that the path names."""
        self.new_ids: NewIds | None = None
        self.status = 0
        self.outcome: Outcome | None = None
        self.streamed = False
        self.outlives_client = False
        self.removes_usage = False
        self.left = False
        self.cut_by: GatewayError | None = None
        self.in_line = False
        """It may be waiting for its turn."""
        self.on_end: Callable[[LiveCall], None] | None = None
        """Is called when it is known how the call has ended, before its client gets the last of it."""
        self.is_background = False
        """Its answer is made after its reply, and what it used is known then."""
        self.is_free = False
        """Upstream refused it, or never got all of it."""
        self.queue_s = 0.0
        self.sent_at: float | None = None
        self.first_byte_at: float | None = None
        self.complete_at: float | None = None
        """When all of a reply was there whose head had to wait for that."""
        self.first_write_at: float | None = None
        """When the first of upstream's reply went to the client."""
        self.sent_bytes = 0
        self.pieces = 0
        self.longest_gap_s = 0.0
        self.usage: Usage | None = None
        """As upstream reported it."""
        self.cost_microusd: int | None = None
        """Of that, if `is_costed`."""
        self.is_costed = False
        self.late: Late | None = None
        """What a response in the background has used, of which this call's reply tells."""
        self.sample: Sample | None = None
        """Of its stream's events, from which one that was cut is estimated."""
        self.error: str | None = None
        self.detail = ""
        self.upstream_error: str | None = None
        self.upstream_request_id: str | None = None

    @property
    def may_tell_late(self) -> bool:
        """Whether its reply may tell what a response in the background has used."""
        route = self.route
        return (
            route is not None
            and route.makes is Makes.RESPONSE
            and (self.is_background or route.reply is not Reply.USAGE)
        )

    @property
    def due_id(self) -> str | None:
        """The response that it makes in the background, by which it can be asked how that ended."""
        made = None if self.new_ids is None else self.new_ids.response_id
        return made if made is not None and 0 < len(made) <= LONGEST_ID and made.isprintable() else None

    def client_left(self) -> None:
        """The client's connection is gone: end the call, unless it is over, or had its turn and outlives its client."""
        if self.outcome is None:
            self.left = True
            if (not self.outlives_client or self.in_line) and self.task is not None:
                self.task.cancel()

    def cut(self, reason: GatewayError) -> None:
        """End the call from outside; its client is told `reason`."""
        if self.outcome is None and self.cut_by is None and self.task is not None:
            self.cut_by = reason
            self.task.cancel()

    def uncancel(self) -> None:
        """Take the cancellation back that `cut` asked for, so that the client can still be told."""
        if self.task is not None:
            self.task.uncancel()

    def end(self, outcome: Outcome) -> None:
        """State how the call ended; the first word stands."""
        if self.outcome is None:
            self.outcome = "client_left" if self.left else outcome
            if self.on_end is not None:
                self.on_end(self)

    def fail(self, error: GatewayError) -> None:
        """Note the error that the client is told."""
        self.error = error.code or error.type
        self.detail = error.detail

    def record(self, measured: Measured = NOTHING) -> CallRecord:
        """The finished record, with what was used."""
        usage, source, cost_microusd = measured
        started_at, sent_at = self.started_at, self.sent_at
        duration_s = perf_counter() - started_at
        # In the order of its fields: to find as many by name takes longer than all the rest.
        return CallRecord(
            self.id.decode(),
            self.upstream_request_id,
            self.principal,
            self.route,
            self.method,
            self.model,
            self.status,
            self.outcome or "failed",
            self.streamed,
            time() - duration_s,
            duration_s,
            None if self.first_byte_at is None else self.first_byte_at - started_at,
            None if self.first_write_at is None else self.overhead_s(self.first_write_at),
            self.sent_bytes,
            usage,
            self.error,
            self.upstream_error,
            source,
            cost_microusd,
            None if sent_at is None else ENDPOINT,
            self.queue_s,
            self.tags,
            self.pieces,
            self.longest_gap_s,
            None if sent_at is None else sent_at - started_at,
            self.trace,
            self._due() if source == "due" and self.late is None else None,
        )

    def _due(self) -> Due | None:
        response_id = self.due_id
        if response_id is None:
            return None
        demand = None if self.asked is None else self.asked.demand
        charges = () if demand is None else (*demand.charges, *demand.endpoint)
        return Due(response_id, {charge.rule.id: charge.amount for charge in charges})

    def overhead_s(self, written_at: float) -> float:
        """The gateway's own share of the time until its reply's head was written, at `written_at`."""
        if self.sent_at is None:
            return written_at - self.started_at - self.queue_s
        overhead_s = self.sent_at - self.started_at - self.queue_s
        if self.first_byte_at is None:
            return overhead_s  # an error in place of a reply; when it came up is not known
        return overhead_s + written_at - (self.complete_at or self.first_byte_at)
