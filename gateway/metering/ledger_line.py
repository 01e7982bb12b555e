"""A call in one line of the ledger's journal.

The line is a JSON array, which both databases take apart by themselves; its order is that of `Line`. Whatever a client
or upstream made up is cut to what its column holds, and rid of what PostgreSQL keeps in no text. Pure.
"""

from collections.abc import Mapping
from typing import Annotated

import msgspec

from gateway.call import CallRecord, Due, Outcome, Usage, UsageSource

_Count = Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)]
_Moment = Annotated[int, msgspec.Meta(ge=0, le=32_472_144_000_000_000)]
"""Until the year 2999: the calendar, which sums by day are made with, ends not much later."""
_KINDS = len(Usage.__struct_fields__)
_NOTHING = [0] * _KINDS
_MODEL, _ENDPOINT, _ERROR, _UPSTREAM_ERROR, _REQUEST_ID = 200, 100, 100, 40, 200
"""Characters that the columns hold."""
_TO_MODEL, _TO_ENDPOINT, _TO_ERROR = slice(_MODEL), slice(_ENDPOINT), slice(_ERROR)
_TO_UPSTREAM_ERROR, _TO_REQUEST_ID = slice(_UPSTREAM_ERROR), slice(_REQUEST_ID)
_TAG_NAME, _TAG_VALUE, _MOST_TAGS = 64, 200, 32


class Line(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """What the ledger keeps of a call. Times in microseconds, `started_at` since 1970; `usage` is None if unknown."""

    id: Annotated[str, msgspec.Meta(max_length=100)]
    started_at: _Moment
    team_id: Annotated[str, msgspec.Meta(max_length=40)]
    key_id: Annotated[str, msgspec.Meta(max_length=40)]
    method: Annotated[str, msgspec.Meta(max_length=10)]
    route: Annotated[str, msgspec.Meta(max_length=100)]
    model: Annotated[str, msgspec.Meta(max_length=_MODEL)] | None
    endpoint: Annotated[str, msgspec.Meta(max_length=_ENDPOINT)] | None
    status: Annotated[int, msgspec.Meta(ge=0, le=999)]
    outcome: Outcome
    streamed: bool
    error: Annotated[str, msgspec.Meta(max_length=_ERROR)] | None
    upstream_error: Annotated[str, msgspec.Meta(max_length=_UPSTREAM_ERROR)] | None
    upstream_request_id: Annotated[str, msgspec.Meta(max_length=_REQUEST_ID)] | None
    usage_source: UsageSource
    cost_microusd: _Count | None
    queue_us: _Count
    overhead_us: _Count | None
    first_byte_us: _Count | None
    duration_us: _Count
    sent_bytes: _Count
    usage: list[_Count] | None
    """In the order of the fields of `gateway.call.Usage`."""
    tags: dict[
        Annotated[str, msgspec.Meta(max_length=_TAG_NAME)], Annotated[str, msgspec.Meta(max_length=_TAG_VALUE)]
    ] = msgspec.field(default_factory=dict)
    more: Annotated[int, msgspec.Meta(ge=0, le=2**31)] = 0
    """So many other calls like this one, which was refused, have no line of their own."""
    due: Due | None = None
    """The response whose usage will be known later."""


_encode = msgspec.json.Encoder().encode
decode = msgspec.json.Decoder(Line).decode
"""Of one line. Raises `msgspec.DecodeError`."""
_NUL = b"\\u0000"
_usage_of = msgspec.structs.astuple


def encode(record: CallRecord, more: int = 0) -> bytes:
    """The line, with its newline, of a call on a route by a known key. Raises ValueError for any other.

    A refused call has no tags: nothing was used that is to be found again, and their client may have made them up.
    """
    principal, route, usage = record.principal, record.route, record.usage
    if principal is None or route is None:
        raise ValueError("the ledger keeps no calls by nobody, or to nowhere")
    # The parts of these two are differences of times, and one of nothing may come out a little below it.
    overhead_s, first_byte_s = record.overhead_s, record.first_byte_s
    parts: tuple[object, ...] = (
        record.id,
        int(record.started_at_s * 1e6),
        principal.team_id,
        principal.key_id,
        record.method,
        route.path,
        record.model and record.model[_TO_MODEL],
        record.endpoint and record.endpoint[_TO_ENDPOINT],
        record.status,
        record.outcome,
        record.streamed,
        record.error and record.error[_TO_ERROR],
        record.upstream_error and record.upstream_error[_TO_UPSTREAM_ERROR],
        record.upstream_request_id and record.upstream_request_id[_TO_REQUEST_ID],
        record.usage_source,
        record.cost_microusd,
        int(record.queue_s * 1e6) if record.queue_s else 0,
        None if overhead_s is None else int(overhead_s * 1e6) if overhead_s > 0.0 else 0,
        None if first_byte_s is None else int(first_byte_s * 1e6) if first_byte_s > 0.0 else 0,
        int(record.duration_s * 1e6),
        record.sent_bytes,
        _usage_of(usage) if usage is not None else _NOTHING if record.usage_source == "none" else None,
        _cut_tags(record.tags) if record.tags and record.outcome != "refused" else _NO_TAGS,
    )
    if more:
        parts += (more,)
    elif record.due is not None and record.usage_source == "due":
        parts += (0, (record.due.response_id, dict(record.due.reserved)))
    try:
        line = _encode(parts)
    except UnicodeEncodeError:
        line = _NUL
    if _NUL in line:
        line = _encode(_storable(parts))
    return line + b"\n"


def usage_of(line: Line) -> Usage | None:
    """What a line says of usage. Lines of other versions may know fewer kinds of it, or more."""
    return None if line.usage is None else Usage(*(*line.usage, *_NOTHING)[:_KINDS])


_NO_TAGS: dict[str, str] = {}


def _cut_tags(tags: Mapping[str, str]) -> dict[str, str]:
    return {name[:_TAG_NAME]: value[:_TAG_VALUE] for name, value in list(tags.items())[:_MOST_TAGS]}


def _storable(part: object) -> object:
    """The same without what is no text: NUL, and halves of characters."""
    if isinstance(part, str):
        return part.encode("utf-8", "replace").decode().replace("\0", "")
    if isinstance(part, (tuple, list)):
        return [_storable(each) for each in part]
    return {_storable(name): _storable(each) for name, each in part.items()} if isinstance(part, dict) else part
