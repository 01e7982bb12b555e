"""What commands that ask the ledger have in common: they reach it, say which calls are meant, and put names to ids.

Knows the options for that. The ledger is the store's, or that of a running gateway; what a gateway has in its journal
is there within a second.
"""

import contextlib
import os
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime, tzinfo
from typing import TYPE_CHECKING, Annotated, Any

import typer

from gateway.cli import values
from gateway.cli.administering import Command, Desk, api_of, do, settings_of
from gateway.cli.api import Api, Refused
from gateway.cli.finding import key_named, team_named
from gateway.cli.options import ConfigOption, Where, expand, read, read_all
from gateway.cli.printing import Printer
from gateway.errors import BadRequest
from gateway.metering import moments

if TYPE_CHECKING:
    from gateway.cli.remote_ledger import RemoteLedger
    from gateway.metering.ledger_queries import LedgerQueries
    from gateway.metering.rollups import Days
    from gateway.settings import Settings

_SECOND_US = 1_000_000
_FEW = 50
"""Names that are looked up one by one; lists have 200 a page."""
_WORDS = {"group_by": "--by", "limit": "--limit", "sort": "--sort"}
"""How a question's members are called here."""


@dataclass(frozen=True)
class Source:
    """Whose store, and how what it says is shown."""

    config: ConfigOption = None
    json: Annotated[bool, typer.Option("--json", metavar="", help="Print JSON, for scripts.")] = False


@dataclass(frozen=True)
class LedgerDesk(Desk):
    """What every such command works with."""

    ledger: "LedgerQueries | RemoteLedger"
    days: "Days"
    own: Mapping[str, str] | None = None
    """Of a member's key, which sees no other: the names of it and its team, by their ids."""


@dataclass(frozen=True)
class StoreDesk(LedgerDesk):
    """What those that read the store alone work with."""

    settings: "Settings"
    ledger: "LedgerQueries"


@dataclass(frozen=True)
class Which:
    """Which calls are meant."""

    team: Annotated[str | None, typer.Option("--team", help="Of one team: name or id.", show_default=False)] = None
    key: Annotated[
        str | None, typer.Option("--key-of", help="Of one key: id, name, or team/name.", show_default=False)
    ] = None
    model: Annotated[
        list[str] | None, typer.Option("--model", help="Of this model; may be repeated.", show_default=False)
    ] = None
    route: Annotated[
        list[str] | None,
        typer.Option("--route", help="To this route: /v1/chat/completions; may be repeated.", show_default=False),
    ] = None
    tag: Annotated[
        list[str] | None,
        typer.Option("--tag", metavar="NAME=VALUE", help="With this tag; may be repeated.", show_default=False),
    ] = None

    def __post_init__(self) -> None:
        self.tags()

    def tags(self) -> dict[str, str]:
        """Those that were asked for. Raises BadParameter."""
        return dict(read_all("--tag", values.tag, self.tag))

    async def filters(self, desk: LedgerDesk) -> dict[str, Any]:
        """Members of a question to the ledger. Raises `Refused`, BadParameter."""
        if desk.own is not None and (self.team, self.key) != (None, None):
            raise Refused("This key is a member's, and sees its own calls alone. Leave out --team and --key-of.")
        # An id is looked up too: of a team that is not there, nothing used is no answer.
        team = None if self.team is None else await desk.api.get(f"/teams/{await team_named(desk.api, self.team)}")
        key = (
            None if self.key is None else await desk.api.get(f"/keys/{await key_named(desk.api, self.key, ended=True)}")
        )
        return {
            "team_ids": None if team is None else (team["id"],),
            "key_ids": None if key is None else (key["id"],),
            "models": None if self.model is None else tuple(self.model),
            "routes": None if self.route is None else tuple(map(_route, self.route)),
            "tags": self.tags(),
        }


def _route(text: str) -> str:
    """`chat/completions` is enough."""
    return text if text.startswith("/") else f"/v1/{text}"


class Names:
    """Names of teams and keys by their ids; of those that the store does not know, the id."""

    def __init__(self, desk: LedgerDesk) -> None:
        self._api = desk.api
        self._known = dict(desk.own or {})

    async def learn(self, ids: Iterable[str]) -> None:
        """Look these up, so that `of` knows them."""
        missing = {each for each in ids if each not in self._known}
        if len(missing) > _FEW:
            await self._learn_all()
        for each in missing - self._known.keys():
            self._known[each] = await self._look_up(each)

    def of(self, object_id: str) -> str:
        """`engines` of a team, `engines/ada` of a key."""
        return self._known[object_id]

    async def _learn_all(self) -> None:
        for team in await self._api.listed("/teams"):
            self._known[team["id"]] = str(team["name"])
        for key in await self._api.listed("/keys"):
            self._known[key["id"]] = f"{key['team']}/{key['name']}"

    async def _look_up(self, object_id: str) -> str:
        kind = "keys" if object_id.startswith("key_") else "teams"
        try:
            found = await self._api.get(f"/{kind}/{object_id}")
        except Refused:
            return object_id
        return f"{found['team']}/{found['name']}" if kind == "keys" else str(found["name"])


