"""The bytes of the benchmark: requests as an OpenAI SDK sends them, replies as upstream sends them.

Everything is made once, before the first measurement, so that whoever sends
it only writes and whoever gets it only compares. Knows nothing of sockets.
"""

import json
from dataclasses import dataclass
from typing import Any, Literal

StreamKind = Literal["chat", "responses"]
Json = dict[str, Any]

CLIENT_KEY = "bench-client-key-0123456789abcdef"
UPSTREAM_KEY = "bench-upstream-key-0123456789abcdef"
MODEL = "openai/gpt-5.2"
BENCH_HEADER = b"\r\nx-bench: "  # tells upstream what to answer; every proxy passes it on

_SDK_HEADERS = """\
Host: {host}
Accept-Encoding: gzip, deflate
Connection: keep-alive
authorization: Bearer {key}
accept: application/json
content-type: application/json
user-agent: OpenAI/Python 3.54.0
x-stainless-lang: python
x-stainless-package-version: 3.54.0
x-stainless-os: Linux
x-stainless-arch: x64
x-stainless-runtime: CPython
x-stainless-runtime-version: 3.11.7
x-stainless-async: async:asyncio
x-stainless-retry-count: 0
x-stainless-read-timeout: 600
x-bench: {bench}
Content-Length: {length}
"""

_UPSTREAM_HEADERS = """\
Date: Sun, 22 Nov 2026 12:00:00 GMT
Content-Type: {content_type}
Connection: keep-alive
Server: upstream
openai-processing-ms: 412
openai-version: 2020-10-01
x-ratelimit-limit-requests: 10000
x-ratelimit-limit-tokens: 30000000
x-ratelimit-remaining-requests: 9999
x-ratelimit-remaining-tokens: 29999970
x-ratelimit-reset-requests: 6ms
x-ratelimit-reset-tokens: 0s
x-request-id: req_7f6c1f0e2d3b4a5c8d9e0f1a2b3c4d5e
"""

_STREAM_FRAMING = "Transfer-Encoding: chunked\nX-Accel-Buffering: no"


@dataclass(frozen=True, slots=True)
class Call:
    """One request, complete with head, and the body that its reply must have, byte for byte."""

    request: bytes
    reply_body: bytes
    others: tuple[bytes, ...] = ()
    """Requests that take turns with it, where each is to have a head of its own."""


@dataclass(frozen=True, slots=True)
class Stream:
    """One streaming request, and what its client must see: `events` of them, together `reply_body`."""

    request: bytes
    reply_body: bytes
    events: int


def plain_call(prompt_bytes: int | None = None) -> Call:
    """A chat call of about 300 bytes, or one whose image is `prompt_bytes` long; the reply has 1 KB."""
    body = _chat_body(stream=False) if prompt_bytes is None else _image_body(prompt_bytes)
    return Call(_request("/v1/chat/completions", body, "plain"), plain_reply_body())


def plain_calls_with_new_heads() -> Call:
    """As `plain_call`, but no head is like one that came lately: more of them than a gateway would remember."""
    call = plain_call()
    marks = (b"x-client-request-id: %08x" % number for number in range(4096))
    return Call(
        call.request, call.reply_body, tuple(call.request.replace(b"\r\n", b"\r\n%b\r\n" % mark, 1) for mark in marks)
    )


def paced_stream(kind: StreamKind, events: int, rate_hz: int, *, asks_usage: bool) -> Stream:
    """A stream of `events` deltas at `rate_hz`; `asks_usage` is the client's own `include_usage`."""
    seen = stream_events(kind, events, with_usage=asks_usage)
    if kind == "chat":
        target, body = "/v1/chat/completions", _chat_body(stream=True, asks_usage=asks_usage)
    else:
        target, body = "/v1/responses", _responses_body()
    return Stream(_request(target, body, f"{kind} {events} {rate_hz}"), b"".join(seen), len(seen))


def idle_stream() -> Stream:
    """A chat stream that sends one event and then stays open until the client leaves."""
    first = stream_events("chat", 1, with_usage=False)[0]
    return Stream(_request("/v1/chat/completions", _chat_body(stream=True), "idle"), first, 1)


def wants_usage(body: bytes) -> bool:
    """Whether upstream was asked for usage in a chat stream, by the client or by the gateway."""
    return b'"include_usage"' in body


def stream_events(kind: StreamKind, count: int, *, with_usage: bool) -> list[bytes]:
    """What upstream writes: `count` deltas of about 250 bytes, each with its own number, and the end."""
    return _chat_events(count, with_usage) if kind == "chat" else _responses_events(count)


def reply_head(content_type: str, length: int | None) -> bytes:
    """Upstream's head; without a length the body comes in HTTP chunks, which nginx is told not to gather."""
    framing = f"Content-Length: {length}" if length is not None else _STREAM_FRAMING
    lines = [
        "HTTP/1.1 200 OK",
        *_UPSTREAM_HEADERS.format(content_type=content_type).splitlines(),
        *framing.splitlines(),
        "",
        "",
    ]
    return "\r\n".join(lines).encode()


