"""What is known of one call: plain data that every floor shares.

Knows the words for routes, principals, outcomes and usage; decides nothing.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Literal

import msgspec

from gateway.terms import Grants, Quota, Role

Outcome = Literal["done", "refused", "upstream_error", "failed", "cut", "client_left", "drained"]
"""How a call ended: complete; refused by the gateway (4xx); an error of upstream's own, in place of a reply or as the
last event of a stream; no reply from upstream or a bug of ours; broken off by upstream after its first byte; left by
the client; cut at the end of a shutdown."""


class Body(Enum):
    """What a route's request body is, and so what is done with it."""

    NONE = "none"
    """Forwarded if there is one, never read into."""
    JSON = "json"
    """Held whole, so that policy fields can be read; must be a JSON object."""
    RAW = "raw"
    """Streams through (multipart), unless policy needs to know the model of a form."""


class Dialect(Enum):
    """How a route's event stream speaks: where usage sits, how it ends, what an in-band error looks like."""

    CHAT = "chat"
    RESPONSES = "responses"
    OTHER = "other"


class Reply(Enum):
    """What the gateway does with a reply besides passing it on."""

    FORWARD = "forward"
    USAGE = "usage"
    """It reports usage that this call caused (re-reading an object does not)."""
    MODELS = "models"
    """The list of models, to which the aliases are added."""
    MODEL = "model"
    """One model, which may be asked for by its alias."""


class Makes(Enum):
    """Which ids in a route's reply are those of objects that it made, or that come into being with time."""

    NOTHING = "nothing"
    OBJECT = "object"
    """`id`."""
    CHAT = "chat"
    """`id` where the completion is stored, and `choices[].message.audio.id`."""
    RESPONSE = "response"
    """`id` where the response is stored; of each item of `output` its `id` and its container's."""
    UPLOADED = "uploaded"
    """`file.id`."""
    BATCH = "batch"
    """`id`, `output_file_id`, `error_file_id`."""


_FREE = ("responses/input_tokens", "moderations")
"""Patterns of routes that make a model work for nothing."""
_RUN_MODELS = (*_FREE, "batches")
"""Patterns of routes that do so and report no usage."""
_PARAMETER = re.compile(r"\{(\w+)\}")


@dataclass(frozen=True, slots=True)
class Route:
    """A row of the table of mirrored routes. `pattern` is the path below /v1; `{name}` is one segment, an id.

    Whoever calls must own each object that the path names, but for those in `unowned`: parts of an object that the
    path names too, and what is nobody's.
    """

    method: str
    pattern: str
    body: Body = Body.NONE
    reply: Reply = Reply.FORWARD
    dialect: Dialect = Dialect.OTHER
    group: str = ""
    makes: Makes = Makes.NOTHING
    lists: bool = False
    """Its reply is a page of objects of the whole account: what the caller may not see is taken out."""
    runs_file: bool = False
    """Its body names a file of requests that upstream makes later, one a line: each is checked."""
    unowned: frozenset[str] = frozenset()
    path: str = field(init=False)
    """The pattern as clients know it; safe as a metric label."""
    runs_model: bool = field(init=False)
    """It makes a model work; where a request names none that can be read, it might be any."""
    is_free: bool = field(init=False)
    """It makes a model work, and nobody pays for that."""
    owned: tuple[str, ...] = field(init=False)
    """The names in `pattern` that are ids of objects whose owner is checked."""

    def __post_init__(self) -> None:
        names = _PARAMETER.findall(self.pattern)
        object.__setattr__(self, "path", f"/v1/{self.pattern}")
        runs_model = self.reply is Reply.USAGE or (self.method == "POST" and self.pattern in _RUN_MODELS)
        object.__setattr__(self, "runs_model", runs_model)
        object.__setattr__(self, "is_free", self.method == "POST" and self.pattern in _FREE)
        object.__setattr__(self, "owned", tuple(name for name in names if name not in self.unowned))


@dataclass(frozen=True, slots=True)
class Principal:
    """Who a call is made for: a key and its team, by name and by id, and what both may use."""

    key: str
    team: str
    key_id: str = ""
    team_id: str = ""
    role: Role = "member"
    grants: tuple[Grants, ...] = ()
    """Each must allow a call: the key's and the team's, those that withhold nothing left out."""
    quota: Quota | None = None
    """How much both may use."""
    expires_at_s: int | None = None
    """Unix time from which on the secret that was sent is no longer good: of the key, or of a rotation's grace."""
    is_in_grace: bool = False
    """Whether that secret is one from before a rotation, which is good for calls alone."""
    tags: Mapping[str, str] = field(default_factory=dict)
    """What the key's calls are to be found under, whatever their clients say."""


