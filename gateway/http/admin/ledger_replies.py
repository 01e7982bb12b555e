"""What the ledger answers, as JSON. Money is micro-dollars, as everywhere below /admin/v1.

What is unknown or unpriced is null of a single call, and in sums a count beside them: never 0.
"""

from datetime import tzinfo
from typing import Any, Literal

import msgspec
from pydantic import BaseModel, ConfigDict, Field

from gateway.access.naming import Names
from gateway.call import Outcome, UsageSource
from gateway.metering.ledger_query import Call, UsageGroup, UsagePage, UsageQuery

_TAG = "tag:"


class _Reply(BaseModel):
    model_config = ConfigDict(extra="forbid")


class SumsReply(_Reply):
    """What calls came to."""

    calls: int
    refused_calls: int = Field(description="By the gateway.")
    failed_calls: int = Field(description="By upstream: its errors, no reply, cut off; or by a shutdown.")
    estimated_calls: int = Field(description="Were cut: in the sums as estimated from what was delivered.")
    unknown_calls: int = Field(description="Used something that nobody knows: in no sum.")
    unpriced_calls: int = Field(description="Of models without a price: in the sums of tokens, and in no cost.")
    input_tokens: int
    output_tokens: int
    total_tokens: int
    cached_tokens: int
    reasoning_tokens: int
    audio_input_tokens: int
    audio_output_tokens: int
    accepted_prediction_tokens: int
    rejected_prediction_tokens: int
    cache_write_tokens: int
    image_input_tokens: int
    image_output_tokens: int
    audio_ms: int
    cost_microusd: int


class GroupReply(_Reply):
    """What the calls of a row have in common: of these members those that `group_by` names."""

    team_id: str | None = None
    team: str | None = None
    key_id: str | None = None
    key: str | None = None
    model: str | None = Field(default=None, description="Null for calls without one.")
    route: str | None = None
    day: str | None = Field(default=None, description="As 2026-11-22, in the time zone of the reply.")
    hour: int | None = Field(default=None, description="Unix time in seconds at which it begins.")
    tags: dict[str, str | None] | None = Field(default=None, description="Null is for calls without that tag.")


class UsageRow(SumsReply):
    """One group of calls."""

    object: Literal["usage"] = "usage"
    group: GroupReply


class UsageReply(_Reply):
    """Some groups of calls, and what all of them came to."""

    object: Literal["list"] = "list"
    data: list[UsageRow]
    totals: SumsReply = Field(description="Of all groups, those of other pages too.")
    since: int = Field(description="Unix time in seconds: calls from then on.")
    until: int = Field(description="Unix time in seconds: calls before then.")
    time_zone: str = Field(description="Whose days and hours these are.")
    source: Literal["days", "calls"] = Field(
        description="Whether this is from the sums by day, or from single calls, which are kept for a shorter time."
    )
    has_more: bool
    next: str | None = Field(description="The value of `after` for what follows.")


class CallReply(_Reply):
    """One call: how it ended, and where its time went. Bodies are not kept."""

    object: Literal["call"] = "call"
    id: str = Field(description="The `x-gateway-request-id` of its reply.")
    started_at_us: int = Field(description="Unix time in microseconds.")
    team_id: str
    team: str | None
    key_id: str
    key: str | None
    method: str
    route: str
    model: str | None
    endpoint: str | None = Field(description="Where it went; null if it was not sent.")
    status: int = Field(description="As sent to the client; 0 if nothing was.")
    outcome: Outcome
    streamed: bool
    error: str | None = Field(description="The code of the error that the client saw.")
    refused_by: str | None = Field(
        description="The limit that refused it, by whose it is, of what, and its period: `key/requests/minute`,"
        " `team/parallel`, `model/tokens/day`, `endpoint/requests/minute`, `key/budget/month`. Null if none did."
    )
    upstream_error: str | None = Field(description="What went wrong on the way to upstream.")
    upstream_request_id: str | None
    usage_source: UsageSource = Field(description="Where the usage is from: see docs/usage.md.")
    usage: dict[str, int] | None = Field(description="Null where nobody knows it.")
    cost_microusd: int | None = Field(description="Null where the usage is unknown or the model has no price.")
    queue_us: int = Field(description="How long it waited for its turn under a limit.")
    overhead_us: int | None = Field(description="The gateway's own share, without that.")
    first_byte_us: int | None = Field(
        description="From its start to the first byte of upstream's reply; null without one."
    )
    duration_us: int = Field(description="From its start to its end.")
    sent_bytes: int
    tags: dict[str, str]


def usage_reply(page: UsagePage, names: Names, query: UsageQuery, zone: tzinfo) -> dict[str, Any]:
    """A `UsageReply`."""
    return {
        "object": "list",
        "data": [
            {"object": "usage", "group": group_members(each, names), **msgspec.structs.asdict(each.sums)}
            for each in page.groups
        ],
        "totals": msgspec.structs.asdict(page.totals),
        "since": query.since_us // 1_000_000,
        "until": query.until_us // 1_000_000,
        "time_zone": str(zone),
        "source": page.source,
        "has_more": page.next is not None,
        "next": page.next,
    }


def group_members(of: UsageGroup, names: Names) -> dict[str, Any]:
    """The members of a `GroupReply` that were asked for."""
    members: dict[str, Any] = {}
    for word, value in of.group.items():
        if word in ("team", "key"):
            known = names.teams if word == "team" else names.keys
            members |= {f"{word}_id": value, word: known.get(str(value))}
        elif word.startswith(_TAG):
            members.setdefault("tags", {})[word.removeprefix(_TAG)] = value
        else:
            members[word] = value
    return members


def call_reply(call: Call, names: Names) -> dict[str, Any]:
    """A `CallReply`."""
    members = msgspec.structs.asdict(call)
    return {
        "object": "call",
        **members,
        "team": names.teams.get(call.team_id),
        "key": names.keys.get(call.key_id),
    }
