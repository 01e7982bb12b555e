"""What can be asked of the ledger, and what it answers: plain frozen data.

Times are Unix microseconds, `since_us` included and `until_us` not. A filter of None lets everything through, one of no
values nothing: so the teams that a caller may see are a filter like any other, and cannot be left empty by mistake.
"""

from collections.abc import Mapping
from typing import Literal

import msgspec

from gateway.call import Outcome, UsageSource

GroupValue = str | int | None
"""Of `day` an ISO date, of `hour` the Unix time in seconds at which it begins, else a name or an id. None: calls
without a model, or without that tag."""


class Filters(msgspec.Struct, frozen=True, kw_only=True):
    """Which calls."""

    since_us: int
    until_us: int
    team_ids: tuple[str, ...] | None = None
    key_ids: tuple[str, ...] | None = None
    models: tuple[str, ...] | None = None
    routes: tuple[str, ...] | None = None
    tags: Mapping[str, str] = msgspec.field(default_factory=dict)
    """Each of these tags a call must have."""


class UsageQuery(Filters, frozen=True, kw_only=True):
    """Sums of the calls, by groups.

    `group_by`: any of `key`, `team`, `model`, `route`, `day` or `hour`, `tag:NAME`. `sort`: one of the groups or a
    member of `Sums`, with `-` before it for the other way round. `limit` groups come after the cursor `after`.
    """

    group_by: tuple[str, ...] = ()
    sort: str = "-cost_microusd"
    limit: int = 100
    after: str | None = None


class Sums(msgspec.Struct, frozen=True):
    """What calls came to. What is unknown or unpriced is in no sum but in its own count."""

    calls: int
    refused_calls: int
    failed_calls: int
    estimated_calls: int
    unknown_calls: int
    """They used something that nobody knows."""
    unpriced_calls: int
    """It is known what they used, and their model has no price."""
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


class UsageGroup(msgspec.Struct, frozen=True):
    """One group, by the words of `group_by`, and its sums."""

    group: dict[str, GroupValue]
    sums: Sums


class UsagePage(msgspec.Struct, frozen=True):
    """Some groups, and the totals of all of them. `next` is the cursor of what follows, None at the end.

    `source`: whether this was read from the sums by day, or from single calls, which are kept for a shorter time.
    """

    groups: tuple[UsageGroup, ...]
    totals: Sums
    next: str | None
    source: Literal["days", "calls"]


class CallsQuery(Filters, frozen=True, kw_only=True):
    """Single calls, newest first, `limit` of them after the cursor `after`."""

    outcomes: tuple[Outcome, ...] | None = None
    status_classes: tuple[int, ...] | None = None
    """Their first digits; 0 for calls that got no answer."""
    errors: tuple[str, ...] | None = None
    """Codes of errors as clients saw them."""
    ended_since_us: int | None = None
    """They ended then or later, whenever they began: whoever follows calls asks so."""
    limit: int = 100
    after: str | None = None


class Call(msgspec.Struct, frozen=True):
    """One call as the ledger has it; the members are those of `gateway.call.CallRecord`, times in microseconds."""

    id: str
    started_at_us: int
    team_id: str
    key_id: str
    method: str
    route: str
    model: str | None
    endpoint: str | None
    status: int
    outcome: Outcome
    streamed: bool
    error: str | None
    refused_by: str | None
    """The limit that refused it, as `key/requests/minute`: whose it is, of what, and its period if it has one."""
    upstream_error: str | None
    upstream_request_id: str | None
    usage_source: UsageSource
    cost_microusd: int | None
    queue_us: int
    overhead_us: int | None
    first_byte_us: int | None
    duration_us: int
    sent_bytes: int
    usage: dict[str, int] | None
    """By the names of `gateway.call.Usage`; None if nobody knows."""
    tags: dict[str, str]


class CallsPage(msgspec.Struct, frozen=True):
    """Some calls. `next` is the cursor of older ones, None at the end."""

    calls: tuple[Call, ...]
    next: str | None
