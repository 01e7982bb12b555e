"""Teams, keys and what was done to them, as administration sees them: plain data.

Times are integer Unix seconds, money integer micro-dollars. No record holds a secret or its digest; the one that is
made is in `Issued`, once.
"""

from typing import Any, Literal

import msgspec

from gateway.terms import EVERYTHING, NO_BUDGETS, NO_LIMITS, Budgets, Grants, Limits, Role, State

Source = Literal["api", "settings"]
"""Who declares a team or key: whoever administers, or the settings, and then only they change it."""


class Team(msgspec.Struct, frozen=True):
    """A group of keys. `version` counts its changes, from 1."""

    id: str
    name: str
    state: State
    source: Source
    version: int
    created_at: int
    updated_at: int
    grants: Grants = EVERYTHING
    limits: Limits = NO_LIMITS
    model_limits: dict[str, Limits] = {}
    """Limits of single models within the team, by the name that upstream knows, `*` as wildcard."""
    budgets: Budgets = NO_BUDGETS
    tags: dict[str, str] = {}


class Key(msgspec.Struct, frozen=True):
    """A virtual key without its secret. `hint` shows the secret's last four characters, to tell keys apart."""

    id: str
    name: str
    team_id: str
    team: str
    owner: str | None
    role: Role
    state: State
    source: Source
    hint: str
    version: int
    created_at: int
    updated_at: int
    expires_at: int | None = None
    last_used_at: int | None = None
    rotated_at: int | None = None
    grace_until: int | None = None
    """Until when the secret before the last rotation works too."""
    team_state: State = "active"
    """Its team's: no key of a disabled team works, whatever its own state."""
    grants: Grants = EVERYTHING
    limits: Limits = NO_LIMITS
    budgets: Budgets = NO_BUDGETS
    tags: dict[str, str] = {}


class Issued(msgspec.Struct, frozen=True):
    """A key that was just made or rotated. `secret` is None where the request is a repeat of one that was answered."""

    key: Key
    secret: str | None

    def __repr__(self) -> str:
        return f"Issued({self.key.id})"


class AuditEntry(msgspec.Struct, frozen=True):
    """One change: who did what to which object, what it was before and after (None where it was not), from where."""

    id: int
    at: int
    actor: str
    """Id of a key; `cli`, `settings` or `first_start` where there was none."""
    action: str
    """`team.create`, `key.rotate` and their like."""
    object_id: str
    team_id: str | None
    before: dict[str, Any] | None
    after: dict[str, Any] | None
    address: str | None


class Actor(msgspec.Struct, frozen=True):
    """Who administers. `key_id` is None for whoever holds the machine: the command line, the settings, the first start.

    Of whoever came with a key, `role` is what was known when they came: what they may is looked up with each question.
    """

    name: str
    role: Role
    key_id: str | None = None
    digest: bytes | None = None
    """The SHA-256 of the secret that they came with: of a key, only the newest secret administers."""
    address: str | None = None

    def __repr__(self) -> str:
        return f"Actor({self.name})"


class Page(msgspec.Struct, frozen=True):
    """Some of many. `next` is the cursor of what follows, None at the end."""

    items: tuple[Any, ...]
    next: str | None
