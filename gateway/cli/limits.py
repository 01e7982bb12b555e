"""`gmi-gateway limits`: what is left of each limit now, and making all of it available again."""

import shlex
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from gateway.cli.administering import Desk, administers
from gateway.cli.api import Refused, remote_api
from gateway.cli.finding import key_named, team_named
from gateway.cli.options import said
from gateway.cli.printing import Record, money, program

if TYPE_CHECKING:
    from gateway.settings import Settings

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
_UNLIMITED = "No limit binds the key that asks. Of another key, or a team: --key-of, --team."
_UNLIMITED_ENDPOINT = "No limit binds all calls together. Of a key or a team: --key-of, --team."
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
    async with _where_they_are_counted(desk) as asked:
        if key is team is endpoint is None:
            if asked.settings is not None:
                raise Refused(
                    "Say whose limits: --key-of, --team or --endpoint. Those of your own key its gateway shows: export"
                    " GATEWAY_URL=http://127.0.0.1:8080 and, as GATEWAY_ADMIN_KEY, the key."
                )
            told = await asked.api.get("/me/limits")
            _show(asked, told, _UNLIMITED)
            await _tell_uncounted(asked, told, {})
            return
        whose = await _whose(asked, key, team, endpoint)
        told = await asked.api.get("/limits", **whose)
        _show(asked, told, "" if told["data"] else await _how_to_limit(asked, key or team, whose))
        await _tell_uncounted(asked, told, whose)


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
    async with _where_they_are_counted(desk) as asked:
        whose = await _whose(asked, key, team)
        told = await asked.api.post("/limits/reset", {**whose, **said(dimension=dimension)})
        if told["data"] or asked.printer.as_json:
            _show(asked, told)
            return
    desk.printer.line(f"This {'key' if team is None else 'team'} has no {_KINDS.get(dimension, 'limits of its own')}.")


@asynccontextmanager
async def _where_they_are_counted(desk: Desk) -> AsyncIterator[Desk]:
    """`desk`, or where limits are in the memory of a gateway that runs on its folder, one that asks that gateway."""
    settings = desk.settings
    url = None if settings is None or settings.redis.url is not None else _running(settings)
    if settings is None or url is None:
        with _none_runs(settings):
            yield desk
        return
    if settings.admin.key is None:
        cure = f"Put an admin key into GATEWAY_ADMIN_KEY. Lost? {program()} keys rotate admins/admin"
        raise Refused(f"Limits are counted in the memory of the gateway at {url}, which wants to be asked. {cure}")
    async with remote_api(url, settings.admin.key.get_secret_value()) as api:
        yield Desk(api, desk.printer, None)


@contextmanager
def _none_runs(settings: "Settings | None") -> Iterator[None]:
    """Says so where the store, which knows no limits in memory, was asked for them. Raises `Refused`."""
    try:
        yield
    except Refused as refused:
        if settings is None or settings.redis.url is not None or refused.status != 409:
            raise
        from gateway.store.residents import residents  # noqa: PLC0415 - whoever asks a gateway need not wait for it

        if residents(Path(settings.server.state_dir)):
            raise
        raise Refused(
            "No gateway runs on this folder, and limits are counted in the memory of one that does; start it, or say"
            " --url where it is."
        ) from None


def _running(settings: "Settings") -> str | None:
    """Where the admin API of the gateway is that runs on the folder of `settings`. Raises `Refused` if several do."""
    from gateway.store.residents import residents  # noqa: PLC0415 - a command that was mistyped need not wait for it

    found = [each.admin_url for each in residents(Path(settings.server.state_dir)) if each.admin_url is not None]
    if len(found) > 1:
        raise Refused(f"Several gateways count limits, each its own. Say by --url which is meant: {', '.join(found)}.")
    return found[0] if found else None


async def _whose(desk: Desk, key: str | None, team: str | None, endpoint: str | None = None) -> dict[str, Any]:
    if sum(name is not None for name in (key, team, endpoint)) != 1:
        raise typer.BadParameter("say whose limits are meant, by one of them", param_hint="--key-of, --team")
    if key is not None:
        return {"key": await key_named(desk.api, key)}
    return said(team=None if team is None else await team_named(desk.api, team), endpoint=endpoint)


async def _how_to_limit(desk: Desk, name: str | None, whose: dict[str, Any]) -> str:
    """What to say of a key or a team, `name` as it was given, that nothing limits."""
    if name is None:
        return _UNLIMITED_ENDPOINT
    kind = "keys" if "key" in whose else "teams"
    found = await desk.api.get(f"/{kind}/{whose[kind[:-1]]}")
    if found["source"] == "settings":
        return f"No limit binds {name}, which cannot be changed here. Make one: {program()} {kind} create --help"
    return f"No limit binds {name}. Set one: {program()} {kind} update {shlex.quote(name)} --rpm 60"


def _show(desk: Desk, told: Record, unlimited: str = "") -> None:
    """`unlimited`: what to say where there is no limit."""
    if desk.printer.as_json:
        desk.printer.json(told)
        return
    if told["mode"] in _MODES:
        desk.printer.line(_MODES[told["mode"]])
    if not told["data"]:
        desk.printer.line(unlimited)
        return
    from gateway.cli.pricing import NO_PRICES, lacks_prices  # noqa: PLC0415 - a command that was mistyped need not wait

    headings = ("whose", "what", "limit", "left", "all is there again in")
    desk.printer.rows(headings, [_row(limit) for limit in told["data"]], prose=headings[-1:], least=headings[-1:])
    if _has_budget(told) and lacks_prices(desk, told):
        desk.printer.line(f"{NO_PRICES[0].upper()}{NO_PRICES[1:]}: see docs/prices.md.")


async def _tell_uncounted(desk: Desk, told: Record, whose: dict[str, Any]) -> None:
    """A budget that some calls go past looks like a cap on all."""
    if desk.printer.as_json or not _has_budget(told):
        return
    from gateway.cli.pricing import lacks_prices, uncounted  # noqa: PLC0415 - as above

    line = None if lacks_prices(desk, told) else await uncounted(desk.api, told, whose)
    if line is not None:
        desk.printer.line(line)


def _has_budget(told: Record) -> bool:
    return any(limit["dimension"] == "budget" for limit in told["data"])


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
