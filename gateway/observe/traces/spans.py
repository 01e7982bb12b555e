"""The spans of a call, made of its record when it has ended.

Knows OpenTelemetry's names (https://opentelemetry.io/docs/specs/semconv/gen-ai/ and /http/), and that no prompt,
answer, key or free text of a client's may be in a span: all that comes from a client is its model, if it looks like a
name. Knows nothing of how spans are sent.
"""

import re
from collections.abc import Iterator
from os import urandom
from urllib.parse import urlsplit

from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import Event, ReadableSpan
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import SpanContext, SpanKind, Status, StatusCode, TraceFlags

from gateway import __version__
from gateway.call import CallRecord, Usage

Attributes = dict[str, str | bool | int | float]

_OPERATIONS = {
    "chat/completions": "chat",
    "responses": "chat",
    "responses/compact": "chat",
    "completions": "text_completion",
    "embeddings": "embeddings",
    "images/generations": "generate_content",
    "images/edits": "generate_content",
    "images/variations": "generate_content",
    "audio/speech": "generate_content",
    "audio/transcriptions": "generate_content",
    "audio/translations": "generate_content",
    "vector_stores/{vector_store_id}/search": "retrieval",
}
"""POST routes that do what the conventions have a name for."""
_NAME = re.compile(r"[\w.:/@+-]{1,200}", re.ASCII)
_METHODS = frozenset(("GET", "POST", "DELETE", "PUT", "PATCH", "HEAD", "OPTIONS"))
_SCOPE = InstrumentationScope("gmi-gateway", __version__)
_FROM_UPSTREAM = frozenset(("done", "upstream_error", "cut"))
"""How calls end whose status was upstream's."""
_FAILED = frozenset(("failed", "cut", "drained"))
_NS = 1_000_000_000


class Spans:
    """Makes spans for calls to the upstream at `base_url`; `resource` says which process they are from."""

    def __init__(self, base_url: str, resource: Resource) -> None:
        self._resource = resource
        url = urlsplit(base_url)
        host = url.hostname or ""
        self._address: Attributes = {
            "server.address": host,
            "server.port": url.port or (443 if url.scheme == "https" else 80),
        }
        is_gmi = host == "gmi-serving.com" or host.endswith(".gmi-serving.com")
        self._provider = "gmi_cloud" if is_gmi else "openai"  # whose API it is, where it is not known who speaks it

    def of(self, record: CallRecord) -> Iterator[ReadableSpan]:
        """The call as a whole, its parent first: admit (the queue in it), upstream, and of a stream the stream."""
        trace = record.trace
        if trace is None:
            return
        call = _Timeline(record, self._resource)
        parent = None if trace.parent_id is None else call.context(trace.parent_id, is_remote=True)
        whole = call.context(trace.span_id)
        attributes = self._call_attributes(record)
        yield call.span(
            _name(record), whole, parent, (0.0, record.duration_s), attributes, SpanKind.SERVER, _status(record)
        )
        admitted_s = record.duration_s if record.sent_s is None else record.sent_s
        queued: Attributes = {"gateway.queue_s": record.queue_s} if record.queue_s else {}
        yield call.span("admit", call.context(urandom(8).hex()), whole, (0.0, admitted_s), queued)
        if record.sent_s is not None:
            upstream = call.context(trace.upstream_span_id)
            yield self._upstream(call, record, upstream, whole)
            if record.streamed and record.first_byte_s is not None:
                stream = call.context(urandom(8).hex())
                pieces: Attributes = {"gateway.pieces": record.pieces, "gateway.longest_gap_s": record.longest_gap_s}
                yield call.span("stream", stream, upstream, (record.first_byte_s, record.duration_s), pieces)

    def _upstream(
        self, call: "_Timeline", record: CallRecord, context: SpanContext, parent: SpanContext
    ) -> ReadableSpan:
        attributes: Attributes = {"http.request.method": _method(record), **self._address}
        if record.route is not None:
            attributes["url.template"] = record.route.path
        if record.endpoint is not None:
            attributes["gateway.endpoint"] = record.endpoint
        status = Status()
        if record.outcome in _FROM_UPSTREAM and record.status:
            attributes["http.response.status_code"] = record.status
        error = record.upstream_error or _upstreams_answer(record)
        if error is not None:
            attributes["error.type"] = error
            status = Status(StatusCode.ERROR)
        times = (record.sent_s or 0.0, record.duration_s)
        return call.span("upstream", context, parent, times, attributes, SpanKind.CLIENT, status, record.first_byte_s)

    def _call_attributes(self, record: CallRecord) -> Attributes:
        """What is known of the call as a whole; tokens are on this span alone, so that nobody counts them twice."""
        route, principal = record.route, record.principal
        attributes: Attributes = {
            "http.request.method": _method(record),
            "url.scheme": "http",
            "gateway.request_id": record.id,
            "gateway.outcome": record.outcome,
        }
        if record.status:
            attributes["http.response.status_code"] = record.status
        if route is not None:
            attributes |= {"http.route": route.path, "url.path": route.path}
        if principal is not None:
            attributes |= {"gateway.team": principal.team, "gateway.key_id": principal.key_id}
        if (error := _error(record)) is not None:
            attributes["error.type"] = error
        if record.cost_microusd is not None:
            attributes["gateway.cost_microusd"] = record.cost_microusd
        if (operation := _operation(record)) is not None:
            attributes |= {"gen_ai.operation.name": operation, "gen_ai.provider.name": self._provider}
            attributes |= _generation(record)
        return attributes


