"""Changes to teams, each within one transaction: permitted, legal, fitting, then stored."""

import msgspec
from sqlalchemy import select

from gateway.access import rules
from gateway.access.admins import check_an_admin_remains
from gateway.access.change import Change, new_id
from gateway.access.drafts import TeamDraft
from gateway.access.records import Team
from gateway.access.validity import legal_team
from gateway.errors import Conflict, PreconditionFailed
from gateway.store.tables import keys
from gateway.terms import State


async def make_team(change: Change, draft: TeamDraft, route_groups: frozenset[str], *, state: State = "active") -> Team:
    """A new team."""
    rules.require_admin(change.authority)
    draft = legal_team(draft, route_groups)
    rules.check_team_grants(change.authority, draft.grants)
    await _check_name_is_free(change, draft.name)
    team = Team(
        id=new_id("team"),
        state=state,
        source="api",
        version=1,
        created_at=change.now,
        updated_at=change.now,
        **msgspec.structs.asdict(draft),
    )
    return await change.add_team(team)


async def revise_team(change: Change, before: Team, draft: TeamDraft, route_groups: frozenset[str]) -> Team:
    """`before` made to what `draft` says; nothing is written if that is what it is."""
    rules.require_team_admin(change.authority)
    # A group that has left the route table may stay where it is.
    after = _with(before, legal_team(draft, route_groups | frozenset(before.grants.routes or ())))
    rules.check_changes_team(change.authority, before, after)
    if after == before:
        return before
    if after.name != before.name:
        await _check_name_is_free(change, after.name)
        await _check_is_not_declared(change, before)
    return await change.replace_team(before, after)


async def set_team_state(change: Change, before: Team, state: State) -> Team:
    """Disable or enable a team; nothing is written if it is in that state."""
    rules.require_admin(change.authority)
    if before.source == "settings":
        raise rules.declared("team", before.name)
    if before.state == state:
        return before
    if state == "disabled":
        await check_an_admin_remains(change, without_team=before.id)
    action = "team.enable" if state == "active" else "team.disable"
    return await change.replace_team(before, msgspec.structs.replace(before, state=state), action)


def check_version(current: int, version: int | None) -> None:
    """Whether the caller has seen what they change. Raises `PreconditionFailed`."""
    if version is not None and version != current:
        raise PreconditionFailed(f"It has changed since: its version is {current}. Read it again, then change it.")


def _with(team: Team, draft: TeamDraft) -> Team:
    return msgspec.structs.replace(team, **msgspec.structs.asdict(draft))


async def _check_name_is_free(change: Change, name: str) -> None:
    if await change.team_named(name) is not None:
        raise Conflict(f"There is a team of the name {name!r} already. Choose another name.", param="name")


async def _check_is_not_declared(change: Change, team: Team) -> None:
    """The settings name teams by name: under another one they would not find their keys again."""
    query = select(keys.c.id).where(keys.c.team_id == team.id, keys.c.source == "settings", keys.c.state == "active")
    if (await change.connection.execute(query.limit(1))).first() is not None:
        raise Conflict("The settings declare keys in this team, by its name. Change them there first.", param="name")
