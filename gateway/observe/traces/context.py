"""W3C Trace Context: which trace a call belongs to, read from its head and written into the one for upstream.

Pure but for random ids. Knows the two headers (https://www.w3.org/TR/trace-context/) and who decides whether a trace
is kept; nothing of spans. What is malformed is ignored, as the standard asks for, and a new trace begins.
"""

import re
from collections.abc import Iterable, Sequence
from os import urandom
from typing import NamedTuple

from gateway.call import TraceContext

HEADERS = frozenset((b"traceparent", b"tracestate"))

_PARENT = re.compile(rb"(?!ff)([0-9a-f]{2})-(?!0{32})([0-9a-f]{32})-(?!0{16})([0-9a-f]{16})-([0-9a-f]{2})(-.*)?")
_MEMBER = re.compile(rb"[a-z0-9][a-z0-9_\-*/@]{0,255}=[ -+\--<>-~]{0,255}[!-+\--<>-~]")
_MOST_MEMBERS = 32
_SAMPLED = 1
_KNOWN_FLAGS = 3
"""Sampled, and random-trace-id of level 2; other bits mean nothing yet and must not be passed on."""
_IDS = 2**64

RawHeaders = list[tuple[bytes, bytes]]


class _Parent(NamedTuple):
    """Whose part a call is: ids in hex."""

    trace_id: str
    span_id: str
    flags: int
    state: bytes


class Contexts:
    """Gives each call its place. Of traces that begin here the share `sample_ratio`, from 0 to 1, is kept."""

    def __init__(self, sample_ratio: float) -> None:
        self._kept_ids = round(sample_ratio * _IDS)

    def begin(self, headers: Iterable[tuple[bytes, bytes]]) -> TraceContext:
        """The context of a call with these headers, their names in lower case: its client's trace, or a new one."""
        ids = urandom(32).hex()
        span_id, upstream_span_id = ids[:16], ids[16:32]
        parent = _parent(headers)
        if parent is None:
            trace_id = ids[32:]
            flags = _SAMPLED if int(trace_id[16:], 16) < self._kept_ids else 0
            return TraceContext(trace_id, span_id, upstream_span_id, None, flags)
        return TraceContext(parent.trace_id, span_id, upstream_span_id, parent.span_id, parent.flags, parent.state)


def lines(context: TraceContext, span_id: str) -> RawHeaders:
    """The headers that tell upstream of the span that it is called from."""
    parent = b"00-%b-%b-%02x" % (context.trace_id.encode(), span_id.encode(), context.flags)
    if not context.state:
        return [(b"traceparent", parent)]
    return [(b"traceparent", parent), (b"tracestate", context.state)]


def _parent(headers: Iterable[tuple[bytes, bytes]]) -> _Parent | None:
    ours = [header for header in headers if header[0] in HEADERS]
    parents = [value for name, value in ours if name == b"traceparent"]
    if len(parents) != 1:
        return None
    parts = _PARENT.fullmatch(parents[0].strip(b" \t"))
    if parts is None or (parts[1] == b"00" and parts[5] is not None):
        return None
    state = _state([value for name, value in ours if name == b"tracestate"])
    return _Parent(parts[2].decode(), parts[3].decode(), int(parts[4], 16) & _KNOWN_FLAGS, state)


def _state(values: Sequence[bytes]) -> bytes:
    """Other systems' entries as they came, b"" if they are not what the standard allows."""
    members = [member for value in values for member in re.split(rb"[ \t]*,[ \t]*", value.strip(b" \t")) if member]
    keys = {member.partition(b"=")[0] for member in members}
    if len(members) > _MOST_MEMBERS or len(keys) < len(members) or not all(map(_MEMBER.fullmatch, members)):
        return b""
    return b",".join(members)
