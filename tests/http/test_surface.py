"""The mirrored surface at the face: what upstream saw, what the client got, byte for byte."""

import asyncio
import json
from typing import Any

import pytest

from tests.faults.face import (
    AUTHORIZATION,
    CHAT,
    RESPONSES,
    Fields,
    ask,
    connected,
    parse_head,
    post,
    request,
)
from tests.support.gateway import UPSTREAM_KEY, running_gateway
from tests.support.wire import WireRequest, WireUpstream, chunk, reply, sse

OK = reply(200, [(b"Content-Type", b"application/json")], b'{"ok": true}')


# Targets


async def test_the_raw_path_and_the_query_reach_upstream_as_they_were_sent(upstream_section: dict[str, Any]) -> None:
    kept = (
        "/v1/models/openai%2Fgpt-5.2",
        "/v1/models/openai/gpt-5.2",
        "/v1/responses/resp_1/input_items?after=a%20b&&limit=2&x=%2f;y=",
        "/v1/responses/resp_1?stream=true&starting_after=3",
        "/v1/models?metadata[a]=b&order=desc",
        "/v1/files/file-%C3%A9/content?",
    )
    async with WireUpstream(OK) as upstream:
        with running_gateway(f"{upstream.url}/v1/", upstream=upstream_section) as gateway:
            gateway.own("resp_1", "file-\u00e9")
            for target in kept:
                assert (await ask(gateway.port, request("GET", target))).status == 200
    assert [seen.target.decode() for seen in upstream.requests] == [target.removesuffix("?") for target in kept]


@pytest.mark.parametrize("base", ["", "/v1", "/v1/", "/gmi%20x/v1"])
async def test_paths_go_below_the_base_url_once(base: str) -> None:
    async with WireUpstream(OK) as upstream:
        with running_gateway(f"{upstream.url}{base}") as gateway:
            for path in (CHAT, "/chat/completions", RESPONSES, "/responses"):
                assert (await ask(gateway.port, post(path, {"model": "m"}))).status == 200
            assert (await ask(gateway.port, post("/v1/v1/chat/completions", {}))).status == 404
            assert (await ask(gateway.port, post(f"{CHAT}/", {}))).status == 404
    below = base.rstrip("/").encode()
    expected = [below + path for path in (b"/chat/completions", b"/responses") for _ in range(2)]
    assert [seen.target for seen in upstream.requests] == expected


async def test_an_absolute_target_is_routed_by_its_path_alone() -> None:
    async with WireUpstream(OK) as upstream:
        with running_gateway(f"{upstream.url}/v1") as gateway:
            answer = await ask(gateway.port, request("GET", "http://elsewhere.example/v1/models?a=b"))
    assert answer.status == 200
    assert [seen.target for seen in upstream.requests] == [b"/v1/models?a=b"]
    assert upstream.requests[0].header(b"host") == f"127.0.0.1:{upstream.port}".encode()


# Request headers

FORWARDED: Fields = (
    ("Accept", "application/json"),
    ("Content-Type", "application/json"),
    ("OpenAI-Beta", "responses=v1"),
    ("X-Client-Request-Id", "c-1"),
    ("X-Stainless-Lang", "python"),
    ("User-Agent", "OpenAI/Python 3.54.0"),
    ("originator", "codex_cli"),
    ("session-id", "s-1"),
    ("x-codex-turn", "7"),
    ("X-Odd", "  spaces within   stay"),
    ("X-Twice", "1"),
    ("X-Twice", "2"),
    ("x-empty", ""),
    ("X-Latin", "caf\xe9"),
)
DROPPED: Fields = (
    ("Connection", "keep-alive, X-Hop, authorization, content-type-x"),
    ("X-Hop", "1"),
    ("Keep-Alive", "timeout=5"),
    ("Proxy-Connection", "keep-alive"),
    ("Proxy-Authorization", "Basic eA=="),
    ("TE", "trailers"),
    ("Trailer", "X-T"),
    ("Cookie", "a=b"),
    ("OpenAI-Organization", "org-1"),
    ("OpenAI-Project", "proj-1"),
    ("X-Forwarded-For", "10.0.0.1"),
    ("X-Forwarded-Proto", "https"),
    ("Forwarded", "for=10.0.0.1"),
    ("X-Gateway-Anything", "1"),
    ("Accept-Encoding", "gzip, br, zstd"),
    ("X-Organization-ID", "someone-elses"),
)


