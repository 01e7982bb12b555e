"""What clients send: bodies and query parameters of the admin API. Unknown members are refused, not ignored."""

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from gateway.http.admin.terms import (
    Budgets,
    ChangedModelLimits,
    ChangedTags,
    Grants,
    Limits,
    ModelLimits,
    Name,
    Strict,
    Tags,
    UnixTime,
)
from gateway.limits.rules import Dimension
from gateway.terms import Role, State

_GRACE_MAX_S = 30 * 86_400
_ABOUT_EXPIRY = "Unix time in seconds from which on the key no longer works; null for never."
_ABOUT_SORTING = "With `-` before it from the top."

TeamSort = Literal["name", "-name", "created_at", "-created_at", "updated_at", "-updated_at"]
KeySort = Literal[
    "name",
    "-name",
    "created_at",
    "-created_at",
    "updated_at",
    "-updated_at",
    "last_used_at",
    "-last_used_at",
    "expires_at",
    "-expires_at",
]


class TeamCreate(Strict):
    """A new team."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {"name": "engines", "grants": {"models": ["openai/*"]}, "budgets": {"month_microusd": 500000000}}
            ]
        }
    )

    name: Name
    grants: Grants = Field(default_factory=Grants)
    limits: Limits = Field(default_factory=Limits)
    model_limits: ModelLimits = Field(
        default_factory=dict, description="Limits of single models within the team, `*` for any run of characters."
    )
    budgets: Budgets = Field(default_factory=Budgets)
    tags: Tags = Field(default_factory=dict)


class TeamUpdate(Strict):
    """What shall change of a team, as a JSON merge patch: what is left out stays, null removes."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"limits": {"requests_per_minute": 600}}]})

    name: Name = ""
    grants: Grants | None = None
    limits: Limits | None = None
    model_limits: ChangedModelLimits | None = None
    budgets: Budgets | None = None
    tags: ChangedTags | None = None


class KeyCreate(Strict):
    """A new key."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "team": "engines",
                    "name": "nightly-evals",
                    "owner": "ada@example.com",
                    "grants": {"models": ["openai/gpt-5.2"], "routes": ["chat"]},
                    "limits": {"requests_per_minute": 60, "parallel": 4},
                    "budgets": {"day_microusd": 5000000},
                }
            ]
        }
    )

    team: Name = Field(description="The team's name or id.")
    name: Name
    owner: str | None = Field(default=None, max_length=200, description="Whose it is: a person, a job.")
    role: Role = Field(default="member", description="What it may do besides calling.")
    grants: Grants = Field(default_factory=Grants)
    limits: Limits = Field(default_factory=Limits)
    budgets: Budgets = Field(default_factory=Budgets)
    tags: Tags = Field(default_factory=dict)
    expires_at: UnixTime | None = Field(default=None, description=_ABOUT_EXPIRY)


class KeyUpdate(Strict):
    """What shall change of a key, as a JSON merge patch: what is left out stays, null removes."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"grants": {"models": ["openai/*"]}, "limits": {"parallel": None}}]}
    )

    name: Name = ""
    owner: str | None = Field(default=None, max_length=200)
    role: Role = "member"
    grants: Grants | None = None
    limits: Limits | None = None
    budgets: Budgets | None = None
    tags: ChangedTags | None = None
    expires_at: UnixTime | None = Field(default=None, description=_ABOUT_EXPIRY)


class Rotate(Strict):
    """How a secret is replaced."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"grace_s": 3600}]})

    grace_s: int = Field(
        default=0,
        ge=0,
        le=_GRACE_MAX_S,
        description="How long the old secret goes on working, in seconds; 0: not at all.",
    )


class ResetLimits(Strict):
    """Which limits to make available again: of a key or of a team, all or those of one kind."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"team": "engines", "dimension": "budget"}]})

    key: str | None = Field(default=None, max_length=100, description="Id of a key.")
    team: str | None = Field(default=None, max_length=100, description="Name or id of a team.")
    dimension: Dimension | None = Field(default=None, description="Of this kind alone.")


class LimitsQuery(BaseModel):
    """Whose limits: one of them is named."""

    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True)

    key: str | None = Field(default=None, max_length=100, description="Id of a key.")
    team: str | None = Field(default=None, max_length=100, description="Name or id of a team.")
    endpoint: str | None = Field(
        default=None, max_length=100, description="`upstream`: of all calls together; for admins."
    )


class _Parameters(BaseModel):
    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True)

    limit: int = Field(default=50, ge=1, le=200, description="Most objects of one reply.")
    after: str | None = Field(default=None, max_length=1000, description="`next` of the reply before.")


class TeamsQuery(_Parameters):
    """Which teams, and in which order."""

    sort: TeamSort = Field(default="name", description=_ABOUT_SORTING)
    name: str | None = Field(default=None, max_length=100, description="Part of the name.")
    state: State | None = None
    tag: str | None = Field(default=None, max_length=400, description="`name` or `name=value`.")


class KeysQuery(_Parameters):
    """Which keys, and in which order."""

    sort: KeySort = Field(default="name", description=_ABOUT_SORTING)
    team: str | None = Field(default=None, max_length=100, description="Name or id of a team.")
    name: str | None = Field(default=None, max_length=100, description="Part of the name.")
    owner: str | None = Field(default=None, max_length=200)
    role: Role | None = None
    state: State | None = None
    tag: str | None = Field(default=None, max_length=400, description="`name` or `name=value`.")
    expired: bool | None = Field(default=None, description="Whether `expires_at` has passed.")


class AuditQuery(_Parameters):
    """Which changes; the newest come first."""

    object_id: str | None = Field(default=None, max_length=40, description="Id of a key or a team.")
    team: str | None = Field(default=None, max_length=100, description="Name or id of a team.")
    actor: str | None = Field(default=None, max_length=40, description="Id of the key that did it.")
    action: str | None = Field(default=None, max_length=40, description="`key.rotate`; or `key`, for all of a kind.")
    since: int | None = Field(default=None, ge=0, description="Unix time in seconds; changes from then on.")
    until: int | None = Field(default=None, ge=0, description="Unix time in seconds; changes before then.")


class ExportQuery(BaseModel):
    """What to export."""

    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True)

    team: str | None = Field(default=None, max_length=100, description="Name or id of a team: that one alone.")
    with_digests: bool = Field(
        default=False,
        description="With the SHA-256 of each key's secret, so that it works where this is imported; for admins.",
    )


class ImportQuery(BaseModel):
    """How to import."""

    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True)

    dry_run: bool = Field(default=False, description="Say what would be done, and do nothing.")
