"""`gmi-gateway calls`: single calls, how each ended, and where its time went. No prompt and no answer is kept."""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import tzinfo
from typing import TYPE_CHECKING, Annotated, Any, get_args

import msgspec
import typer

from gateway.call import Outcome
from gateway.cli.api import Refused
from gateway.cli.asking import LedgerDesk, Names, Which, asks, begin_us, end_us, shown_time
from gateway.cli.options import read
from gateway.cli.printing import program, tags
from gateway.limits.answers import dollars

if TYPE_CHECKING:
    from gateway.metering.ledger_query import Call

commands = typer.Typer(name="calls", help="Single calls: how they ended, where their time went.", no_args_is_help=True)

OUTCOMES: tuple[Outcome, ...] = get_args(Outcome)
NOT_WELL: tuple[Outcome, ...] = tuple(each for each in OUTCOMES if each not in ("done", "client_left"))
"""Calls that whoever made them would want to have ended otherwise."""
_STATUSES = {"none": 0, "1xx": 1, "2xx": 2, "3xx": 3, "4xx": 4, "5xx": 5}
_NUMBERS = ("status", "input", "output", "cost", "ms")
_LEAST = ("route", "ms", "output", "input", "cost", "model", "how it ended", "status")
"""Columns that a narrow window may do without: of one call, `calls show` tells all."""
_PAGE = 500


@dataclass(frozen=True)
class How:
    """When calls were, and how they ended."""

    since: Annotated[str, typer.Option("--since", metavar="7d|12h|today|2027-01-31", help="From then on.")] = "7d"
    until: Annotated[
        str | None, typer.Option("--until", metavar="1h|today|2027-01-31", help="Before then.", show_default=False)
    ] = None
    outcome: Annotated[
        list[str] | None,
        typer.Option("--outcome", help=f"One of {', '.join(OUTCOMES)}; may be repeated.", show_default=False),
    ] = None
    status: Annotated[
        str | None, typer.Option("--status", metavar="2xx|4xx|5xx|none", help="By its class.", show_default=False)
    ] = None
    error: Annotated[
        str | None, typer.Option("--error", help="Code of the error: rate_limit_exceeded.", show_default=False)
    ] = None
    errors: Annotated[bool, typer.Option("--errors", metavar="", help="All that did not end well.")] = False

    def __post_init__(self) -> None:
        self.outcomes()
        self.status_classes()

    def outcomes(self) -> tuple[Outcome, ...] | None:
        """Those that were asked for. Raises BadParameter."""
        if self.errors:
            return NOT_WELL
        if self.outcome is None:
            return None
        return tuple(read("--outcome", _outcome, each) for each in self.outcome)

    def status_classes(self) -> tuple[int, ...] | None:
        """The same of the status. Raises BadParameter."""
        return None if self.status is None else (read("--status", _status, self.status),)


@commands.command("list")
@asks
async def list_calls(
    desk: LedgerDesk,
    which: Which,
    how: How,
    limit: Annotated[int, typer.Option("--limit", "--last", min=1, help="Most to show.")] = 50,
) -> None:
    """List calls, newest first."""
    from gateway.metering.ledger_query import CallsQuery  # noqa: PLC0415 - with the store

    query = CallsQuery(
        since_us=begin_us("--since", how.since, desk.days),
        until_us=end_us("--until", how.until, desk.days),
        outcomes=how.outcomes(),
        status_classes=how.status_classes(),
        errors=None if how.error is None else (how.error,),
        limit=min(limit, _PAGE),
        **await which.filters(desk),
    )
    page = await desk.ledger.calls(query)
    found = [*page.calls]
    while page.next is not None and len(found) < limit:
        page = await desk.ledger.calls(msgspec.structs.replace(query, after=page.next))
        found += page.calls
    await _show_all(desk, found[:limit])


@commands.command("show")
@asks
async def show(
    desk: LedgerDesk,
    call: Annotated[str, typer.Argument(metavar="ID", help="The x-gateway-request-id of its reply.")],
) -> None:
    """Show one call; it is there about a second after its end."""
    found = await desk.ledger.call(call)
    if found is None:
        raise Refused(f"There is no call {call} {desk.api.place}. See {program()} calls list.")
    names = await names_of(desk, [found])
    if desk.printer.as_json:
        desk.printer.json(document(found, names))
        return
    desk.printer.facts(_facts(found, names, desk.days.zone))


