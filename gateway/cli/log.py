"""`gmi-gateway audit`: who did what, when, from where."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Annotated

import typer

from gateway.cli.administering import Desk, administers
from gateway.cli.api import Refused
from gateway.cli.finding import key_named
from gateway.cli.options import read
from gateway.cli.printing import Record, differences, moment
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


@administers
async def audit(
    desk: Desk, filters: Filters, limit: Annotated[int, typer.Option("--limit", min=1, help="Most to show.")] = 50
) -> None:
    """List what was changed, newest first."""
    entries = await desk.api.listed(
        "/audit",
        limit,
        object_id=None if filters.key is None else await key_named(desk.api, filters.key),
        team=filters.team,
        actor=filters.actor,
        action=filters.action,
        since=_said("--since", filters.since),
        until=_said("--until", filters.until),
    )
    if desk.printer.as_json:
        desk.printer.json(entries)
        return
    names = {entry["actor"]: await _name(desk, entry["actor"]) for entry in entries}
    headings = ("when", "who", "did", "to", "what", "from")
    rows = [_row(entry, names.__getitem__) for entry in entries]
    desk.printer.rows(headings, rows, prose=("to", "what"), least=("from",))


def _said(option: str, text: str | None) -> int | None:
    now = datetime.now().astimezone()
    return None if text is None else read(option, lambda said: moments.since(said, now), text)


async def _name(desk: Desk, actor: str) -> str:
    """Of a key; others, and keys that may not be seen, are shown as they are."""
    if not actor.startswith("key_"):
        return actor
    try:
        key = await desk.api.get(f"/keys/{actor}")
    except Refused:
        return actor
    return f"{key['team']}/{key['name']}"


def _row(entry: Record, name_of: Callable[[str], str]) -> tuple[str, ...]:
    subject = entry["after"] or entry["before"] or {}
    return (
        moment(entry["at"]),
        name_of(entry["actor"]),
        entry["action"],
        f"{subject.get('name', '')} ({entry['object_id']})".lstrip(),
        differences(entry["before"], entry["after"]),
        entry["address"] or "",
    )