def asks(command: Command) -> Callable[..., None]:
    """`command(desk, ...)` as a typer command, with the options of `Where` beside its own.

    `desk` is a `LedgerDesk`.
    """

    def run(arguments: dict[str, Any]) -> None:
        context: typer.Context | None = arguments.get("_context")
        if context is not None and context.invoked_subcommand is not None:
            # Its word stands after this command's, which is then only where it is to be found.
            return
        do(_work(command, arguments.pop("where"), arguments))

    return expand(command, run, given="desk", added={"where": Where})


def asks_store(command: Command) -> Callable[..., None]:
    """The same with the options of `Source`; `desk` is a `StoreDesk`."""

    def run(arguments: dict[str, Any]) -> None:
        source: Source = arguments.pop("source")
        do(_work(command, Where(config=source.config, json=source.json), arguments))

    return expand(command, run, given="desk", added={"source": Source})


async def _work(command: Command, where: Where, arguments: dict[str, Any]) -> None:
    from gateway.cli.migration import place_of, unusable  # noqa: PLC0415 - a command that was mistyped need not wait

    settings = settings_of(where)
    if settings is not None and os.environ.get("GATEWAY_URL"):
        # Without --url among its options, it would be read as if its answer were that gateway's.
        place = place_of(settings)
        typer.echo(
            f"This reads the store that the settings here name ({place}), and does not ask GATEWAY_URL.", err=True
        )
    async with api_of(where, settings) as api, _desk(api, settings, Printer(as_json=where.json)) as desk:
        try:
            with contextlib.nullcontext() if settings is None else unusable(settings):
                await command(desk, **arguments)
        except BadRequest as error:
            name = error.param or ""
            message = error.message.removeprefix(f"{name} ")
            raise typer.BadParameter(message, param_hint=_WORDS.get(name, name)) from None


@asynccontextmanager
async def _desk(api: Api, settings: "Settings | None", printer: Printer) -> AsyncIterator[LedgerDesk]:
    # SQLAlchemy takes longer to import than all that other commands need.
    from zoneinfo import ZoneInfo  # noqa: PLC0415

    from gateway.cli.remote_ledger import RemoteLedger  # noqa: PLC0415
    from gateway.metering.ledger_queries import LedgerQueries  # noqa: PLC0415
    from gateway.metering.rollups import Days  # noqa: PLC0415
    from gateway.store.engine import Store  # noqa: PLC0415
    from gateway.store.url import database_url  # noqa: PLC0415

    if settings is None:
        own = await _own(api)
        remote = RemoteLedger(api, is_own=own is not None)
        yield LedgerDesk(api, printer, None, remote, Days(await remote.zone()), own)
        return
    days = Days(ZoneInfo(settings.limits.time_zone))
    store = Store(database_url(settings), pool_size=1, timeout_s=settings.database.timeout_s)
    try:
        yield StoreDesk(api, printer, settings, LedgerQueries(store, days), days)
    finally:
        await store.close()


async def _own(api: Api) -> dict[str, str] | None:
    me = await api.get("/me")
    key, team = me["key"], me["team"]
    is_member = key["role"] == "member"
    return {key["id"]: f"{team['name']}/{key['name']}", team["id"]: team["name"]} if is_member else None


def begin_us(option: str, text: str, days: "Days") -> int:
    """The moment of `12h` ago, of a day or a time, as `moments.since` has it; in microseconds.

    Of whole days sums by day answer, which are kept for longer than single calls. Raises BadParameter.
    """
    now = datetime.now(days.zone)
    return read(option, lambda said: moments.since(said, now), text) * _SECOND_US


def end_us(option: str, text: str | None, days: "Days") -> int:
    """The same for the end of a time; without one, the end of today."""
    if text is not None:
        return begin_us(option, text, days)
    today = days.of(int(datetime.now(days.zone).timestamp()) * _SECOND_US)
    return days.begin_us(today + 1)


def shown_time(at_us: int, zone: tzinfo) -> str:
    """`2026-11-22 12:00:00`, in that zone."""
    return datetime.fromtimestamp(at_us // _SECOND_US, zone).strftime("%Y-%m-%d %H:%M:%S")