async def test_upstream_gets_the_clients_headers_without_those_that_end_here(upstream_section: dict[str, Any]) -> None:
    body = b'{"model": "m"}'
    async with WireUpstream(OK) as upstream:
        section = {**upstream_section, "organization_id": "org-ours"}
        with running_gateway(f"{upstream.url}/v1", upstream=section) as gateway:
            await ask(gateway.port, request("POST", CHAT, body, (*DROPPED, AUTHORIZATION, *FORWARDED)))
    seen = parse_head(upstream.requests[0].head)
    ours = [
        ("host", f"127.0.0.1:{upstream.port}"),
        ("authorization", f"Bearer {UPSTREAM_KEY}"),
        ("accept-encoding", "identity"),
        ("x-organization-id", "org-ours"),
        ("content-length", str(len(body))),
    ]
    assert sorted(seen) == sorted([*((name.lower(), value.strip()) for name, value in FORWARDED), *ours])
    forwarded = [name.lower() for name, _ in FORWARDED]
    assert [name for name, _ in seen if name in forwarded] == forwarded


async def test_a_bare_request_gets_no_header_of_a_librarys_own(upstream_section: dict[str, Any]) -> None:
    async with WireUpstream(OK) as upstream:
        with running_gateway(f"{upstream.url}/v1", upstream=upstream_section) as gateway:
            gateway.own("resp_1")
            for method, path in (("GET", "/v1/models"), ("DELETE", "/v1/responses/resp_1")):
                await ask(gateway.port, request(method, path))
            await ask(gateway.port, request("POST", "/v1/responses/resp_1/cancel"))
    names = [sorted(name for name, _ in parse_head(seen.head)) for seen in upstream.requests]
    bare = ["accept-encoding", "authorization", "host"]
    assert names == [bare, bare, sorted([*bare, "content-length"])]
    assert [seen.raw_body for seen in upstream.requests] == [b"", b"", b""]


async def test_an_idempotency_key_is_the_same_again_for_one_team_and_another_for_the_next() -> None:
    keys = [
        {"name": name, "team": team, "secret": f"sk-{name}-0123456789abcdef"}
        for name, team in (("ada", "a"), ("bob", "a"), ("cyd", "b"))
    ]
    async with WireUpstream(OK) as upstream:
        with running_gateway(f"{upstream.url}/v1", keys=keys) as gateway:
            for key in ("ada", "bob", "cyd"):
                bearer = ("Authorization", f"Bearer sk-{key}-0123456789abcdef")
                data = request("POST", CHAT, b"{}", (bearer, ("Idempotency-Key", "retry-1")))
                assert (await ask(gateway.port, data)).status == 200
    ada, bob, cyd = (seen.header(b"idempotency-key") for seen in upstream.requests)
    assert ada == bob != cyd
    assert b"retry-1" not in {ada, cyd}


# Reply headers


async def test_the_client_gets_upstreams_headers_without_those_of_the_account(upstream_section: dict[str, Any]) -> None:
    kept = [
        ("content-type", "application/json"),
        ("x-request-id", "req_upstream"),
        ("openai-processing-ms", "12"),
        ("openai-version", "2020-10-01"),
        ("retry-after", "7"),
        ("retry-after-ms", "7000"),
        ("date", "Sun, 22 Nov 2026 10:00:00 GMT"),
        ("x-twice", "1"),
        ("x-twice", "2"),
    ]
    dropped = [
        ("Connection", "keep-alive, X-Hop"),
        ("X-Hop", "1"),
        ("Keep-Alive", "timeout=5"),
        ("Set-Cookie", "__cf_bm=1"),
        ("Alt-Svc", 'h3=":443"'),
        ("Server", "cloudflare"),
        ("Strict-Transport-Security", "max-age=1"),
        ("OpenAI-Organization", "org-1"),
        ("OpenAI-Project", "proj-1"),
        ("X-RateLimit-Limit-Requests", "500"),
        ("X-Ratelimit-Remaining-Tokens", "1"),
        ("X-Gateway-Request-Id", "forged"),
        ("X-Gateway-Cost-Usd", "0"),
        ("X-Echo", f"Bearer {UPSTREAM_KEY}"),
    ]
    fields = [(name.encode(), value.encode()) for name, value in (*kept, *dropped)]
    async with WireUpstream(reply(200, fields, b"{}")) as upstream:
        with running_gateway(f"{upstream.url}/v1", upstream=upstream_section) as gateway:
            answer = await ask(gateway.port, request("GET", "/v1/models"))
    own = answer.header("x-gateway-request-id")
    assert own is not None
    assert own.startswith("req_")
    receipt = {"x-gateway-overhead-ms", "x-gateway-queue-ms", "x-gateway-upstream"}
    assert sorted(field for field in answer.headers if field[0] not in receipt) == sorted(
        [*kept, ("content-length", "2"), ("x-gateway-request-id", own)]
    )


