"""`gmi-gateway tail`: calls, as they end.

Looks into the ledger each second, for calls that ended since it last looked, and some before: a record may come late.
Ends when it is told to, or when nobody reads on.
"""

import contextlib
import signal
import sys
import time
from dataclasses import dataclass
from datetime import tzinfo
from typing import TYPE_CHECKING, Annotated, Any

import msgspec
import typer

from gateway.cli.asking import Names, StoreDesk, Which, asks_store, shown_time
from gateway.cli.calls import NOT_WELL, cost, document, how_it_ended, tokens
from gateway.cli.printing import drop_output, json_text, visible
from gateway.errors import StoreUnavailable

if TYPE_CHECKING:
    from gateway.metering.ledger_query import Call, CallsQuery

_EVERY_S = 1.0
_LATE_US = 60_000_000
"""How long after its end a call may reach the database and still be shown."""
_LONGEST_US = 6 * 3_600_000_000
"""Of calls that take longer, the end is not seen."""
_PAGE = 500


@dataclass(frozen=True)
class Following:
    """Which calls to show."""

    errors: Annotated[bool, typer.Option("--errors", metavar="", help="Those alone that did not end well.")] = False
    last: Annotated[
        int, typer.Option("--last", "--limit", min=0, max=500, help="How many of before to begin with.")
    ] = 10


@asks_store
async def follow(desk: StoreDesk, following: Following, which: Which) -> None:
    """Show calls as they end, a line for each; until Ctrl-C."""
    import asyncio  # noqa: PLC0415 - with the store

    from gateway.metering.ledger_query import CallsQuery  # noqa: PLC0415

    now_us = _now_us()
    query = CallsQuery(
        since_us=now_us - _LONGEST_US,
        until_us=now_us,
        outcomes=NOT_WELL if following.errors else None,
        limit=_PAGE,
        **await which.filters(desk),
    )
    ends, names = Ends(desk, query, now_us), Names(desk)
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGINT, stop.set)  # in the midst of a query it might be lost
    await _print(desk, names, await ends.before(following.last))
    while not stop.is_set():
        await _print(desk, names, await ends.next())
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_EVERY_S):
                await stop.wait()


class Ends:
    """Calls in the order of their ends, each once."""

    def __init__(self, desk: StoreDesk, query: "CallsQuery", now_us: int) -> None:
        self._desk = desk
        self._query = query
        self._since_us = now_us
        self._seen: dict[str, int] = {}
        """Ends of the calls that were told, by id: as many as may come again."""
        self._is_away = False

    async def before(self, most: int) -> list["Call"]:
        """The last ones, to begin with; none of them comes again."""
        found = await self._ended(self._since_us - _LATE_US)
        self._seen = {call.id: _end_us(call) for call in found}
        if not most:
            return []
        page = await self._desk.ledger.calls(msgspec.structs.replace(self._query, limit=most))
        return sorted(page.calls, key=_end_us)

    async def next(self) -> list["Call"]:
        """Those that were not there yet; none while the database is away."""
        now_us = _now_us()
        try:
            found = await self._ended(self._since_us - _LATE_US)
        except StoreUnavailable:
            self._say_once("The database is away; this goes on when it is back.")
            return []
        self._is_away, self._since_us = False, now_us
        new = [call for call in found if call.id not in self._seen]
        kept = {call_id: end for call_id, end in self._seen.items() if end >= now_us - 2 * _LATE_US}
        self._seen = kept | {call.id: _end_us(call) for call in new}
        return sorted(new, key=_end_us)

    def _say_once(self, text: str) -> None:
        if not self._is_away:
            typer.echo(text, err=True)
        self._is_away = True

    async def _ended(self, since_us: int) -> list["Call"]:
        now_us = _now_us()
        bounds: dict[str, Any] = {
            "since_us": now_us - _LONGEST_US,
            "until_us": now_us + _LATE_US,  # another node's clock may be ahead
            "ended_since_us": since_us,
        }
        query = msgspec.structs.replace(self._query, **bounds)
        page = await self._desk.ledger.calls(query)
        found = [*page.calls]
        while page.next is not None:
            page = await self._desk.ledger.calls(msgspec.structs.replace(query, after=page.next))
            found += page.calls
        return found


def tail(**arguments: Any) -> None:
    """Show calls as they end, a line for each; until Ctrl-C."""
    try:
        follow(**arguments)
    except KeyboardInterrupt:
        return
    except BrokenPipeError:
        # Whoever read the lines has seen enough.
        drop_output()


tail.__signature__ = follow.__signature__  # type: ignore[attr-defined]
tail.__annotations__ = follow.__annotations__


async def _print(desk: StoreDesk, names: Names, calls: list["Call"]) -> None:
    for call in calls:
        await names.learn((call.key_id, call.team_id))
        is_json = desk.printer.as_json
        typer.echo(json_text(document(call, names)) if is_json else visible(_line(call, names, desk.days.zone)))
    if calls and sys.stdout is not None:
        sys.stdout.flush()


def _line(call: "Call", names: Names, zone: tzinfo) -> str:
    used = f"{tokens(call, 'input_tokens')}+{tokens(call, 'output_tokens')} tokens"
    return "  ".join(
        [
            shown_time(_end_us(call), zone),
            f"{call.status or '---'}",
            f"{call.duration_us / 1_000:>7,.0f} ms",
            names.of(call.key_id),
            call.model or call.route,
            used,
            cost(call),
            how_it_ended(call),
            call.id,
        ]
    )


def _end_us(call: "Call") -> int:
    return call.started_at_us + call.duration_us


def _now_us() -> int:
    return time.time_ns() // 1_000
