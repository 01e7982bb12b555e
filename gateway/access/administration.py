"""Teams, keys and audit: all that can be asked and changed, whoever asks and by whatever face.

Knows the order of things: who may, is it legal, does it fit what is there; and that a change, its audit entry and its
number are one transaction. Knows nothing of HTTP or of terminals. Every method takes the actor first and raises
`BadRequest`, `Forbidden`, `NotFound`, `Conflict`, `PreconditionFailed`, `InvalidKey` (the actor's key or secret died
meanwhile) or `StoreUnavailable`; a change that is refused leaves no trace.
"""

import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from typing import Any, TypeVar

from sqlalchemy import ColumnElement, select

from gateway.access import rules
from gateway.access.batch import Batch
from gateway.access.change import Change, View
from gateway.access.clock import unix_time
from gateway.access.drafts import (
    ALL_ENTRIES,
    ALL_KEYS,
    ALL_TEAMS,
    AuditFilters,
    Imported,
    KeyDraft,
    KeyFilters,
    MadeTeam,
    TeamDraft,
    TeamFilters,
)
from gateway.access.idempotency import Repeats
from gateway.access.listing import Order, audit_conditions, entries, key_conditions, page, team_conditions
from gateway.access.patches import patched_key, patched_team
from gateway.access.records import Actor, Issued, Key, Page, Team
from gateway.access.rows import key_of, select_keys, select_teams, team_of
from gateway.access.teams import check_version, make_team, revise_team, set_team_state
from gateway.access.transfer import apply_entries, document_of, entries_of, without_secrets
from gateway.access.virtual_keys import make_key, revise_key, revoke, rotate, set_key_state
from gateway.errors import BadRequest
from gateway.store.engine import Store
from gateway.store.tables import audit, keys, teams
from gateway.terms import NO_LIMITS, Limits

_Kind = TypeVar("_Kind", bound=Change)


