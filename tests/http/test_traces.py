"""Traces at the face: what a collector gets of real calls, and what upstream is told of them."""

import asyncio
import json
import re
from collections.abc import Iterator
from typing import Any

import httpx2
import pytest
from openai import OpenAI
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status

from gateway.simulator import running_simulator
from tests.faults.face import CHAT, Answer, ask, connected, post, request
from tests.observe.collector import Spans, TraceCollector, attributes, trace_collector
from tests.support.gateway import KEY, UPSTREAM_KEY, RunningGateway, running_gateway
from tests.support.wire import Fin, Reset, Stall, Step, WireRequest, WireUpstream, reply, sse

TRACE, SPAN = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
PARENT = ("traceparent", f"00-{TRACE}-{SPAN}-01")
UNSAMPLED = ("traceparent", f"00-{TRACE}-{SPAN}-00")
STATE = ("tracestate", "vendor=1, other=2")
JSON = [(b"Content-Type", b"application/json")]
USAGE = {"prompt_tokens": 8, "completion_tokens": 2, "total_tokens": 10}
OK = reply(200, JSON, json.dumps({"id": "x", "usage": USAGE}).encode())
BODY = {"model": "m", "messages": [{"role": "user", "content": "Hi"}]}
STREAM = {**BODY, "stream": True}
EVENTS: list[bytes | str | dict[str, Any]] = [
    {"choices": [{"index": 0, "delta": {"content": "Hi"}}]},
    {"choices": [], "usage": USAGE},
    "[DONE]",
]
TRACEPARENT = re.compile("00-([0-9a-f]{32})-([0-9a-f]{16})-(0[0-3])")


@pytest.fixture
def collector() -> Iterator[TraceCollector]:
    with trace_collector() as collector:
        yield collector


def told(asked: WireRequest) -> tuple[str, str, str]:
    """Trace, span and flags that upstream was told, once."""
    (value,) = [value.decode() for name, value in asked.headers if name.lower() == b"traceparent"]
    parts = TRACEPARENT.fullmatch(value)
    assert parts is not None, value
    return parts[1], parts[2], parts[3]


def to(collector: TraceCollector, **settings: Any) -> dict[str, Any]:
    return {"traces": {"endpoint": collector.url, **settings}}


async def chat(gateway: RunningGateway, body: object = BODY, *headers: tuple[str, str]) -> Answer:
    return await ask(gateway.port, post(CHAT, body, headers))


def root(spans: Spans) -> Span:
    (span,) = (span for span in spans if span.kind == Span.SPAN_KIND_SERVER)
    return span


def is_within(child: Span, parent: Span) -> bool:
    starts = parent.start_time_unix_nano <= child.start_time_unix_nano
    return starts and child.end_time_unix_nano <= parent.end_time_unix_nano


@pytest.mark.parametrize("transport", ["native", "httpx2"])
async def test_a_stream_s_spans_nest_between_its_client_s_and_upstream_s(
    collector: TraceCollector, transport: str
) -> None:
    async with WireUpstream(sse(EVENTS)) as upstream:
        section = {"transport": transport}
        with running_gateway(f"{upstream.url}/v1", upstream=section, **to(collector)) as gateway:
            assert (await chat(gateway, STREAM, PARENT, STATE)).status == 200
    spans = collector.spans
    call, inside = root(spans), spans.one("upstream")
    assert spans.children(call).named() == ["admit", "upstream"]
    assert spans.children(inside).named() == ["stream"]
    assert (call.trace_id.hex(), call.parent_span_id.hex()) == (TRACE, SPAN)
    assert told(upstream.requests[0]) == (TRACE, inside.span_id.hex(), "01")
    assert upstream.requests[0].header(b"tracestate") == b"vendor=1,other=2"
    assert is_within(spans.one("admit"), call)
    assert is_within(inside, call)
    assert is_within(spans.one("stream"), inside)
    assert spans.one("admit").end_time_unix_nano == inside.start_time_unix_nano
    (first_byte,) = inside.events
    assert first_byte.time_unix_nano == spans.one("stream").start_time_unix_nano


