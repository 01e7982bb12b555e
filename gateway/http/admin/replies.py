"""What clients get: records as JSON. No reply but that to a create or a rotation has a secret, none a digest."""

from collections.abc import Mapping
from typing import Any, Generic, Literal, TypeVar

import msgspec
from fastapi import Response
from fastapi.responses import JSONResponse
from pydantic import BaseModel, ConfigDict, Field

from gateway.access.drafts import Imported
from gateway.access.records import AuditEntry, Issued, Key, Page, Source, Team
from gateway.http.admin.conditions import etag
from gateway.http.admin.terms import Budgets, Grants, Limits
from gateway.limits.overview import Mode
from gateway.limits.rules import Dimension, Period, Whose
from gateway.terms import Role, State

_TIME = "Unix time in seconds."
_NO_MEMBERS: Mapping[str, Any] = {}


class _Reply(BaseModel):
    model_config = ConfigDict(extra="forbid")


class _Object(_Reply):
    id: str
    name: str
    state: State = Field(description="`disabled` can be undone, `revoked` cannot.")
    source: Source = Field(description="`settings`: the settings file declares it, and changes it alone.")
    version: int = Field(description="Counts changes; the ETag is made of it.")
    created_at: int = Field(description=_TIME)
    updated_at: int = Field(description=_TIME)
    grants: Grants
    limits: Limits
    budgets: Budgets
    tags: dict[str, str]


class TeamReply(_Object):
    """A team."""

    object: Literal["team"] = "team"
    model_limits: dict[str, Limits]


class KeyReply(_Object):
    """A key without its secret."""

    object: Literal["key"] = "key"
    team_id: str
    team: str
    team_state: State = Field(description="No key of a disabled team works, whatever its own `state`.")
    owner: str | None
    role: Role
    hint: str = Field(description="The last four characters of the secret, to tell keys apart.")
    expires_at: int | None = Field(description=_TIME)
    last_used_at: int | None = Field(description=f"{_TIME} Up to some seconds late.")
    rotated_at: int | None = Field(description=_TIME)
    grace_until: int | None = Field(description=f"{_TIME} Until then the secret before the last rotation works too.")


class IssuedReply(KeyReply):
    """A key that was just made or rotated."""

    secret: str | None = Field(
        description="Shown this once; null where the request repeats one that was answered, or brought a digest."
    )


class MeReply(_Reply):
    """The key that asks, and its team."""

    object: Literal["me"] = "me"
    key: KeyReply
    team: TeamReply


class AuditReply(_Reply):
    """One change."""

    object: Literal["audit_entry"] = "audit_entry"
    id: int
    at: int = Field(description=_TIME)
    actor: str = Field(
        description="Id of the key that did it; `cli`, `settings` or `first_start` where there was none."
    )
    action: str = Field(description="Such as `key.rotate`.")
    object_id: str
    team_id: str | None
    before: dict[str, Any] | None
    after: dict[str, Any] | None
    address: str | None = Field(description="Where it was done from.")


class ImportReply(_Reply):
    """What an import did, or on a dry run would do."""

    object: Literal["import"] = "import"
    dry_run: bool
    made_teams: list[TeamReply]
    changed_teams: list[TeamReply]
    made_keys: list[IssuedReply] = Field(
        description="With their secrets, which are shown this once; null where `secret_sha256` brought one."
    )
    changed_keys: list[KeyReply]
    unchanged: int = Field(description="How many teams and keys were already as the document says.")


class LimitReply(_Reply):
    """How one limit stands."""

    id: str
    whose: Whose
    model: str | None = Field(description="The model, or the pattern of models, that a limit of `model` is about.")
    dimension: Dimension
    period: Period | None = Field(description="Null for parallel calls; `total` for a budget without an end.")
    limit: int = Field(description="Requests, tokens, calls, or micro-dollars, in a period.")
    burst: int | None = Field(description="Most that is admitted at once; of rates alone.")
    remaining: int = Field(description="What would be admitted now.")
    resets_in_ms: int | None = Field(
        description="Milliseconds until all of it is there again, if nobody calls; null where nobody can tell."
    )
    shadow: bool = Field(description="It counts, and refuses nobody.")


class LimitsReply(_Reply):
    """How all limits of a key, a team or an endpoint stand."""

    object: Literal["limits"] = "limits"
    mode: Mode = Field(
        description="Where they are counted: `memory` of the process that answered, or Redis (`exact`). While Redis is"
        " away: `local`, this gateway's share; `closed`, no call is admitted; `open`, nothing is counted."
    )
    has_prices: bool | None = Field(
        description="Whether any model has a price. Where none has, no call draws on a budget. Null: it is not known"
        " where the store was asked, and no gateway."
    )
    data: list[LimitReply]


class ErrorReply(_Reply):
    """OpenAI's error object."""

    class _Error(_Reply):
        message: str
        type: str
        param: str | None
        code: str | None

    error: _Error


Item = TypeVar("Item", bound=BaseModel)


class ListReply(_Reply, Generic[Item]):
    """Some of many."""

    object: Literal["list"] = "list"
    data: list[Item]
    has_more: bool
    next: str | None = Field(description="The value of `after` for what follows.")


def _fill(model: type[Item], record: msgspec.Struct, **members: Any) -> Item:
    return model.model_validate({**msgspec.to_builtins(record), **members}, strict=False)


def team_reply(team: Team) -> TeamReply:
    """A team as JSON."""
    return _fill(TeamReply, team)


def key_reply(key: Key) -> KeyReply:
    """A key as JSON."""
    return _fill(KeyReply, key)


def audit_reply(entry: AuditEntry) -> AuditReply:
    """A line of the audit log as JSON."""
    return _fill(AuditReply, entry)


def _issued_reply(issued: Issued) -> IssuedReply:
    return _fill(IssuedReply, issued.key, secret=issued.secret)


def import_reply(imported: Imported, *, dry_run: bool) -> ImportReply:
    """The outcome of an import as JSON."""
    return ImportReply(
        dry_run=dry_run,
        made_teams=[team_reply(team) for team in imported.made_teams],
        changed_teams=[team_reply(team) for team in imported.changed_teams],
        made_keys=[_issued_reply(issued) for issued in imported.made_keys],
        changed_keys=[key_reply(key) for key in imported.changed_keys],
        unchanged=imported.unchanged,
    )


def show(reply: TeamReply | KeyReply, *, status: int = 200, headers: Mapping[str, str] = _NO_MEMBERS) -> Response:
    """One object, with its version as ETag."""
    return JSONResponse(reply.model_dump(), status, {"etag": etag(reply.version), **headers})


def show_issued(issued: Issued, *, status: int = 200, headers: Mapping[str, str] = _NO_MEMBERS) -> Response:
    """A key with its secret; a reply without one says that it repeats another."""
    replayed = {"idempotent-replayed": "true"} if issued.secret is None else {}
    return show(_issued_reply(issued), status=status, headers={**headers, **replayed})


def show_page(page: Page, items: list[Any]) -> Response:
    """`items`, the replies that were made of `page`."""
    data = [item.model_dump() for item in items]
    return JSONResponse({"object": "list", "data": data, "has_more": page.next is not None, "next": page.next})