class Administration:
    """All that can be asked and changed.

    `on_change` is awaited with the revision after each change is in the database, before whoever asked for it is told;
    None: this process keeps nothing of keys in memory. `route_groups` are the groups that the route table has,
    `defaults` what keys are held to that say nothing of limits and waiting, `now` is the clock in Unix seconds.

    `version`, where it is given, is that of the object as the caller knows it: if it has changed since, the change is
    refused with `PreconditionFailed`.

    `changes` are JSON values by the names of members, as in a JSON merge patch (RFC 7396): what is not named stays,
    null removes, the members of `grants`, `limits`, `budgets`, `tags` and `model_limits` are merged one by one, lists
    are replaced. A member that cannot be changed is `BadRequest`, never ignored.
    """

    def __init__(
        self,
        store: Store,
        *,
        on_change: Callable[[int], Awaitable[None]] | None,
        route_groups: frozenset[str],
        defaults: Limits = NO_LIMITS,
        now: Callable[[], int] = unix_time,
    ) -> None:
        self._store = store
        self._on_change = on_change
        self._route_groups = route_groups
        self._defaults = defaults
        self._now = now

    async def create_team(self, actor: Actor, draft: TeamDraft, *, idempotency_key: str | None = None) -> MadeTeam:
        """Make a team; for admins."""
        async with self._changing(actor, Change) as change:
            repeats = Repeats(change, idempotency_key, "team", draft)
            if (made := await repeats.earlier()) is not None:
                return MadeTeam(await change.team(made), is_replay=True)
            team = await make_team(change, draft, self._route_groups)
            await repeats.remember(team.id)
        return MadeTeam(team)

    async def teams(
        self,
        actor: Actor,
        filters: TeamFilters = ALL_TEAMS,
        *,
        sort: str = "name",
        limit: int = 50,
        after: str | None = None,
    ) -> Page:
        """Teams that the actor may see. `sort`: name, created_at, updated_at; with `-` before it from the top."""
        async with self._viewing(actor) as view:
            rules.require_team_admin(view.authority)
            query = select_teams().where(*team_conditions(filters), *_own(view, teams.c.id))
            return await page(view.connection, query, teams, Order(sort, limit, after), team_of)

    async def team(self, actor: Actor, id_or_name: str) -> Team:
        """One team."""
        async with self._viewing(actor) as view:
            rules.require_team_admin(view.authority)
            return await view.team(id_or_name)

    async def update_team(
        self, actor: Actor, id_or_name: str, changes: Mapping[str, object], *, version: int | None = None
    ) -> Team:
        """Change name, grants, limits, model_limits, budgets, tags; a team admin changes its tags alone."""
        async with self._changing(actor, Change) as change:
            before = await self._team(change, id_or_name, version)
            return await revise_team(change, before, patched_team(before, changes), self._route_groups)

    async def disable_team(self, actor: Actor, id_or_name: str, *, version: int | None = None) -> Team:
        """From now on no key of the team works; for admins. Of a disabled team: nothing changes."""
        async with self._changing(actor, Change) as change:
            return await set_team_state(change, await self._team(change, id_or_name, version), "disabled")

    async def enable_team(self, actor: Actor, id_or_name: str, *, version: int | None = None) -> Team:
        """Undo `disable_team`."""
        async with self._changing(actor, Change) as change:
            return await set_team_state(change, await self._team(change, id_or_name, version), "active")

    async def create_key(self, actor: Actor, draft: KeyDraft, *, idempotency_key: str | None = None) -> Issued:
        """Make a key. The secret is in the reply, and nowhere else, ever; None if the request is a repeat."""
        async with self._changing(actor, Change) as change:
            repeats = Repeats(change, idempotency_key, "key", draft)
            if (made := await repeats.earlier()) is not None:
                return Issued(await change.key(made), None)
            issued = await make_key(change, draft, self._route_groups)
            await repeats.remember(issued.key.id)
        return issued

    async def keys(
        self,
        actor: Actor,
        filters: KeyFilters = ALL_KEYS,
        *,
        sort: str = "name",
        limit: int = 50,
        after: str | None = None,
    ) -> Page:
        """Keys that the actor may see. `sort`: name, created_at, updated_at, last_used_at, expires_at; `-` as above."""
        async with self._viewing(actor) as view:
            rules.require_team_admin(view.authority)
            query = select_keys(view.now).where(*key_conditions(filters, view.now), *_own(view, keys.c.team_id))
            return await page(view.connection, query, keys, Order(sort, limit, after), key_of)

    async def key(self, actor: Actor, key_id: str) -> Key:
        """One key; for a member, their own alone."""
        async with self._viewing(actor) as view:
            return await view.key(key_id)

    async def key_in_team(self, actor: Actor, key_id: str) -> tuple[Key, Team]:
        """The same with its team, whose terms bind it too."""
        async with self._viewing(actor) as view:
            key = await view.key(key_id)
            return key, await view.team(key.team_id)

    async def update_key(
        self, actor: Actor, key_id: str, changes: Mapping[str, object], *, version: int | None = None
    ) -> Key:
        """Change name, owner, role, grants, limits, budgets, tags, expires_at."""
        async with self._changing(actor, Change) as change:
            before = await self._key(change, key_id, version)
            return await revise_key(change, before, patched_key(before, changes), self._route_groups)

    async def rotate_key(self, actor: Actor, key_id: str, *, grace_s: int = 0, version: int | None = None) -> Issued:
        """Give the key a new secret; the one before works for `grace_s` more (0 to 30 days), older ones end now."""
        async with self._changing(actor, Change) as change:
            return await rotate(change, await self._key(change, key_id, version), grace_s)

    async def disable_key(self, actor: Actor, key_id: str, *, version: int | None = None) -> Key:
        """From now on it does not work. Of a disabled key: nothing changes; of a revoked one: Conflict."""
        async with self._changing(actor, Change) as change:
            return await set_key_state(change, await self._key(change, key_id, version), "disabled")

    async def enable_key(self, actor: Actor, key_id: str, *, version: int | None = None) -> Key:
        """Undo `disable_key`."""
        async with self._changing(actor, Change) as change:
            return await set_key_state(change, await self._key(change, key_id, version), "active")

    async def revoke_key(self, actor: Actor, key_id: str, *, version: int | None = None) -> Key:
        """End it for good: its secrets are deleted, its name is free again. Of a revoked key: nothing changes."""
        async with self._changing(actor, Change) as change:
            return await revoke(change, await self._key(change, key_id, version))

    async def audit(
        self,
        actor: Actor,
        filters: AuditFilters = ALL_ENTRIES,
        *,
        limit: int = 50,
        after: str | None = None,
    ) -> Page:
        """What was changed, newest first; a team admin sees their own team's."""
        async with self._viewing(actor) as view:
            rules.require_team_admin(view.authority)
            query = select(audit).where(*audit_conditions(filters), *_own(view, audit.c.team_id))
            return await entries(view.connection, query, limit, after)

    async def check_admin(self, actor: Actor) -> None:
        """Raises `Forbidden` unless the actor runs the gateway."""
        async with self._viewing(actor) as view:
            rules.require_admin(view.authority)

    async def note_reset(
        self, actor: Actor, subject: Key | Team, *, before: Mapping[str, int], after: Mapping[str, int]
    ) -> None:
        """Write down that limits of `subject` are being reset; for admins. What was left of each and will be, by id."""
        async with self._changing(actor, Change) as change:
            rules.require_admin(change.authority)
            await change.note_reset(subject, before, after)

    async def note_reset_failed(self, actor: Actor, subject: Key | Team) -> None:
        """Write down that what `note_reset` told of was not done, or not all of it; for whoever could do that."""
        # The entry is owed, whatever has become of their key meanwhile.
        owed = Actor(actor.name, "admin", address=actor.address)
        async with self._changing(owed, Change) as change:
            await change.note_reset_failed(subject)

    async def check_lives(self, actor: Actor) -> str:
        """The actor's role now. Raises `InvalidKey` if their key or secret has died, `Forbidden` in its grace."""
        async with self._viewing(actor) as view:
            return view.authority.role

    async def me(self, actor: Actor) -> tuple[Key, Team]:
        """The actor's own key, and its team."""
        async with self._viewing(actor) as view:
            key, team = view.authority.key, view.authority.team
        if key is None or team is None:
            raise BadRequest("This is asked with a key, about that key. Send yours.")
        return key, team

    async def rotate_me(self, actor: Actor, *, grace_s: int = 0, version: int | None = None) -> Issued:
        """Give the actor's own key a new secret."""
        if actor.key_id is None:
            raise BadRequest("This is done with a key, and rotates that key. Send yours.")
        return await self.rotate_key(actor, actor.key_id, grace_s=grace_s, version=version)

    async def export(self, actor: Actor, team: str | None = None, *, with_digests: bool = False) -> dict[str, object]:
        """Teams and keys that the actor may see, as a document for `import_`: no secrets, no ids, nothing ended.

        `team`, an id or a name: of that one alone. `with_digests`, for admins: with the SHA-256 of the newest secret
        of each key, so that it works where the document is imported; the audit log tells of it.
        """
        if with_digests:
            # First, so that nothing goes out without a trace.
            async with self._changing(actor, Change) as change:
                rules.require_admin(change.authority)
                await change.note_export(None if team is None else await change.team(team))
        async with self._viewing(actor) as view:
            (rules.require_admin if with_digests else rules.require_team_admin)(view.authority)
            only = [] if team is None else [teams.c.id == (await view.team(team)).id]
            return await document_of(view, [*_own(view, teams.c.id), *only], with_digests=with_digests)

    async def import_(self, actor: Actor, document: object, *, dry_run: bool = False) -> Imported:
        """Make or change teams and keys, by name, until they are as `document` says; all or nothing.

        What the document does not name stays. New keys come with their secrets, but for those whose `secret_sha256`
        an admin brings: they keep the one they have. `dry_run` keeps nobody waiting, nor does an import that is
        refused.
        """
        entries = entries_of(document)
        async with self._store.reading() as connection:
            trial = await Batch.open(connection, actor, self._now(), self._defaults)
            tried = await apply_entries(trial, entries, self._route_groups)
        if dry_run:
            return without_secrets(tried)
        async with self._changing(actor, Batch) as batch:
            imported = await apply_entries(batch, entries, self._route_groups)
            await batch.write()
        return imported

    async def _team(self, change: Change, id_or_name: str, version: int | None) -> Team:
        rules.require_team_admin(change.authority)
        team = await change.team(id_or_name)
        check_version(team.version, version)
        return team

    async def _key(self, change: Change, key_id: str, version: int | None) -> Key:
        key = await change.key(key_id)
        check_version(key.version, version)
        return key

    @contextlib.asynccontextmanager
    async def _viewing(self, actor: Actor) -> AsyncIterator[View]:
        async with self._store.reading() as connection:
            yield await View.open(connection, actor, self._now(), self._defaults)

    @contextlib.asynccontextmanager
    async def _changing(self, actor: Actor, kind: type[_Kind]) -> AsyncIterator[_Kind]:
        async with self._store.writing() as connection:
            change = await kind.begin(connection, actor, self._now(), self._defaults)
            yield change
        if change.revision is not None and self._on_change is not None:
            await self._on_change(change.revision)


def _own(view: View, team_id: ColumnElement[Any]) -> list[ColumnElement[bool]]:
    """What confines a list to what the actor may see."""
    return [] if view.authority.role == "admin" else [team_id == view.authority.team_id]
