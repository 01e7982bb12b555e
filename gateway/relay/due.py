"""Ask upstream how responses in the background have ended which no client asks for.

Every node does so, now and then, for whatever is due in the store. What it hears goes the way that it goes when a
client is told, so it is counted once, whoever hears of it first. It asks as the account, over the connections that
calls take, and few at a time. Knows which answers are final: then nobody knows what was used. That upstream does not
know a response is not, while that is new.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import NamedTuple
from urllib.parse import quote

from gateway.call import CallRecord, Principal, Route
from gateway.metering.due import Answer, Claimed, DueResponses
from gateway.metering.late import Late, ended
from gateway.metering.meter import Meter
from gateway.relay.headers import RequestHeaders
from gateway.relay.late_record import record_of
from gateway.relay.reported import Reported
from gateway.store.chores import Chore
from gateway.upstream.transport import Transport, TransportError, UpstreamReply, UpstreamRequest

MAX_BODY_BYTES = 16 * 1024 * 1024
"""As much as is read of such a response when a client asks for it. Nobody will know what a larger one used."""

_AT_A_TIME = 2
_PATIENCE_S = 30.0
_POLL_S = 5.0
_GONE = frozenset((404, 410))


class Upstream(NamedTuple):
    """How to ask: over `transport`, with `headers`, for paths below `base_path`; no longer than `patience_s`."""

    transport: Transport
    headers: RequestHeaders
    base_path: bytes
    patience_s: float = _PATIENCE_S


class DueAsker(Chore):
    """Asks `upstream` for what is `due`, from `start` to `close`. `route` is what makes responses.

    `find_makers` says whom keys stand for, by id, `note_late` is told what was used.
    """

    def __init__(  # noqa: PLR0913 - whom to ask for what, and whom to tell
        self,
        due: DueResponses,
        upstream: Upstream,
        route: Route,
        meter: Meter,
        find_makers: Callable[[Iterable[str]], Awaitable[Mapping[str, Principal]]],
        note_late: Callable[[CallRecord], None],
        *,
        poll_s: float = _POLL_S,
    ) -> None:
        super().__init__(
            self.ask_for_all,
            failed="Responses in the background cannot be asked for.",
            first_after_s=poll_s,
            every_s=poll_s,
        )
        self._due = due
        self._upstream = upstream
        self._route = route
        self._meter = meter
        self._find_makers = find_makers
        self._note_late = note_late
        self._turns = asyncio.Semaphore(_AT_A_TIME)

    async def ask_for_all(self) -> None:
        """Ask for what is due now, until upstream does not answer. Raises `StoreUnavailable`."""
        while claimed := await self._due.claim():
            makers = await self._find_makers({each.key_id for each in claimed})
            answers = await asyncio.gather(*(self._ask(each, makers.get(each.key_id)) for each in claimed))
            if "failed" in answers:
                return

    async def _ask(self, claimed: Claimed, maker: Principal | None) -> Answer:
        maker = maker or Principal(claimed.key_id, claimed.team_id, claimed.key_id, claimed.team_id)
        async with self._turns:
            answer, late = await self._heard(claimed, maker)
        if answer == "gone" and claimed.is_new:
            answer = "unfinished"
        if late is None and claimed.is_last:
            answer = "given_up"
        self._due.answers[answer] += 1
        if late is not None or answer in ("gone", "given_up"):
            late = late or Late(claimed.response_id, None, None)
            late = late._replace(model=claimed.model or late.model)
            self._note_late(record_of(late, maker, time.time(), self._route, self._meter))
        return answer

    async def _heard(self, claimed: Claimed, maker: Principal) -> tuple[Answer, Late | None]:
        upstream = self._upstream
        target = upstream.base_path + b"/responses/" + quote(claimed.response_id, safe="").encode()
        headers = upstream.headers.build((), {}, maker, content_length=None)
        try:
            async with asyncio.timeout(upstream.patience_s):
                status, body = await self._fetch(UpstreamRequest(b"GET", target, headers))
            if status in _GONE:
                return "gone", None
            if status != 200:
                return "failed", None
            if body is None:
                return "given_up", None
            late = ended(body, claimed.response_id)
        except (TransportError, TimeoutError, ValueError, RecursionError):
            return "failed", None
        return ("unfinished", None) if late is None else ("counted", late)

    async def _fetch(self, request: UpstreamRequest) -> tuple[int, bytes | None]:
        """Status and body, None where that is too long."""
        reply = await self._upstream.transport.send(request)
        try:
            return reply.status, await _read(reply)
        finally:
            reply.close()


async def _read(reply: UpstreamReply) -> bytes | None:
    body = bytearray()
    while piece := await reply.read():
        body += piece
        if len(body) > MAX_BODY_BYTES:
            return None
    return await Reported(dict(reply.headers)).text_of(bytes(body))
