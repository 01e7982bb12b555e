"""`gmi-gateway audit`: who did what, when, from where."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Annotated, Any

import typer

from gateway.cli.administering import Desk, administers
from gateway.cli.api import Refused
from gateway.cli.finding import key_named, team_filter
from gateway.cli.options import read
from gateway.cli.printing import Record, differences, second
from gateway.metering import moments


@dataclass(frozen=True)
class Filters:
    """Which changes to list."""

    key: Annotated[str | None, typer.Option("--key-of", help="Of one key: id, name, or team/name.")] = None
    team: Annotated[str | None, typer.Option("--team", help="Within one team: name or id.")] = None
    actor: Annotated[str | None, typer.Option("--actor", help="By whom: id of a key, cli, settings.")] = None
    action: Annotated[str | None, typer.Option("--action", help="Such as key.rotate; or key, team.")] = None
    since: Annotated[str | None, typer.Option("--since", metavar="7d|today|2027-01-31", help="From then on.")] = None
    until: Annotated[str | None, typer.Option("--until", metavar="today|2027-01-31", help="Before then.")] = None

    def __post_init__(self) -> None:
        self.times()

    def times(self) -> dict[str, Any]:
        """`since` and `until` in Unix time. Raises BadParameter."""
        return {"since": _said("--since", self.since), "until": _said("--until", self.until)}


@administers
async def audit(
    desk: Desk, filters: Filters, limit: Annotated[int, typer.Option("--limit", min=1, help="Most to show.")] = 50
) -> None:
    """List what was changed, newest first."""
    entries = await desk.api.listed(
        "/audit",
        limit,
        object_id=None if filters.key is None else await key_named(desk.api, filters.key, ended=True),
        team=await team_filter(desk.api, filters.team),
        actor=filters.actor,
        action=filters.action,
        **filters.times(),
    )
    if desk.printer.as_json:
        desk.printer.json(entries)
        return
    ids = {named for entry in entries for named in (entry["actor"], _team_of(entry))}
    names = {each: await _name(desk, each) for each in ids}
    headings = ("when", "who", "did", "to", "what", "from")
    rows = [_row(entry, names.__getitem__) for entry in entries]
    desk.printer.rows(headings, rows, prose=("to", "what"), least=("from",))


def _said(option: str, text: str | None) -> int | None:
    now = datetime.now().astimezone()
    return None if text is None else read(option, lambda said: moments.since(said, now), text)


def _team_of(entry: Record) -> str:
    """The id of the team whose key was changed; empty where it was no key that was."""
    return str(entry["team_id"]) if entry["object_id"].startswith("key_") else ""


async def _name(desk: Desk, named: str) -> str:
    """Of a key or a team; others, and those that may not be seen, are shown as they are."""
    kind = {"key_": "keys", "team": "teams"}.get(named[:4])
    if kind is None:
        return named
    try:
        found = await desk.api.get(f"/{kind}/{named}")
    except Refused:
        return named
    return f"{found['team']}/{found['name']}" if kind == "keys" else str(found["name"])


def _row(entry: Record, name_of: Callable[[str], str]) -> tuple[str, ...]:
    subject, team = entry["after"] or entry["before"] or {}, _team_of(entry)
    name = subject.get("name", "")
    return (
        second(entry["at"]),
        name_of(entry["actor"]),
        entry["action"],
        f"{f'{name_of(team)}/{name}' if team else name} ({entry['object_id']})".lstrip(),
        differences(entry["before"], entry["after"]),
        entry["address"] or "",
    )
