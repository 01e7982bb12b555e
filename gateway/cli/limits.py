"""`gmi-gateway limits`: what is left of each limit now, and making all of it available again."""

from typing import Annotated, Any

import typer

from gateway.cli.administering import Desk, administers
from gateway.cli.api import Refused
from gateway.cli.finding import key_named, team_named
from gateway.cli.options import said
from gateway.cli.printing import Record, money

commands = typer.Typer(name="limits", help="What is left of limits and budgets.", no_args_is_help=True)

KeyOption = Annotated[
    str | None, typer.Option("--key-of", help="Of one key: id, name, or team/name.", show_default=False)
]
TeamOption = Annotated[str | None, typer.Option("--team", help="Of one team: name or id.", show_default=False)]

_UNITS_MS = (("d", 86_400_000), ("h", 3_600_000), ("min", 60_000), ("s", 1_000))
_KINDS: dict[str | None, str] = {
    "requests": "limit of requests",
    "tokens": "limit of tokens",
    "parallel": "limit of parallel calls",
    "budget": "budget",
}
_MODES = {
    "local": "Redis is away: this is what is left of this gateway's share.",
    "closed": "Redis is away: no call is admitted.",
    "open": "Redis is away: every call is admitted, and nothing is counted.",
}


@commands.command("show")
@administers
async def show(
    desk: Desk,
    key: KeyOption = None,
    team: TeamOption = None,
    *,
    endpoint: Annotated[
        str | None, typer.Option("--endpoint", help="Of all calls together: upstream.", show_default=False)
    ] = None,
) -> None:
    """Show what is left now. Of a key: its own limits, its team's, and those of the team's models.

    With --url and nobody named: of the key that asks.
    """
    if key is team is endpoint is None:
        if desk.settings is not None:
            raise Refused(
                "Say whose limits: --key-of, --team or --endpoint. Those of your own key its gateway shows: export"
                " GATEWAY_URL=http://127.0.0.1:8080 and, as GATEWAY_ADMIN_KEY, the key."
            )
        _show(desk, await desk.api.get("/me/limits"))
        return
    whose = await _whose(desk, key, team, endpoint)
    _show(desk, await desk.api.get("/limits", **whose))


@commands.command("reset")
@administers
async def reset(
    desk: Desk,
    key: KeyOption = None,
    team: TeamOption = None,
    *,
    dimension: Annotated[
        str | None,
        typer.Option("--dimension", help="Of this kind alone: requests, tokens, parallel, budget.", show_default=False),
    ] = None,
) -> None:
    """Make all available again. Of a key: its own limits, not its team's; of a team: not its keys'."""
    whose = await _whose(desk, key, team)
    told = await desk.api.post("/limits/reset", {**whose, **said(dimension=dimension)})
    if not told["data"] and not desk.printer.as_json:
        desk.printer.line(
            f"This {'key' if team is None else 'team'} has no {_KINDS.get(dimension, 'limits of its own')}."
        )
        return
    _show(desk, told)


async def _whose(desk: Desk, key: str | None, team: str | None, endpoint: str | None = None) -> dict[str, Any]:
    if sum(name is not None for name in (key, team, endpoint)) != 1:
        raise typer.BadParameter("say whose limits are meant, by one of them", param_hint="--key-of, --team")
    if key is not None:
        return {"key": await key_named(desk.api, key)}
    return said(team=None if team is None else await team_named(desk.api, team), endpoint=endpoint)


def _show(desk: Desk, told: Record) -> None:
    if desk.printer.as_json:
        desk.printer.json(told)
        return
    if told["mode"] in _MODES:
        desk.printer.line(_MODES[told["mode"]])
    if not told["data"]:
        desk.printer.line("Nothing is limited here. Of a key or a team: --key-of, --team.")
        return
    from gateway.cli.pricing import NO_PRICES, lacks_prices  # noqa: PLC0415 - a command that was mistyped need not wait

    headings = ("whose", "what", "limit", "left", "all is there again in")
    desk.printer.rows(headings, [_row(limit) for limit in told["data"]], prose=headings[-1:], least=headings[-1:])
    if any(limit["dimension"] == "budget" for limit in told["data"]) and lacks_prices(desk, told):
        desk.printer.line(f"{NO_PRICES[0].upper()}{NO_PRICES[1:]}: see docs/prices.md.")


def _row(limit: Record) -> tuple[str, ...]:
    what = limit["dimension"] if limit["period"] is None else f"{limit['dimension']}/{limit['period']}"
    return (
        limit["whose"] if limit["model"] is None else f"model {limit['model']}",
        f"{what} (shadow)" if limit["shadow"] else what,
        _amount(limit, limit["limit"]),
        _amount(limit, limit["remaining"]),
        _time(limit["resets_in_ms"]),
    )


def _amount(limit: Record, amount: int) -> str:
    return money(amount) if limit["dimension"] == "budget" else f"{amount:,}"


def _time(time_ms: int | None) -> str:
    """`2 h 5 min`: the two largest units."""
    if not time_ms:
        return ""
    parts, left_ms = [], time_ms
    for unit, unit_ms in _UNITS_MS:
        number, left_ms = divmod(left_ms, unit_ms)
        if number:
            parts.append(f"{number} {unit}")
    return " ".join(parts[:2]) or f"{time_ms} ms"