async def test_every_call_of_a_client_that_knows_no_traces_has_one_of_its_own(collector: TraceCollector) -> None:
    async with WireUpstream(OK) as upstream:
        with running_gateway(f"{upstream.url}/v1", **to(collector)) as gateway:
            async with connected(gateway.port) as client:
                for _ in range(3):  # the later heads are known
                    client.send(post(CHAT, BODY))
                    assert (await client.answer()).status == 200
    assert [name for name, _ in upstream.requests[2].headers] == [name for name, _ in upstream.requests[0].headers]
    for asked in upstream.requests:
        trace_id, span_id, flags = told(asked)
        spans = collector.spans.of_trace(trace_id)
        assert spans.one("upstream").span_id.hex() == span_id
        assert root(spans).parent_span_id == b""
        assert flags == "01"
        assert len(spans) == 3
    assert len({told(asked)[0] for asked in upstream.requests}) == 3


async def test_a_head_with_a_place_in_a_trace_is_not_taken_for_another(collector: TraceCollector) -> None:
    other = ("traceparent", f"00-{TRACE[::-1]}-{SPAN}-01")
    async with WireUpstream(OK) as upstream:
        with running_gateway(f"{upstream.url}/v1", **to(collector)) as gateway:
            for headers in ([PARENT], [PARENT], [other], [], []):
                assert (await chat(gateway, BODY, *headers)).status == 200
    traces = [told(asked)[0] for asked in upstream.requests]
    assert traces[:3] == [TRACE, TRACE, TRACE[::-1]]
    assert len({told(asked)[1] for asked in upstream.requests}) == 5
    assert len(set(traces)) == 4


@pytest.mark.parametrize("value", ["nonsense", f"00-{TRACE}-{'0' * 16}-01", f"{PARENT[1]}-extra"])
async def test_a_malformed_place_in_a_trace_is_ignored(collector: TraceCollector, value: str) -> None:
    async with WireUpstream(OK) as upstream:
        with running_gateway(f"{upstream.url}/v1", **to(collector)) as gateway:
            assert (await chat(gateway, BODY, ("traceparent", value), STATE)).status == 200
    assert told(upstream.requests[0])[0] != TRACE
    assert upstream.requests[0].header(b"tracestate") is None
    assert root(collector.spans).parent_span_id == b""


async def test_what_the_client_does_not_keep_is_not_kept_here_but_upstream_is_told(collector: TraceCollector) -> None:
    async with WireUpstream(OK) as upstream:
        with running_gateway(f"{upstream.url}/v1", **to(collector)) as gateway:
            assert (await chat(gateway, BODY, UNSAMPLED)).status == 200
            assert (await chat(gateway, BODY, PARENT)).status == 200
    (trace_id, span_id, flags), kept = map(told, upstream.requests)
    assert (trace_id, flags) == (TRACE, "00")
    assert span_id != SPAN
    assert len(collector.spans) == 3
    assert collector.spans.one("upstream").span_id.hex() == kept[1]


async def test_the_ratio_decides_on_traces_that_begin_here_alone(collector: TraceCollector) -> None:
    async with WireUpstream(OK) as upstream:
        with running_gateway(f"{upstream.url}/v1", **to(collector, sample_ratio=0)) as gateway:
            assert (await chat(gateway)).status == 200
            assert (await chat(gateway, BODY, PARENT)).status == 200
    assert told(upstream.requests[0])[2] == "00"
    assert told(upstream.requests[1])[2] == "01"
    assert {span.trace_id.hex() for span in collector.spans} == {TRACE}


async def test_without_an_endpoint_headers_of_traces_pass_unchanged() -> None:
    async with WireUpstream(OK) as upstream:
        with running_gateway(f"{upstream.url}/v1") as gateway:
            await chat(gateway)
            await chat(gateway, BODY, ("traceparent", "odd"), STATE)
            (record, _) = await gateway.recorded(2)
    assert upstream.requests[0].header(b"traceparent") is None
    assert upstream.requests[1].header(b"traceparent") == b"odd"
    assert upstream.requests[1].header(b"tracestate") == STATE[1].encode()
    assert record.trace is None


CUT: list[Step] = [*sse(EVENTS[:1], end=False), Reset()]
ENDINGS: list[tuple[list[Step] | bytes, object, str, str | None, list[str]]] = [
    (OK, BODY, "done", None, ["admit", "upstream"]),
    (reply(429, JSON, b'{"error": {}}'), BODY, "upstream_error", "429", ["admit", "upstream"]),
    ([Fin()], BODY, "failed", "broken", ["admit", "upstream"]),
    (CUT, STREAM, "cut", "broken", ["admit", "upstream", "stream"]),
    (OK, b"{", "refused", None, ["admit"]),
]