def as_http_chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


def _request(target: str, body: bytes, bench: str) -> bytes:
    headers = _SDK_HEADERS.format(host="127.0.0.1", key=CLIENT_KEY, bench=bench, length=len(body))
    head = "\r\n".join([f"POST {target} HTTP/1.1", *headers.splitlines(), "", ""])
    return head.encode() + body


def _compact(value: object) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode()


def _messages() -> list[dict[str, str]]:
    return [
        {"role": "developer", "content": "You are a helpful assistant. Answer in one short paragraph."},
        {"role": "user", "content": "List 3 countries and their capitals, and say which of them lies north."},
    ]


def _chat_body(*, stream: bool, asks_usage: bool = False) -> bytes:
    options = {"stream_options": {"include_usage": True}} if asks_usage else {}
    streaming = {"stream": True} if stream else {}
    sampling = {"temperature": 0, "max_completion_tokens": 500}
    return _compact({"messages": _messages(), "model": MODEL} | sampling | streaming | options)


def _image_body(size: int) -> bytes:
    image = {"type": "image_url", "image_url": {"url": "data:image/png;base64," + "iVBORw0K" * (size // 8)}}
    content = [{"type": "text", "text": "What is in this image?"}, image]
    return _compact({"messages": [{"role": "user", "content": content}], "model": MODEL})


def _responses_body() -> bytes:
    instructions = "You are a helpful assistant. Answer in one short paragraph."
    return _compact({"model": MODEL, "instructions": instructions, "input": _messages()[1]["content"], "stream": True})


def _chat_usage() -> Json:
    prompt: Json = {"cached_tokens": 0, "audio_tokens": 0}
    completion = {"reasoning_tokens": 0, "audio_tokens": 0, "accepted_prediction_tokens": 0}
    details = {"prompt_tokens_details": prompt, "completion_tokens_details": completion}
    totals: Json = {"prompt_tokens": 42, "completion_tokens": 150, "total_tokens": 192}
    return totals | details


def plain_reply_body() -> bytes:
    text = "Norway's capital is Oslo, Italy's is Rome and Kenya's is Nairobi. " * 6
    message: Json = {"role": "assistant", "content": text, "refusal": None, "annotations": []}
    choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": "stop"}
    meta = {"id": "chatcmpl-bench", "object": "chat.completion", "created": 1795348800, "model": MODEL}
    fingerprint = {"service_tier": "default", "system_fingerprint": "fp_0123456789"}
    return json.dumps(meta | {"choices": [choice], "usage": _chat_usage()} | fingerprint, indent=2).encode()


def _chat_chunk(delta: dict[str, str], finish: str | None, *, with_usage: bool) -> bytes:
    choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish}
    usage = {"usage": None} if with_usage else {}
    return _sse(_chat_meta() | {"choices": [choice]} | usage | {"obfuscation": "kZ3qP1x"})


def _chat_meta() -> Json:
    meta = {"id": "chatcmpl-bench", "object": "chat.completion.chunk", "created": 1795348800, "model": MODEL}
    return meta | {"service_tier": "default", "system_fingerprint": "fp_0123456789"}


def _chat_events(count: int, with_usage: bool) -> list[bytes]:
    deltas = [_chat_chunk({"content": f" word{n:05d}"}, None, with_usage=with_usage) for n in range(count)]
    end = [_chat_chunk({}, "stop", with_usage=with_usage)]
    if with_usage:
        end.append(_sse(_chat_meta() | {"choices": [], "usage": _chat_usage(), "obfuscation": ""}))
    return [*deltas, *end, b"data: [DONE]\n\n"]


def _responses_events(count: int) -> list[bytes]:
    bare: Json = {"id": "resp_bench", "object": "response", "created_at": 1795348800, "model": MODEL}
    tokens: Json = {"input_tokens": 42, "output_tokens": 150, "total_tokens": 192}
    details = {"input_tokens_details": {"cached_tokens": 0}, "output_tokens_details": {"reasoning_tokens": 0}}
    created = {"response": bare | {"status": "in_progress", "usage": None}}
    completed = {"response": bare | {"status": "completed", "usage": tokens | details}}
    deltas = [_responses_event("response.output_text.delta", n + 1, _responses_delta(n)) for n in range(count)]
    first = _responses_event("response.created", 0, created)
    return [first, *deltas, _responses_event("response.completed", count + 1, completed)]


def _responses_delta(number: int) -> Json:
    place = {"item_id": "msg_0123456789abcdef", "output_index": 0, "content_index": 0}
    return place | {"delta": f" word{number:05d}", "logprobs": [], "obfuscation": "kZ3qP1x"}


def _responses_event(name: str, number: int, data: Json) -> bytes:
    return b"event: " + name.encode() + b"\n" + _sse({"type": name, "sequence_number": number} | data)


def _sse(data: object) -> bytes:
    return b"data: " + _compact(data) + b"\n\n"