async def names_of(desk: LedgerDesk, calls: Iterable["Call"]) -> Names:
    """Names of the keys and teams of these."""
    names = Names(desk)
    for call in calls:
        await names.learn((call.key_id, call.team_id))
    return names


def document(call: "Call", names: Names) -> dict[str, Any]:
    """A call for scripts: as the ledger has it, and names."""
    return {**msgspec.structs.asdict(call), "team": names.of(call.team_id), "key": names.of(call.key_id)}


def cost(call: "Call") -> str:
    """`$0.000012`; `unknown`, or `unpriced`, where there is none."""
    if call.cost_microusd is None:
        return "unknown" if call.usage is None else "unpriced"
    if call.usage_source == "due":
        return "due"
    return f"{'~' if call.usage_source == 'estimated' else ''}{dollars(call.cost_microusd)}"


def tokens(call: "Call", kind: str) -> str:
    """`1,200`, `~1,200` where it is estimated, or why there is no number."""
    if call.usage is None:
        return "0" if call.usage_source == "none" else call.usage_source
    return f"{'~' if call.usage_source == 'estimated' else ''}{call.usage[kind]:,}"


def how_it_ended(call: "Call") -> str:
    """`done`, or with the codes of errors and the limit: `refused: rate_limit_exceeded, key/requests/minute`."""
    codes = ", ".join(code for code in (call.error, call.refused_by, call.upstream_error) if code)
    return f"{call.outcome}: {codes}" if codes else call.outcome


async def _show_all(desk: LedgerDesk, calls: list["Call"]) -> None:
    names = await names_of(desk, calls)
    if desk.printer.as_json:
        desk.printer.json([document(call, names) for call in calls])
        return
    headings = (f"when ({desk.days.zone})", "id", "key", "route", "model", *_NUMBERS, "how it ended")
    rows = [_row(call, names, desk.days.zone) for call in calls]
    desk.printer.rows(headings, rows, numbers=_NUMBERS, prose=("how it ended",), least=_LEAST)


def _row(call: "Call", names: Names, zone: tzinfo) -> list[str]:
    return [
        shown_time(call.started_at_us, zone),
        call.id,
        names.of(call.key_id),
        call.route,
        call.model or "",
        str(call.status or "none"),
        tokens(call, "input_tokens"),
        tokens(call, "output_tokens"),
        cost(call),
        f"{call.duration_us / 1_000:,.0f}",
        how_it_ended(call),
    ]


def _facts(call: "Call", names: Names, zone: tzinfo) -> list[tuple[str, str]]:
    used = {} if call.usage is None else {kind: count for kind, count in call.usage.items() if count}
    return [
        ("id", call.id),
        ("began", f"{shown_time(call.started_at_us, zone)} {zone}"),
        ("key", f"{names.of(call.key_id)} ({call.key_id})"),
        ("team", f"{names.of(call.team_id)} ({call.team_id})"),
        ("call", f"{call.method} {call.route}{', streamed' if call.streamed else ''}"),
        ("model", call.model or ""),
        ("status", str(call.status or "none was sent")),
        ("ended", how_it_ended(call)),
        ("went to", call.endpoint or "nowhere"),
        ("upstream's id", call.upstream_request_id or ""),
        ("usage", f"{call.usage_source}{''.join(f', {count:,} {kind}' for kind, count in used.items())}"),
        ("cost", cost(call)),
        ("took", _ms(call.duration_us)),
        ("waited for its turn", _ms(call.queue_us)),
        ("gateway's own share", _ms(call.overhead_us)),
        ("first byte after", _ms(call.first_byte_us)),
        ("bytes sent", f"{call.sent_bytes:,}"),
        ("tags", tags(call.tags)),
    ]


def _ms(time_us: int | None) -> str:
    return "" if time_us is None else f"{time_us / 1_000:,.3f} ms"


def _outcome(text: str) -> Outcome:
    found = next((each for each in OUTCOMES if each == text), None)
    if found is None:
        raise ValueError(f"must be one of {', '.join(OUTCOMES)}")
    return found


def _status(text: str) -> int:
    if text not in _STATUSES:
        raise ValueError(f"must be one of {', '.join(_STATUSES)}")
    return _STATUSES[text]