@pytest.mark.parametrize(("script", "body", "outcome", "error", "children"), ENDINGS, ids=[each[2] for each in ENDINGS])
async def test_spans_say_how_a_call_ended(
    collector: TraceCollector, script: Any, body: object, outcome: str, error: str | None, children: list[str]
) -> None:
    async with WireUpstream(script) as upstream:
        with running_gateway(f"{upstream.url}/v1", **to(collector)) as gateway:
            await chat(gateway, body)
            (record,) = await gateway.recorded(1)
    call = root(collector.spans)
    found = attributes(call.attributes)
    assert (record.outcome, found["gateway.outcome"]) == (outcome, outcome)
    assert found.get("error.type") == (error if outcome != "refused" else record.error)
    assert (call.status.code == Status.STATUS_CODE_ERROR) is (outcome in ("failed", "cut"))
    assert found["gateway.request_id"] == record.id
    assert found["http.response.status_code"] == record.status
    assert sorted({span.name for span in collector.spans} - {call.name}) == sorted(children)


@pytest.mark.parametrize(("target", "status"), [("/v1/organization/keys", 404), (CHAT, 401)])
async def test_calls_of_strangers_are_traced_without_what_they_sent(
    collector: TraceCollector, target: str, status: int
) -> None:
    async with WireUpstream(OK) as upstream:
        with running_gateway(f"{upstream.url}/v1", **to(collector)) as gateway:
            data = request("POST", f"{target}?canary=1", b"{}", [("Authorization", "Bearer canary-4711"), PARENT])
            assert (await ask(gateway.port, data)).status == status
    assert upstream.requests == []
    assert root(collector.spans).trace_id.hex() == TRACE
    assert b"canary" not in b"".join(body for _, _, body in collector.requests)
    assert b"organization" not in b"".join(body for _, _, body in collector.requests)


async def test_a_call_whose_client_left_is_traced_to_that_moment(collector: TraceCollector) -> None:
    async with WireUpstream([*sse(EVENTS[:1], end=False), Stall()]) as upstream:
        with running_gateway(f"{upstream.url}/v1", **to(collector)) as gateway:
            async with connected(gateway.port) as client:
                client.send(post(CHAT, STREAM, [PARENT]))
                await client.head()
                await client.chunk()
                client.leave()
                (record,) = await gateway.recorded(1)
    call = root(collector.spans)
    assert attributes(call.attributes)["error.type"] == "client_left"
    assert call.end_time_unix_nano - call.start_time_unix_nano == round(record.duration_s * 1e9)
    assert collector.spans.one("stream").end_time_unix_nano == call.end_time_unix_nano


async def test_what_is_asked_before_the_call_itself_belongs_to_the_call_s_own_span(collector: TraceCollector) -> None:
    line = {"custom_id": "1", "method": "POST", "url": CHAT, "body": BODY}
    file = reply(200, [(b"Content-Type", b"application/octet-stream")], json.dumps(line).encode())
    batch = {"input_file_id": "file-1", "endpoint": CHAT, "completion_window": "24h"}
    async with WireUpstream(file, reply(200, JSON, b'{"id": "batch_1"}')) as upstream:
        with running_gateway(f"{upstream.url}/v1", **to(collector)) as gateway:
            gateway.own("file-1")
            assert (await ask(gateway.port, post("/v1/batches", batch, [PARENT]))).status == 200
    checked, sent = map(told, upstream.requests)
    assert checked == (TRACE, root(collector.spans).span_id.hex(), "01")
    assert sent == (TRACE, collector.spans.one("upstream").span_id.hex(), "01")


async def test_pages_of_a_list_are_asked_from_one_span(collector: TraceCollector) -> None:
    page = reply(200, JSON, json.dumps({"object": "list", "data": [], "has_more": False}).encode())
    async with WireUpstream(page) as upstream:
        with running_gateway(f"{upstream.url}/v1", **to(collector)) as gateway:
            assert (await ask(gateway.port, request("GET", "/v1/files"))).status == 200
    assert told(upstream.requests[0])[1] == collector.spans.one("upstream").span_id.hex()
    assert root(collector.spans).name == "GET /v1/files"


async def test_an_upload_that_streams_through_is_traced_too(collector: TraceCollector) -> None:
    form = b'--b\r\nContent-Disposition: form-data; name="purpose"\r\n\r\nbatch\r\n--b--\r\n'
    headers = [("Authorization", f"Bearer {KEY}"), ("Content-Type", "multipart/form-data; boundary=b"), PARENT]
    async with WireUpstream(reply(200, JSON, b'{"id": "file-1"}')) as upstream:
        with running_gateway(f"{upstream.url}/v1", **to(collector)) as gateway:
            assert (await ask(gateway.port, request("POST", "/v1/files", form, headers))).status == 200
    assert upstream.requests[0].body == form
    assert told(upstream.requests[0])[:2] == (TRACE, collector.spans.one("upstream").span_id.hex())


