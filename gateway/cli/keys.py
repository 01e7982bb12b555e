"""`gmi-gateway keys`."""

import time
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Annotated, Any

import typer

from gateway.cli import values
from gateway.cli.administering import Desk, administers, check_secrets_can_be_shown, printed, warn_of_prices
from gateway.cli.finding import key_named, team_filter, team_named
from gateway.cli.options import Edits, Terms, read, said
from gateway.cli.printing import Record, moment, program, terms_of
from gateway.cli.teams import LimitOption
from gateway.cli.transfer import export, import_
from gateway.metering import moments

_LEAST = ("secret", "expires", "last used", "owner", "role")
"""Columns that a narrow window may do without."""

commands = typer.Typer(name="keys", help="Virtual keys: one for each person or job.", no_args_is_help=True)

KeyArgument = Annotated[str, typer.Argument(metavar="KEY", help="Id, name, or team/name.", show_default=False)]


@dataclass(frozen=True)
class Members:
    """What a key has besides terms."""

    owner: Annotated[str | None, typer.Option("--owner", help="Whose it is.", show_default=False)] = None
    role: Annotated[
        str | None, typer.Option("--role", help="member (the default), team_admin or admin.", show_default=False)
    ] = None
    expires: Annotated[
        str | None,
        typer.Option(
            "--expires",
            metavar="30d|2027-01-31|never",
            help="When it stops working; a day is meant to its end.",
            show_default=False,
        ),
    ] = None

    def __post_init__(self) -> None:
        self.members()

    def members(self) -> dict[str, Any]:
        """Those of a request. Raises BadParameter."""
        members = said(owner=self.owner, role=self.role)
        if self.expires is not None:
            now = datetime.now().astimezone()
            members["expires_at"] = read("--expires", lambda text: values.expiry(text, now), self.expires)
        return members


@dataclass(frozen=True)
class Grace:
    """How a key's old secret ends."""

    grace: Annotated[
        str | None,
        typer.Option("--grace", metavar="1h", help="How long the old secret works too; not at all by default."),
    ] = None

    def __post_init__(self) -> None:
        self.seconds()

    def seconds(self) -> int:
        """How long it works too. Raises BadParameter."""
        return 0 if self.grace is None else read("--grace", moments.duration_s, self.grace)


@dataclass(frozen=True)
class Filters:
    """Which keys to list."""

    team: Annotated[str | None, typer.Option("--team", help="Name or id of a team.")] = None
    name: Annotated[str | None, typer.Option("--name", help="Part of the name.")] = None
    owner: Annotated[str | None, typer.Option("--owner", help="Whose they are.")] = None
    role: Annotated[str | None, typer.Option("--role", help="member, team_admin or admin.")] = None
    state: Annotated[str | None, typer.Option("--state", help="active, disabled or revoked.")] = None
    tag: Annotated[str | None, typer.Option("--tag", help="NAME or NAME=VALUE.")] = None
    expired: Annotated[bool | None, typer.Option("--expired/--not-expired", metavar="", help="By their expiry.")] = None
    sort: Annotated[str | None, typer.Option("--sort", help="Such as name or -last_used_at.")] = None


@commands.command("create")
@administers
async def create(
    desk: Desk,
    team: Annotated[str, typer.Option("--team", help="Name or id of its team.")],
    name: Annotated[str, typer.Option("--name", help="Its name, one of its own within the team.")],
    terms: Terms,
    members: Members,
) -> None:
    """Make a key, and print its secret, this once."""
    check_secrets_can_be_shown()
    body = {"team": team, "name": name, **members.members(), **terms.members()}
    await team_named(desk.api, team)
    key = await desk.api.post("/keys", body)
    if terms.budget_usd:
        await warn_of_prices(desk, key)
    _show_issued(desk, key)


@commands.command("list")
@administers
async def list_keys(
    desk: Desk,
    filters: Filters,
    limit: LimitOption = None,
    *,
    revoked: Annotated[bool, typer.Option("--all", metavar="", help="Revoked keys too.")] = False,
) -> None:
    """List keys; those that were revoked only if asked for."""
    keep = None if revoked or filters.state is not None else _is_alive
    asked = {**asdict(filters), "team": await team_filter(desk.api, filters.team)}
    keys = await desk.api.listed("/keys", limit, keep=keep, **asked)
    if desk.printer.as_json:
        desk.printer.json(keys)
        return
    headings = ("id", "team", "name", "owner", "role", "state", "secret", "last used", "expires")
    desk.printer.rows(headings, [_row(key) for key in keys], least=_LEAST)


