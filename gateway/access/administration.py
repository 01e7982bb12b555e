"""Teams, keys and audit: all that can be asked and changed, whoever asks and by whatever face.

Knows the order of things: who may, is it legal, does it fit what is there; and that a change, its audit entry and its
number are one transaction. Knows nothing of HTTP or of terminals. Every method takes the actor first and raises
`BadRequest`, `Forbidden`, `NotFound`, `Conflict`, `PreconditionFailed`, `InvalidKey` (the actor's key died meanwhile)
or `StoreUnavailable`; a change that is refused leaves no trace.
"""

import time
from collections.abc import Callable, Mapping

from gateway.access.drafts import AuditFilters, Imported, KeyDraft, KeyFilters, MadeTeam, TeamDraft, TeamFilters
from gateway.access.records import Actor, Issued, Key, Page, Team
from gateway.store.engine import Store


def unix_time() -> int:
    """The clock, in whole seconds."""
    return int(time.time())


class Administration:
    """All that can be asked and changed.

    `on_change` is called with the revision after each change is in the database, `route_groups` are the groups that
    the route table has, `now` is the clock in Unix seconds.

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
        on_change: Callable[[int], None],
        route_groups: frozenset[str],
        now: Callable[[], int] = unix_time,
    ) -> None:
        self._store = store
        self._on_change = on_change
        self._route_groups = route_groups
        self._now = now

    async def create_team(self, actor: Actor, draft: TeamDraft, *, idempotency_key: str | None = None) -> MadeTeam:
        """Make a team; for admins."""
        raise NotImplementedError

    async def teams(
        self,
        actor: Actor,
        filters: TeamFilters = TeamFilters(),
        *,
        sort: str = "name",
        limit: int = 50,
        after: str | None = None,
    ) -> Page:
        """Teams that the actor may see. `sort`: name, created_at, updated_at; with `-` before it from the top."""
        raise NotImplementedError

    async def team(self, actor: Actor, id_or_name: str) -> Team:
        """One team."""
        raise NotImplementedError

    async def update_team(
        self, actor: Actor, id_or_name: str, changes: Mapping[str, object], *, version: int | None = None
    ) -> Team:
        """Change name, grants, limits, model_limits, budgets, tags; a team admin changes its name and tags alone."""
        raise NotImplementedError

    async def disable_team(self, actor: Actor, id_or_name: str, *, version: int | None = None) -> Team:
        """From now on no key of the team works; for admins. Of a disabled team: nothing changes."""
        raise NotImplementedError

    async def enable_team(self, actor: Actor, id_or_name: str, *, version: int | None = None) -> Team:
        """Undo `disable_team`."""
        raise NotImplementedError

    async def create_key(self, actor: Actor, draft: KeyDraft, *, idempotency_key: str | None = None) -> Issued:
        """Make a key. The secret is in the reply, and nowhere else, ever; None if the request is a repeat."""
        raise NotImplementedError

    async def keys(
        self,
        actor: Actor,
        filters: KeyFilters = KeyFilters(),
        *,
        sort: str = "name",
        limit: int = 50,
        after: str | None = None,
    ) -> Page:
        """Keys that the actor may see. `sort`: name, created_at, updated_at, last_used_at, expires_at; `-` as above."""
        raise NotImplementedError

    async def key(self, actor: Actor, key_id: str) -> Key:
        """One key; for a member, their own alone."""
        raise NotImplementedError

    async def update_key(
        self, actor: Actor, key_id: str, changes: Mapping[str, object], *, version: int | None = None
    ) -> Key:
        """Change name, owner, role, grants, limits, budgets, tags, expires_at."""
        raise NotImplementedError

    async def rotate_key(self, actor: Actor, key_id: str, *, grace_s: int = 0, version: int | None = None) -> Issued:
        """Give the key a new secret; the one before works for `grace_s` more (0 to 30 days), older ones end now."""
        raise NotImplementedError

    async def disable_key(self, actor: Actor, key_id: str, *, version: int | None = None) -> Key:
        """From now on it does not work. Of a disabled key: nothing changes; of a revoked one: Conflict."""
        raise NotImplementedError

    async def enable_key(self, actor: Actor, key_id: str, *, version: int | None = None) -> Key:
        """Undo `disable_key`."""
        raise NotImplementedError

    async def revoke_key(self, actor: Actor, key_id: str, *, version: int | None = None) -> Key:
        """End it for good: its secrets are deleted, its name is free again. Of a revoked key: nothing changes."""
        raise NotImplementedError

    async def audit(
        self,
        actor: Actor,
        filters: AuditFilters = AuditFilters(),
        *,
        limit: int = 50,
        after: str | None = None,
    ) -> Page:
        """What was changed, newest first; a team admin sees their own team's."""
        raise NotImplementedError

    async def me(self, key_id: str) -> tuple[Key, Team]:
        """The key that a call was made with, and its team."""
        raise NotImplementedError

    async def rotate_me(self, actor: Actor, *, grace_s: int = 0) -> Issued:
        """Give the actor's own key a new secret."""
        raise NotImplementedError

    async def export(self, actor: Actor) -> dict[str, object]:
        """Teams and keys that the actor may see, as a document for `import_`: no secrets, no ids, nothing revoked."""
        raise NotImplementedError

    async def import_(self, actor: Actor, document: object, *, dry_run: bool = False) -> Imported:
        """Make or change teams and keys, by name, until they are as `document` says; all or nothing.

        What the document does not name stays. New keys come with their secrets.
        """
        raise NotImplementedError