class Usage(msgspec.Struct, frozen=True, gc=False):
    """Tokens that a reply reports, by kind.

    `input_tokens` and `output_tokens` are totals which contain the other kinds, as in OpenAI's `usage` objects
    (chat: prompt_tokens, completion_tokens; responses: input_tokens, output_tokens).
    """

    input_tokens: int
    output_tokens: int
    total_tokens: int
    cached_tokens: int = 0
    reasoning_tokens: int = 0
    audio_input_tokens: int = 0
    audio_output_tokens: int = 0
    accepted_prediction_tokens: int = 0
    rejected_prediction_tokens: int = 0
    cache_write_tokens: int = 0
    image_input_tokens: int = 0
    image_output_tokens: int = 0
    audio_ms: int = 0
    """How long a sound was, of models that are billed by that; such a reply reports no tokens."""


UpstreamErrorKind = Literal[
    "connect",
    "pool",
    "broken",
    "protocol",
    "key_refused",
    "timeout_connect",
    "timeout_headers",
    "timeout_first_byte",
    "timeout_stream",
    "timeout_total",
]
"""What can go wrong on the way to upstream; `key_refused` is the account's key."""

UsageSource = Literal["none", "reported", "estimated", "due", "unknown"]
"""Where a call's usage is from: it used nothing; upstream reported it; estimated from what was delivered (calls that
were cut); another record will tell (responses in the background); it used something that nobody knows."""


class TraceContext(msgspec.Struct, frozen=True, gc=False):
    """A call's place in a trace (W3C Trace Context); ids are lower-case hex."""

    trace_id: str
    """32 digits."""
    span_id: str
    """16 digits, as all ids of spans: the call as a whole."""
    upstream_span_id: str
    """What upstream is told that it is called from."""
    parent_id: str | None
    """The client's span; None where the trace begins here."""
    flags: int
    state: bytes = b""
    """What other systems on the way want to be passed on, as it came."""

    @property
    def is_sampled(self) -> bool:
        """Whether the trace is kept: the client's decision, or ours where it begins here."""
        return self.flags & 1 == 1


class Due(msgspec.Struct, frozen=True, array_like=True):
    """A response that is made in the background, by its id, and what its call reserved, by the ids of rules."""

    response_id: str
    reserved: Mapping[str, int] = msgspec.field(default_factory=dict)


class CallRecord(msgspec.Struct, frozen=True):
    """The one fact about a call that has ended; metrics and logs are made from it alone.

    Times are in seconds, None where the phase was not reached. `error` is the code of the error that the client
    saw, `upstream_error` what went wrong on the way to upstream: `connect`, `pool`, `broken`, `protocol`,
    `key_refused` (the account's), `timeout_connect`, `timeout_headers`, `timeout_first_byte`, `timeout_stream` or
    `timeout_total`.
    """

    id: str
    upstream_request_id: str | None
    principal: Principal | None
    route: Route | None
    method: str
    model: str | None
    status: int
    """As sent to the client; 0 if nothing was."""
    outcome: Outcome
    streamed: bool
    started_at_s: float
    """Unix time."""
    duration_s: float
    first_byte_s: float | None
    """From the call's start to the first byte of the reply's body from upstream."""
    overhead_s: float | None
    """The gateway's own share: before the request went upstream and after its first byte came back."""
    sent_bytes: int
    usage: Usage | None
    error: str | None
    upstream_error: str | None
    usage_source: UsageSource = "none"
    """`usage` is None for `none`, `due` and `unknown`."""
    cost_microusd: int | None = None
    """0 for `none` and `due`. None where usage is unknown, or of a model that has no price: unpriced, never free."""
    endpoint: str | None = None
    """The upstream endpoint that the call went to, by name; None if it went to none."""
    queue_s: float = 0.0
    """How long it waited for its turn under a limit; no part of `overhead_s`."""
    tags: Mapping[str, str] = msgspec.field(default_factory=dict)
    """What its client wants it to be found under."""
    pieces: int = 0
    """In how many pieces its event stream came from upstream; 0 for a plain reply."""
    longest_gap_s: float = 0.0
    """The longest time between two of them, 0 where there were not two."""
    sent_s: float | None = None
    """From the call's start until its request went upstream."""
    trace: TraceContext | None = None
    """None where traces are off."""
    due: Due | None = None
    """Of a call whose usage another record will tell; and of that record, if it is known what the call reserved."""


Recorded = tuple[CallRecord, str]
"""A call's record, and a detail of how it ended for the log, without any secret."""