class _Timeline:
    """Spans of one call, in its trace; times are in seconds from its start."""

    def __init__(self, record: CallRecord, resource: Resource) -> None:
        if record.trace is None:
            raise ValueError("the call is not traced")
        self._trace_id, self._flags = int(record.trace.trace_id, 16), TraceFlags(record.trace.flags)
        self._start_ns = round(record.started_at_s * _NS)
        self._resource = resource

    def context(self, span_id: str, *, is_remote: bool = False) -> SpanContext:
        return SpanContext(self._trace_id, int(span_id, 16), is_remote, self._flags)

    def span(  # noqa: PLR0913 - what a span is
        self,
        name: str,
        context: SpanContext,
        parent: SpanContext | None,
        times_s: tuple[float, float],
        attributes: Attributes,
        kind: SpanKind = SpanKind.INTERNAL,
        status: Status | None = None,
        first_byte_s: float | None = None,
    ) -> ReadableSpan:
        return ReadableSpan(
            name,
            context,
            parent,
            self._resource,
            attributes,
            () if first_byte_s is None else (Event("first byte", timestamp=self._at_ns(first_byte_s)),),
            kind=kind,
            status=status or Status(),
            start_time=self._at_ns(times_s[0]),
            end_time=self._at_ns(times_s[1]),
            instrumentation_scope=_SCOPE,
        )

    def _at_ns(self, offset_s: float) -> int:
        return self._start_ns + round(offset_s * _NS)


def _name(record: CallRecord) -> str:
    """From few words: what it does and to which model, or method and route."""
    operation = _operation(record)
    if operation is not None:
        model = _model(record)
        return operation if model is None else f"{operation} {model}"
    return _method(record) if record.route is None else f"{_method(record)} {record.route.path}"


def _method(record: CallRecord) -> str:
    return record.method if record.method in _METHODS else "_OTHER"


def _operation(record: CallRecord) -> str | None:
    route = record.route
    return None if route is None or route.method != "POST" else _OPERATIONS.get(route.pattern)


def _model(record: CallRecord) -> str | None:
    return record.model if record.model is not None and _NAME.fullmatch(record.model) else None


def _generation(record: CallRecord) -> Attributes:
    attributes: Attributes = {}
    if (model := _model(record)) is not None:
        attributes["gen_ai.request.model"] = model
    if record.streamed:
        attributes["gen_ai.request.stream"] = True
        if record.first_byte_s is not None:
            attributes["gen_ai.response.time_to_first_chunk"] = record.first_byte_s
    if record.usage is not None:
        attributes |= _tokens(record.usage)
        attributes["gateway.usage_source"] = record.usage_source
    return attributes


def _tokens(usage: Usage) -> Attributes:
    kinds = {
        "cache_read.input_tokens": usage.cached_tokens,
        "cache_write.input_tokens": usage.cache_write_tokens,
        "reasoning.output_tokens": usage.reasoning_tokens,
        "audio.input_tokens": usage.audio_input_tokens,
        "audio.output_tokens": usage.audio_output_tokens,
        "image.input_tokens": usage.image_input_tokens,
        "image.output_tokens": usage.image_output_tokens,
    }
    tokens: Attributes = {f"gen_ai.usage.{kind}": count for kind, count in kinds.items() if count}
    return {
        "gen_ai.usage.input_tokens": usage.input_tokens,
        "gen_ai.usage.output_tokens": usage.output_tokens,
    } | tokens


def _error(record: CallRecord) -> str | None:
    """What went wrong, of a known set: a phase of the way to upstream, a code of ours, a status, or how it ended."""
    if record.outcome == "done":
        return None
    return record.upstream_error or _upstreams_answer(record) or record.error or record.outcome


def _upstreams_answer(record: CallRecord) -> str | None:
    """Of an error of upstream's own: its status, or that there was one in a stream; its code may be anything."""
    if record.outcome != "upstream_error":
        return None
    return str(record.status) if record.status >= 400 else record.outcome


def _status(record: CallRecord) -> Status:
    """Of a server's span: what clients do wrong, or break off, is no error of the server's."""
    is_broken = record.outcome == "upstream_error" and record.status < 400
    return Status(StatusCode.ERROR) if is_broken or record.outcome in _FAILED or record.status >= 500 else Status()