async def test_a_reply_has_an_end_though_upstream_lists_its_length_as_the_connections(
    upstream_section: dict[str, Any],
) -> None:
    raw = reply(200, [(b"Connection", b"Content-Length, X-Hop"), (b"X-Hop", b"1")], b"{}")
    async with WireUpstream(raw) as upstream:
        with running_gateway(f"{upstream.url}/v1", upstream=upstream_section) as gateway:
            async with connected(gateway.port) as client:
                for _ in range(2):
                    client.send(post(CHAT, {"model": "m", "messages": []}))
                    answer = await client.answer()
                    assert (answer.body, answer.header("content-length"), answer.header("x-hop")) == (b"{}", "2", None)


@pytest.mark.parametrize("stated", [b"Close", b"keep-alive"])
async def test_a_stream_says_that_it_is_not_to_be_buffered_and_never_closes_the_connection(
    upstream_section: dict[str, Any], stated: bytes
) -> None:
    script = sse([{"choices": []}, "[DONE]"])
    assert isinstance(script[0], bytes)
    script[0] = script[0].replace(b"\r\n", b"\r\nConnection: %s\r\n" % stated, 1)
    async with WireUpstream(script) as upstream:
        with running_gateway(f"{upstream.url}/v1", upstream=upstream_section) as gateway:
            async with connected(gateway.port) as client:
                for _ in range(2):
                    client.send(post(CHAT, {"model": "m", "stream": True, "stream_options": {"include_usage": True}}))
                    answer = await client.answer()
                    assert answer.body == b'data: {"choices": []}\n\ndata: [DONE]\n\n'
                    assert answer.header("cache-control") == "no-cache"
                    assert answer.header("x-accel-buffering") == "no"
                    assert answer.header("connection") is None
                    assert answer.header("content-type") == "text/event-stream"


# Bodies


async def test_an_alias_changes_the_models_bytes_and_no_others(upstream_section: dict[str, Any]) -> None:
    before = b' {"a":1.0e+2 ,"m\xc3\xa9":"\\u0041", "nested":{"model":"gpt"},\n "model" : '
    after = b' ,"big":12345678901234567890123,"x":[ null,-0.0],"dup":1,"dup":2}\n'
    async with WireUpstream(OK) as upstream:
        aliases = {"gpt": "openai/gpt-5.2"}
        with running_gateway(f"{upstream.url}/v1", upstream=upstream_section, models={"aliases": aliases}) as gateway:
            await ask(gateway.port, post(RESPONSES, before + b'"gpt"' + after))
            await ask(gateway.port, post(RESPONSES, before + b'"other"' + after))
            await ask(gateway.port, request("GET", "/v1/models/gpt"))
            records = await gateway.recorded(3)
    assert upstream.requests[0].raw_body == before + b'"openai/gpt-5.2"' + after
    assert upstream.requests[1].raw_body == before + b'"other"' + after
    assert upstream.requests[2].target == b"/v1/models/openai%2Fgpt-5.2"
    assert [record.model for record in records][:2] == ["openai/gpt-5.2", "other"]


def usage_stream() -> list[bytes]:
    return [
        b'data: {"id":"c","choices":[{"delta":{"content":"\xe2\x82\xac"}}],"usage":null}\n\n',
        b": a comment\n\n",
        b'data: {"id":"c","choices":[],"usage":{"prompt_tokens":3,"completion_tokens":2,"total_tokens":5}}\n\n',
        b"data: [DONE]\n\n",
    ]


async def test_usage_is_asked_for_and_taken_out_again_where_the_client_did_not_ask(
    upstream_section: dict[str, Any],
) -> None:
    async with WireUpstream(sse(usage_stream())) as upstream:
        with running_gateway(f"{upstream.url}/v1", upstream=upstream_section) as gateway:
            asked = await ask(gateway.port, post(CHAT, b'{"stream_options":{"include_usage":true},"stream":true}'))
            silent = await ask(gateway.port, post(CHAT, b'{ "stream":true}'))
            records = await gateway.recorded(2)
    assert asked.body == b"".join(usage_stream())
    chunk_without_usage = usage_stream()[0].replace(b',"usage":null', b"")
    assert silent.body == chunk_without_usage + usage_stream()[1] + usage_stream()[3]
    assert upstream.requests[0].raw_body == b'{"stream_options":{"include_usage":true},"stream":true}'
    assert upstream.requests[1].raw_body == b'{"stream_options":{"include_usage":true}, "stream":true}'
    for record in records:
        assert record.usage is not None
        assert (record.usage.input_tokens, record.usage.output_tokens) == (3, 2)
        assert record.outcome == "done"


async def test_usage_is_not_asked_for_where_settings_say_so() -> None:
    async with WireUpstream(sse(usage_stream())) as upstream:
        with running_gateway(f"{upstream.url}/v1", streams={"include_usage": False}) as gateway:
            answer = await ask(gateway.port, post(CHAT, b'{"stream":true}'))
    assert answer.body == b"".join(usage_stream())
    assert upstream.requests[0].raw_body == b'{"stream":true}'


