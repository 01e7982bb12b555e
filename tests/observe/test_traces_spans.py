"""The spans of a call: how they nest, what they are called, and what may be in them."""

import re
from typing import Any

import pytest
from msgspec.structs import replace
from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status
from opentelemetry.sdk.resources import Resource

from gateway.call import CallRecord, Principal, Usage
from gateway.http.routes import ROUTES
from gateway.observe.traces.context import Contexts
from gateway.observe.traces.spans import Spans as SpansOf
from tests.observe.collector import Spans, attributes
from tests.observe.test_metrics import RECORD
from tests.observe.test_traces_context import PARENT, SPAN, TRACE

CONTEXT = Contexts(1.0).begin([(b"traceparent", PARENT)])
PLAIN = replace(
    RECORD,
    principal=Principal("ada", "engines", key_id="key_1"),
    started_at_s=1_800_000_000.0,
    duration_s=0.3,
    first_byte_s=0.2,
    sent_s=0.05,
    queue_s=0.04,
    endpoint="upstream",
    usage_source="reported",
    cost_microusd=7,
    trace=CONTEXT,
)
STREAM = replace(PLAIN, streamed=True, pieces=9, longest_gap_s=0.02)
REFUSED = replace(PLAIN, status=429, outcome="refused", error="rate_limit_exceeded", sent_s=None, first_byte_s=None)


def route(method: str, pattern: str) -> Any:
    return next(each for each in ROUTES if (each.method, each.pattern) == (method, pattern))


def spans_of(record: CallRecord, base_url: str = "https://api.gmi-serving.com/v1") -> Spans:
    made = list(SpansOf(base_url, Resource({})).of(record))
    return Spans(
        [span for resource in encode_spans(made).resource_spans for s in resource.scope_spans for span in s.spans]
    )


def whole(record: CallRecord) -> Span:
    (span,) = (span for span in spans_of(record) if span.kind == Span.SPAN_KIND_SERVER)
    return span


def test_a_stream_has_spans_for_admission_upstream_and_the_stream_itself() -> None:
    spans = spans_of(STREAM)
    root, admit, upstream, stream = (spans.one(name) for name in ("chat openai/gpt-5.2", "admit", "upstream", "stream"))
    assert len(spans) == 4
    assert {span.trace_id.hex() for span in spans} == {TRACE}
    assert root.parent_span_id.hex() == SPAN
    assert (root.span_id.hex(), upstream.span_id.hex()) == (CONTEXT.span_id, CONTEXT.upstream_span_id)
    assert admit.parent_span_id == upstream.parent_span_id == root.span_id
    assert stream.parent_span_id == upstream.span_id
    assert [span.kind for span in (root, upstream)] == [Span.SPAN_KIND_SERVER, Span.SPAN_KIND_CLIENT]


def test_the_times_of_spans_are_those_of_the_call() -> None:
    spans = spans_of(STREAM)
    start = 1_800_000_000 * 10**9
    times = {span.name: (span.start_time_unix_nano - start, span.end_time_unix_nano - start) for span in spans}
    assert times == {
        "chat openai/gpt-5.2": (0, 300_000_000),
        "admit": (0, 50_000_000),
        "upstream": (50_000_000, 300_000_000),
        "stream": (200_000_000, 300_000_000),
    }
    (first_byte,) = spans.one("upstream").events
    assert (first_byte.name, first_byte.time_unix_nano - start) == ("first byte", 200_000_000)
    assert attributes(spans.one("admit").attributes) == {"gateway.queue_s": 0.04}


def test_a_call_s_span_has_the_attributes_of_the_conventions() -> None:
    assert attributes(whole(STREAM).attributes) == {
        "http.request.method": "POST",
        "http.route": "/v1/chat/completions",
        "url.path": "/v1/chat/completions",
        "url.scheme": "http",
        "http.response.status_code": 200,
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "gmi_cloud",
        "gen_ai.request.model": "openai/gpt-5.2",
        "gen_ai.request.stream": True,
        "gen_ai.response.time_to_first_chunk": 0.2,
        "gen_ai.usage.input_tokens": 10,
        "gen_ai.usage.output_tokens": 5,
        "gen_ai.usage.cache_read.input_tokens": 4,
        "gateway.request_id": "req_1",
        "gateway.outcome": "done",
        "gateway.team": "engines",
        "gateway.key_id": "key_1",
        "gateway.cost_microusd": 7,
        "gateway.usage_source": "reported",
    }


def test_tokens_are_on_one_span_so_that_nobody_counts_them_twice() -> None:
    usage = replace(
        STREAM, usage=Usage(9, 8, 17, 1, 2, 3, 4, cache_write_tokens=5, image_input_tokens=6, image_output_tokens=7)
    )
    with_tokens = [span for span in spans_of(usage) if "usage" in str(span.attributes)]
    assert [span.name for span in with_tokens] == ["chat openai/gpt-5.2"]
    found = {name: n for name, n in attributes(with_tokens[0].attributes).items() if name.startswith("gen_ai.usage.")}
    assert sorted(found.values()) == [1, 2, 3, 4, 5, 6, 7, 8, 9]


def test_a_call_whose_usage_is_unknown_says_nothing_of_it() -> None:
    assert "usage" not in str(whole(replace(STREAM, usage=None, usage_source="unknown")).attributes)


