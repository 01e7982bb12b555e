"""What whoever administers asks for: objects to be made, and which objects to show.

Plain data as it was sent, valid in type alone; whether it is legal and allowed is decided by `validity` and `rules`.
"""

import msgspec

from gateway.access.records import Issued, Key, Team
from gateway.terms import EVERYTHING, NO_BUDGETS, NO_LIMITS, Budgets, Grants, Limits, Role, State


class TeamDraft(msgspec.Struct, frozen=True):
    """A team to be made."""

    name: str
    grants: Grants = EVERYTHING
    limits: Limits = NO_LIMITS
    model_limits: dict[str, Limits] = {}
    budgets: Budgets = NO_BUDGETS
    tags: dict[str, str] = {}


class KeyDraft(msgspec.Struct, frozen=True):
    """A key to be made. `team` is the id or the name of its team, `expires_at` Unix seconds."""

    team: str
    name: str
    owner: str | None = None
    role: Role = "member"
    grants: Grants = EVERYTHING
    limits: Limits = NO_LIMITS
    budgets: Budgets = NO_BUDGETS
    tags: dict[str, str] = {}
    expires_at: int | None = None


class Brought(msgspec.Struct, frozen=True):
    """A secret that was made elsewhere: its SHA-256, and what lists show of it, which may be nothing."""

    digest: bytes
    hint: str | None

    def __repr__(self) -> str:
        return "Brought()"


class TeamFilters(msgspec.Struct, frozen=True):
    """Which teams to list; what is None does not filter. `tag` is `name` or `name=value`."""

    name: str | None = None
    """Part of the name, upper or lower case."""
    state: State | None = None
    tag: str | None = None


class KeyFilters(msgspec.Struct, frozen=True):
    """Which keys to list; what is None does not filter. `tag` is `name` or `name=value`."""

    team: str | None = None
    """Id or name, whole."""
    name: str | None = None
    """Part of the name, upper or lower case."""
    owner: str | None = None
    role: Role | None = None
    state: State | None = None
    tag: str | None = None
    expired: bool | None = None


class AuditFilters(msgspec.Struct, frozen=True):
    """Which entries to list; what is None does not filter. `since` (included) and `until` (not) are Unix seconds."""

    object_id: str | None = None
    team: str | None = None
    """Id or name."""
    actor: str | None = None
    action: str | None = None
    """Whole (`key.rotate`), or all of a kind (`key`)."""
    since: int | None = None
    until: int | None = None


class MadeTeam(msgspec.Struct, frozen=True):
    """A team that was just made, or `is_replay`: made before, by the same request with the same Idempotency-Key."""

    team: Team
    is_replay: bool = False


class Imported(msgspec.Struct, frozen=True):
    """What an import did, or on a dry run would do; then no key has a secret."""

    made_teams: tuple[Team, ...]
    changed_teams: tuple[Team, ...]
    made_keys: tuple[Issued, ...]
    changed_keys: tuple[Key, ...]
    unchanged: int
    """How many teams and keys were already as the document says."""


ALL_TEAMS, ALL_KEYS, ALL_ENTRIES = TeamFilters(), KeyFilters(), AuditFilters()