@commands.command("show")
@administers
async def show(desk: Desk, key: KeyArgument) -> None:
    """Show one key, without its secret; also one that was revoked."""
    _show(desk, await desk.api.get(f"/keys/{await key_named(desk.api, key, ended=True)}"))


@commands.command("update")
@administers
async def update(desk: Desk, key: KeyArgument, terms: Terms, members: Members, edits: Edits) -> None:
    """Change what is said, and leave the rest. none, any and never lift what binds."""
    changes = edits.members(terms.members(), members.members())
    changed = await desk.api.patch(f"/keys/{await key_named(desk.api, key)}", changes)
    if terms.budget_usd:
        await warn_of_prices(desk, changed)
    _show(desk, changed)


@commands.command("rotate")
@administers
async def rotate(desk: Desk, key: KeyArgument, grace: Grace) -> None:
    """Replace a key's secret, and print the new one, this once."""
    check_secrets_can_be_shown()
    path = f"/keys/{await key_named(desk.api, key)}/rotate"
    _show_issued(desk, await desk.api.post(path, {"grace_s": grace.seconds()}))


@commands.command("disable")
@administers
async def disable(desk: Desk, key: KeyArgument) -> None:
    """Stop a key, until it is enabled."""
    _show(desk, await desk.api.post(f"/keys/{await key_named(desk.api, key)}/disable"))


@commands.command("enable")
@administers
async def enable(desk: Desk, key: KeyArgument) -> None:
    """Let a disabled key work again."""
    _show(desk, await desk.api.post(f"/keys/{await key_named(desk.api, key)}/enable"))


@commands.command("revoke")
@administers
async def revoke(desk: Desk, key: KeyArgument) -> None:
    """End a key for good."""
    _show(desk, await desk.api.post(f"/keys/{await key_named(desk.api, key)}/revoke"))


commands.command("export")(administers(export))
commands.command("import")(administers(import_))


def _row(key: Record) -> tuple[str, ...]:
    return (
        key["id"],
        key["team"],
        key["name"],
        key["owner"] or "",
        key["role"],
        _state(key),
        f"…{key['hint']}",
        moment(key["last_used_at"]) or "never",
        moment(key["expires_at"]) or "never",
    )


def _is_alive(key: Record) -> bool:
    return bool(key["state"] != "revoked")


def _state(key: Record) -> str:
    """Why it does not work, where it does not."""
    if key["state"] != "active":
        return str(key["state"])
    if key["expires_at"] is not None and key["expires_at"] <= time.time():
        return "expired"
    return "active" if key["team_state"] == "active" else f"team {key['team_state']}"


def _facts(key: Record) -> list[tuple[str, str]]:
    return [
        ("id", key["id"]),
        ("team", key["team"]),
        ("name", key["name"]),
        ("owner", key["owner"] or ""),
        ("role", key["role"]),
        ("state", _state(key)),
        ("declared by", key["source"]),
        ("secret", f"…{key['hint']}"),
        ("old secret until", moment(key["grace_until"])),
        *terms_of(key),
        ("expires", moment(key["expires_at"]) or "never"),
        ("last used", moment(key["last_used_at"]) or "never"),
        ("made", moment(key["created_at"])),
        ("changed", moment(key["updated_at"])),
        ("rotated", moment(key["rotated_at"])),
    ]


def _show(desk: Desk, key: Record) -> None:
    if desk.printer.as_json:
        desk.printer.json(key)
        return
    desk.printer.facts(_facts(key))


def _show_issued(desk: Desk, key: Record) -> None:
    lost = f"The secret of {key['team']}/{key['name']} could not be printed and is lost"
    with printed(f"{lost}. Get another with {program()} keys rotate {key['id']}."):
        _show(desk, key)
        if not desk.printer.as_json:
            desk.printer.secret(key["secret"])