def test_upstream_s_span_says_where_it_is() -> None:
    upstream = spans_of(PLAIN, "http://127.0.0.1:9000/v1").one("upstream")
    assert attributes(upstream.attributes) == {
        "http.request.method": "POST",
        "server.address": "127.0.0.1",
        "server.port": 9000,
        "url.template": "/v1/chat/completions",
        "gateway.endpoint": "upstream",
        "http.response.status_code": 200,
    }


@pytest.mark.parametrize(
    ("method", "pattern", "name"),
    [
        ("POST", "chat/completions", "chat openai/gpt-5.2"),
        ("POST", "responses", "chat openai/gpt-5.2"),
        ("POST", "completions", "text_completion openai/gpt-5.2"),
        ("POST", "embeddings", "embeddings openai/gpt-5.2"),
        ("POST", "images/generations", "generate_content openai/gpt-5.2"),
        ("GET", "responses/{response_id}", "GET /v1/responses/{response_id}"),
        ("GET", "models", "GET /v1/models"),
        ("DELETE", "files/{file_id}", "DELETE /v1/files/{file_id}"),
    ],
)
def test_a_span_is_named_for_what_the_call_does_or_for_its_route(method: str, pattern: str, name: str) -> None:
    assert whole(replace(PLAIN, method=method, route=route(method, pattern))).name == name


@pytest.mark.parametrize("model", ["tell me a joke", "sk-***", "x" * 201, 'a"b', "naïve", ""])
def test_a_model_that_is_no_name_is_in_no_span(model: str) -> None:
    spans = spans_of(replace(STREAM, model=model))
    assert whole(replace(STREAM, model=model)).name == "chat"
    assert "request.model" not in "".join(str(span) for span in spans)


def test_a_call_that_matched_no_route_has_a_name_from_a_known_set() -> None:
    unmatched = replace(REFUSED, route=None, principal=None, model=None, method="BREW", status=404, error=None)
    assert whole(unmatched).name == "_OTHER"
    assert attributes(whole(unmatched).attributes)["error.type"] == "refused"


@pytest.mark.parametrize(
    ("changes", "error", "is_error", "upstream_is_error"),
    [
        ({"outcome": "done"}, None, False, False),
        ({"outcome": "upstream_error", "status": 429}, "429", False, True),
        ({"outcome": "upstream_error", "status": 500}, "500", True, True),
        ({"outcome": "upstream_error", "status": 200, "error": "whatever"}, "upstream_error", True, True),
        (
            {"outcome": "failed", "status": 502, "error": "upstream_unreachable", "upstream_error": "connect"},
            "connect",
            True,
            True,
        ),
        ({"outcome": "failed", "status": 500, "error": "internal_error"}, "internal_error", True, False),
        ({"outcome": "cut", "error": "upstream_unreachable", "upstream_error": "broken"}, "broken", True, True),
        ({"outcome": "client_left"}, "client_left", False, False),
        ({"outcome": "drained", "error": "draining"}, "draining", True, False),
    ],
)
def test_what_went_wrong_is_a_word_of_a_known_set(
    changes: dict[str, Any], error: str | None, is_error: bool, upstream_is_error: bool
) -> None:
    record = replace(STREAM, **changes)
    root, upstream = whole(record), spans_of(record).one("upstream")
    assert attributes(root.attributes).get("error.type") == error
    assert (root.status.code == Status.STATUS_CODE_ERROR) is is_error
    assert (upstream.status.code == Status.STATUS_CODE_ERROR) is upstream_is_error


@pytest.mark.parametrize(
    ("outcome", "status", "shown"),
    [
        ("done", 200, 200),
        ("upstream_error", 404, 404),
        ("cut", 200, 200),
        ("failed", 502, None),
        ("drained", 503, None),
    ],
)
def test_a_status_of_the_gateway_s_own_is_not_upstream_s(outcome: Any, status: int, shown: int | None) -> None:
    record = replace(PLAIN, outcome=outcome, status=status)
    assert attributes(spans_of(record).one("upstream").attributes).get("http.response.status_code") == shown


def test_a_call_that_was_refused_never_went_upstream() -> None:
    spans = spans_of(REFUSED)
    assert spans.named() == ["chat openai/gpt-5.2", "admit"]
    assert spans.one("admit").end_time_unix_nano == whole(REFUSED).end_time_unix_nano
    assert attributes(whole(REFUSED).attributes)["error.type"] == "rate_limit_exceeded"


def test_a_trace_that_begins_here_has_no_parent() -> None:
    assert whole(replace(PLAIN, trace=Contexts(1.0).begin([]))).parent_span_id == b""


@pytest.mark.parametrize(
    ("base_url", "provider"),
    [
        ("https://api.gmi-serving.com/v1", "gmi_cloud"),
        ("https://api.openai.com/v1", "openai"),
        ("http://vllm.local:8000/v1", "openai"),
        ("https://gmi-serving.com.example/v1", "openai"),
    ],
)
def test_the_provider_is_told_by_its_address(base_url: str, provider: str) -> None:
    spans = spans_of(PLAIN, base_url)
    assert attributes(spans.one("chat openai/gpt-5.2").attributes)["gen_ai.provider.name"] == provider


def test_who_a_key_is_called_after_is_in_no_span() -> None:
    named = replace(STREAM, principal=Principal("ada-lovelace", "engines"), tags={"project": "secret-project"})
    assert not re.search("ada-lovelace|secret-project", "".join(map(str, spans_of(named))))