@pytest.mark.parametrize("is_chunked", [False, True])
async def test_a_multipart_upload_arrives_as_it_was_sent(upstream_section: dict[str, Any], is_chunked: bool) -> None:
    boundary = "----odd'boundary()+_,-./:=?"
    content_type = f'multipart/form-data; boundary="{boundary}"'
    payload = bytes(range(256)) * 20_000
    head = f'--{boundary}\r\nContent-Disposition: form-data; name="file"; filename="a.bin"\r\n\r\n'.encode()
    body = head + payload + f"\r\n--{boundary}--\r\n".encode()
    fields = [AUTHORIZATION, ("Content-Type", content_type)]
    async with WireUpstream(OK) as upstream:
        with running_gateway(f"{upstream.url}/v1", upstream=upstream_section) as gateway:
            if is_chunked:
                framed = b"".join(chunk(body[at : at + 70_000]) for at in range(0, len(body), 70_000)) + b"0\r\n\r\n"
                fields.append(("Transfer-Encoding", "chunked"))
                data = request("POST", "/v1/files", framed, fields, length=False)
            else:
                data = request("POST", "/v1/files", body, fields)
            answer = await ask(gateway.port, data, within_s=15)
    seen = upstream.requests[0]
    assert answer.status == 200
    assert seen.body == body
    assert seen.header(b"content-type") == content_type.encode()
    assert (seen.header(b"content-length") is None) == is_chunked


async def test_an_upload_to_a_slow_upstream_is_not_held_in_memory(upstream_section: dict[str, Any]) -> None:
    go = asyncio.Event()

    async def slow(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, seen: WireRequest) -> None:
        await go.wait()
        await reader.readexactly(int(seen.header(b"content-length") or b"0"))
        writer.write(OK)

    size = 64 * 1024 * 1024
    async with WireUpstream(slow, body_first=False) as upstream:
        with running_gateway(f"{upstream.url}/v1", upstream=upstream_section) as gateway:
            fields = [AUTHORIZATION, ("Content-Type", "multipart/form-data; boundary=b"), ("Content-Length", str(size))]
            async with connected(gateway.port) as client:
                client.send(request("POST", "/v1/files", headers=fields))
                taken = await _push(client.writer, size)
                await upstream.received(1)
                assert taken < 32 * 1024 * 1024
                go.set()
                client.send(bytes(size - taken))
                assert (await client.answer(within_s=20)).status == 200


async def _push(writer: asyncio.StreamWriter, size: int) -> int:
    """Send zeros until nobody takes them any more; how many were taken."""
    piece, taken = bytes(256 * 1024), 0
    try:
        while taken < size:
            writer.write(piece)
            taken += len(piece)
            async with asyncio.timeout(0.5):
                await writer.drain()
    except TimeoutError:
        pass
    return taken


# What upstream refuses

REFUSALS = [
    (400, b'{"error":{"message":"no","type":"invalid_request_error","param":null,"code":"x","extra":[1.0]}}'),
    (401, b'{"error":{"message":"bad key"}}'),
    (404, b""),
    (418, b"<html>teapot\xff\x00</html>"),
    (429, b'{"error": {"message": "slow down"}}\n'),
    (500, b"oops"),
    (503, b'{"detail":"FastAPI upstream"}'),
]


async def test_upstreams_own_errors_pass_as_they_are(upstream_section: dict[str, Any]) -> None:
    fields = [(b"Content-Type", b"text/x-any"), (b"Retry-After", b"33"), (b"X-Should-Retry", b"true")]
    scripts = [reply(status, fields, body) for status, body in REFUSALS]
    async with WireUpstream(*scripts) as upstream:
        with running_gateway(f"{upstream.url}/v1", upstream=upstream_section) as gateway:
            for status, body in REFUSALS:
                answer = await ask(gateway.port, post(CHAT, {"model": "m", "stream": True}))
                assert (answer.status, answer.body) == (status, body)
                assert answer.header("content-type") == "text/x-any"
                assert (answer.header("retry-after"), answer.header("x-should-retry")) == ("33", "true")
            records = await gateway.recorded(len(REFUSALS))
    assert {record.outcome for record in records} == {"upstream_error"}
    assert len(upstream.requests) == len(REFUSALS)


async def test_plain_json_where_a_stream_was_asked_for_passes_as_it_is() -> None:
    async with WireUpstream(reply(200, [(b"Content-Type", b"application/json")], b'{"choices": [1]}')) as upstream:
        with running_gateway(f"{upstream.url}/v1") as gateway:
            answer = await ask(gateway.port, post(CHAT, {"stream": True}))
    assert json.loads(answer.body) == {"choices": [1]}
    assert answer.header("x-accel-buffering") is None