def test_an_sdk_s_calls_are_traced_with_their_tokens_and_without_a_word_of_theirs(collector: TraceCollector) -> None:
    messages: Any = [{"role": "user", "content": "prompt-canary"}]
    with (
        running_simulator(api_key=UPSTREAM_KEY) as base_url,
        running_gateway(base_url, **to(collector)) as gateway,
        OpenAI(base_url=gateway.api, api_key=KEY, max_retries=0) as client,
    ):
        made = client.chat.completions.create(model="openai/gpt-5.2", messages=messages, user="user-canary")
        with client.responses.create(model="openai/gpt-5.2", input="prompt-canary", stream=True) as events:
            (last,) = (event for event in events if event.type == "response.completed")
        client.embeddings.create(model="openai/text-embedding-3-small", input="prompt-canary")
    assert made.usage is not None
    assert last.response.usage is not None
    calls = [span for span in collector.spans if span.kind == Span.SPAN_KIND_SERVER]
    assert [span.name for span in calls] == [*["chat openai/gpt-5.2"] * 2, "embeddings openai/text-embedding-3-small"]
    tokens = [attributes(span.attributes) for span in calls[:2]]
    found = [(each["gen_ai.usage.input_tokens"], each["gen_ai.usage.output_tokens"]) for each in tokens]
    assert found == [
        (made.usage.prompt_tokens, made.usage.completion_tokens),
        (last.response.usage.input_tokens, last.response.usage.output_tokens),
    ]
    exported = b"".join(body for _, _, body in collector.requests)
    answer = (made.choices[0].message.content or "").encode()
    assert answer
    for secret in (b"canary", KEY.encode(), UPSTREAM_KEY.encode(), b"Bearer", answer):
        assert secret not in exported


def test_the_collector_is_told_who_speaks_and_with_its_own_headers(
    collector: TraceCollector, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_HEADERS", "authorization=Bearer%20of-the-collector")
    monkeypatch.setenv("OTEL_RESOURCE_ATTRIBUTES", "deployment.environment.name=test")
    with running_gateway("http://127.0.0.1:9/v1", **to(collector, service_name="our-gateway")) as gateway:
        assert asyncio.run(chat(gateway)).status == 502
    ((path, headers, _),) = collector.requests
    assert path == "/v1/traces"
    assert headers["authorization"] == "Bearer of-the-collector"
    resource = collector.resource()
    assert resource["service.name"] == "our-gateway"
    assert resource["deployment.environment.name"] == "test"
    assert {"service.version", "service.instance.id"} < set(resource)


def test_an_endpoint_with_a_path_is_taken_as_it_is(collector: TraceCollector) -> None:
    traces = {"endpoint": f"{collector.url}/otlp/traces"}
    with running_gateway("http://127.0.0.1:9/v1", traces=traces) as gateway:
        assert asyncio.run(chat(gateway)).status == 502
    assert [path for path, _, _ in collector.requests] == ["/otlp/traces"]


async def test_calls_go_on_while_the_collector_is_away(caplog: pytest.LogCaptureFixture) -> None:
    with trace_collector() as gone:
        pass
    async with WireUpstream(OK) as upstream:
        with running_gateway(f"{upstream.url}/v1", **to(gone)) as gateway:
            statuses = {(await chat(gateway)).status for _ in range(20)}
    assert statuses == {200}
    said = [record.getMessage() for record in caplog.records if record.name == "gateway"]
    assert len([line for line in said if line.startswith("Traces cannot be sent to ")]) == 1


def test_metrics_tell_of_lost_traces_from_0_where_calls_are_traced(collector: TraceCollector) -> None:
    """Of a count that begins with 1 nobody could tell that it has grown."""
    with running_gateway("http://127.0.0.1:9/v1", **to(collector)) as gateway:
        traced = httpx2.get(f"{gateway.url}/metrics", trust_env=False).text
    with running_gateway("http://127.0.0.1:9/v1") as gateway:
        untraced = httpx2.get(f"{gateway.url}/metrics", trust_env=False).text
    name = "gmi_gateway_traces_lost_total"
    assert re.findall(rf"^({name}.*)$", traced, re.MULTILINE) == [
        f'{name}{{reason="queue_full"}} 0',
        f'{name}{{reason="not_taken"}} 0',
    ]
    assert re.findall(rf"^{name}", untraced, re.MULTILINE) == []
