"""The table of errors at the face, row by row: status, the four members, headers, and that upstream was not called."""

import asyncio
import gzip
import json
import re
import zlib
from collections.abc import Callable

import pytest
import zstandard

from tests.faults.face import (
    AUTHORIZATION,
    CHAT,
    RESPONSES,
    ask,
    connected,
    post,
    request,
)
from tests.http.refusals import (
    BAD_REQUEST,
    MAX_BODY_BYTES,
    NO_KEY,
    NOT_ALLOWED,
    TOO_LARGE,
    UNKNOWN_CODING,
    UNKNOWN_ROUTE,
    WEBSOCKET,
    WRONG_KEY,
    assert_refused,
    one_gateway,
)
from tests.support.gateway import KEY, UPSTREAM_KEY, running_gateway
from tests.support.wire import WireUpstream, reply

# Keys


@pytest.mark.parametrize("authorization", [None, "", "Bearer", "Bearer ", "Basic eA==", KEY, "bearer\t"])
async def test_no_key_is_401_and_not_to_be_retried(authorization: str | None) -> None:
    headers = [] if authorization is None else [("Authorization", authorization)]
    async with one_gateway() as (upstream, gateway):
        answer = await ask(gateway.port, request("POST", CHAT, b"{}", headers))
    assert "Authorization: Bearer" in assert_refused(answer, NO_KEY)
    assert not upstream.requests


async def test_every_wrong_key_gets_one_same_body() -> None:
    wrong = ["x", KEY + "x", KEY[:-1], KEY.upper(), UPSTREAM_KEY, "sk-gw-" + "0" * 38, "\xff" * 40, "a b", "y" * 5000]
    async with one_gateway() as (upstream, gateway):
        bodies = set()
        for token in wrong:
            data = request("POST", CHAT, b"{}", [("Authorization", f"Bearer {token}")])
            answer = await ask(gateway.port, data)
            assert_refused(answer, WRONG_KEY)
            bodies.add(answer.body)
    assert len(bodies) == 1
    assert not upstream.requests


# Routes and paths

UNKNOWN = [
    ("GET", "/v1/organization/users"),
    ("POST", "/v1/projects"),
    ("GET", "/v1/nothing"),
    ("PUT", CHAT),
    ("PATCH", "/v1/models"),
    ("OPTIONS", CHAT),
    ("TRACE", "/v1/models"),
    ("POST", "/v1/models"),
    ("GET", "/v1"),
    ("GET", "/v1/"),
    ("GET", "/v1/models/"),
    ("GET", "/V1/models"),
    ("POST", "/v1/Chat/completions"),
    ("GET", "/responsesx"),
    ("GET", "/nowhere"),
    ("GET", "/"),
]


async def test_a_route_that_is_not_in_the_table_is_404_with_and_without_a_key() -> None:
    async with one_gateway() as (upstream, gateway):
        for method, path in UNKNOWN:
            for headers in ([AUTHORIZATION], []):
                message = assert_refused(await ask(gateway.port, request(method, path, headers=headers)), UNKNOWN_ROUTE)
                assert message.startswith(f"Invalid URL ({method} {path})")
    assert not upstream.requests


@pytest.mark.parametrize(
    ("method", "path", "cure"),
    [
        ("GET", "/v1/embeddings", "This path takes POST."),
        ("PUT", "/v1/chat/completions/chatcmpl_1", "This path takes DELETE and GET and POST."),
        ("POST", "/v1/models/openai/gpt-5.2", "This path takes GET."),
        ("POST", "/v1/v1/chat/completions", "The base URL of your client has /v1 twice, or your client adds it by"),
        ("POST", "/v1/v1", "The base URL of your client has /v1 twice"),
        ("POST", "/v1/messages", "Anthropic's Messages API is not mirrored; use /v1/chat/completions."),
        ("POST", "/v1/messages/count_tokens", "Anthropic's Messages API is not mirrored"),
        ("GET", "/v1/fine_tuning/jobs", "This gateway does not mirror this path; /docs has those that it does."),
        ("GET", "/v1", "Check the method and the base URL of your client: it ends in /v1."),
        (
            "GET",
            "/admin/v1/team",
            "The admin API has no such path; /docs has those that there are.",
        ),
        ("GET", "/admin/v1/keys/", "No path of the admin API ends in a slash: is a variable at its end empty?"),
        ("POST", "/key/generate", "Keys are made at POST /admin/v1/keys: see docs/from-litellm.md."),
        ("GET", "/health", "Whether this gateway runs is told at GET /healthz"),
        ("DELETE", "/admin/v1/keys", "This path takes GET and POST: see /docs."),
    ],
)
async def test_a_url_that_is_not_there_is_answered_with_what_to_do(method: str, path: str, cure: str) -> None:
    async with one_gateway() as (upstream, gateway):
        message = (await ask(gateway.port, request(method, path, headers=[AUTHORIZATION]))).error["message"]
    assert message.partition(f"({method} {path})")[2].startswith(f". {cure}")
    assert not upstream.requests


async def test_an_unclean_path_is_400() -> None:
    unclean = [
        "/v1/../admin",
        "/v1/./models",
        "/v1/models/%2e%2e/x",
        "/v1/models/.%2E",
        "/v1/%2e%2E%2fadmin",
        "/v1//models",
        "//v1/models",
        "/v1/models%5cx",
        "/v1/models\\x",
        "/v1/models/%00",
        "/v1/responses/a%2fb",
        "/v1/models/%zz",
        "/healthz/../v1/models",
        "/%2e%2e/healthz",
    ]
    async with one_gateway() as (upstream, gateway):
        for path in unclean:
            assert_refused(await ask(gateway.port, request("GET", path)), BAD_REQUEST)
    assert not upstream.requests


async def test_pages_of_the_gateways_own_refuse_in_the_same_shape() -> None:
    async with one_gateway() as (_, gateway):
        for method, path in (("POST", "/healthz"), ("DELETE", "/metrics"), ("PUT", "/openapi.json")):
            assert_refused(await ask(gateway.port, request(method, path)), NOT_ALLOWED)


async def test_websocket_mode_is_426_and_says_what_to_do_instead() -> None:
    upgrade = [AUTHORIZATION, ("Connection", "Upgrade"), ("Upgrade", "websocket"), ("Sec-WebSocket-Version", "13")]
    async with one_gateway() as (upstream, gateway):
        for path in (RESPONSES, "/responses"):
            answer = await ask(gateway.port, request("GET", path, headers=upgrade))
            assert "stream: true" in assert_refused(answer, WEBSOCKET)
    assert not upstream.requests


# Bodies

BAD_BODIES = [
    b"",
    b"{",
    b"[]",
    b'"text"',
    b"null",
    b"{}x",
    b'{"model": m}',
    b"\xff\xfe",
    b'{"model": "\xff"}',
    b'{"model": "a", "model": "b"}',
    b'{"model": "a", "mod\\u0065l": "b"}',
    b'{"model": "a", "Model": "b"}',
    b'{"stream": true, "stream": false}',
    b'{"stream_options": {}, "stream_options": {}}',
    b'{"previous_response_id": "a", "previous_response_id": "b"}',
    b'{"conversation": "a", "conversation": "b"}',
    b'{"max_tokens": 1, "max_tokens": 2}',
    b'{"max_output_tokens": 1, "max_output_tokens": 2}',
    b'{"model": 5}',
    b'{"stream": "yes"}',
    b'{"model": "\\ud800"}',
    b'{"a":' * 100_000 + b"1" + b"}" * 100_000,
    b"[" * 50_000,
]


async def test_a_body_that_is_no_unambiguous_object_is_400() -> None:
    async with one_gateway() as (upstream, gateway):
        for body in BAD_BODIES:
            for path in (CHAT, RESPONSES):
                data = request("POST", path, body, [AUTHORIZATION, ("Content-Length", str(len(body)))], length=False)
                assert_refused(await ask(gateway.port, data), BAD_REQUEST)
    assert not upstream.requests


async def test_the_member_that_is_wrong_is_named() -> None:
    async with one_gateway() as (_, gateway):
        answer = await ask(gateway.port, post(CHAT, b'{"model": "a", "model": "b"}'))
    assert answer.error["param"] == "model"


@pytest.mark.parametrize("path", [CHAT, "/v1/files", "/v1/responses/resp_1"])
async def test_a_header_that_decides_something_may_come_once(path: str) -> None:
    method = "GET" if path.startswith("/v1/responses/") else "POST"
    async with one_gateway() as (upstream, gateway):
        for name in ("Authorization", "Content-Type", "Content-Encoding", "Host"):
            twice = [AUTHORIZATION, (name, "x"), (name, "y")]
            assert (await ask(gateway.port, request(method, path, headers=twice))).status in (400, 401)
    assert not upstream.requests


ENCODERS: dict[str, Callable[[bytes], bytes]] = {
    "gzip": gzip.compress,
    "deflate": zlib.compress,
    "zstd": lambda data: zstandard.ZstdCompressor().compress(data),
}


async def test_a_body_over_the_cap_is_413_whether_it_is_announced_or_not() -> None:
    async with one_gateway(server={"max_body_bytes": MAX_BODY_BYTES}) as (upstream, gateway):
        announced = [AUTHORIZATION, ("Content-Length", str(MAX_BODY_BYTES + 1))]
        assert_refused(await ask(gateway.port, request("POST", CHAT, headers=announced)), TOO_LARGE)
        framed = b"%x\r\n" % (MAX_BODY_BYTES + 1) + b"x" * (MAX_BODY_BYTES + 1) + b"\r\n0\r\n\r\n"
        in_chunks = [AUTHORIZATION, ("Transfer-Encoding", "chunked")]
        assert_refused(await ask(gateway.port, request("POST", CHAT, framed, in_chunks, length=False)), TOO_LARGE)
        exact = json.dumps({"a": "x" * (MAX_BODY_BYTES - 9)}).encode()
        assert len(exact) == MAX_BODY_BYTES
        assert (await ask(gateway.port, post(CHAT, exact))).status == 200
    assert len(upstream.requests) == 1


@pytest.mark.parametrize("length", [True, False])
async def test_an_upload_over_its_cap_is_413(length: bool) -> None:
    fields = [AUTHORIZATION, ("Content-Type", "multipart/form-data; boundary=b")]
    if length:
        data = request("POST", "/v1/files", headers=[*fields, ("Content-Length", "5001")])
    else:
        framed = b"1389\r\n" + b"x" * 5001 + b"\r\n0\r\n\r\n"
        data = request("POST", "/v1/files", framed, [*fields, ("Transfer-Encoding", "chunked")], length=False)
    async with one_gateway(server={"max_upload_bytes": 5000}) as (upstream, gateway):
        assert_refused(await ask(gateway.port, data), TOO_LARGE)
    assert not [seen for seen in upstream.requests if seen.body]


# Every reply


async def test_every_reply_of_the_mirrored_surface_has_both_request_ids_and_they_are_unique() -> None:
    async with one_gateway() as (_, gateway):
        seen = set()
        for _ in range(3):
            for data in (post(CHAT, {}), post(CHAT, b"{"), request("GET", "/v1/x"), request("GET", "/x"), b"?\r\n\r\n"):
                answer = await ask(gateway.port, data)
                assert answer.header("x-request-id") is not None
                seen.add(answer.header("x-gateway-request-id"))
    assert None not in seen
    assert len(seen) == 15


async def test_an_error_before_the_body_was_read_leaves_the_connection_usable() -> None:
    async with one_gateway() as (upstream, gateway), connected(gateway.port) as client:
        for _ in range(3):
            client.send(request("POST", CHAT, b"x" * 50_000, []))
            assert (await client.answer()).status == 401
        client.send(post(CHAT, {}))
        assert (await client.answer()).status == 200
        await asyncio.wait_for(upstream.received(1), 1)


@pytest.mark.parametrize("coding", list(ENCODERS))
async def test_a_body_that_inflates_over_the_cap_is_413(coding: str) -> None:
    bomb = ENCODERS[coding](b'{"model": "' + b"a" * 50 * MAX_BODY_BYTES + b'"}')
    assert len(bomb) < MAX_BODY_BYTES
    async with one_gateway(server={"max_body_bytes": MAX_BODY_BYTES}) as (upstream, gateway):
        answer = await ask(gateway.port, post(CHAT, bomb, [("Content-Encoding", coding)]))
        assert_refused(answer, TOO_LARGE)
    assert not upstream.requests


@pytest.mark.parametrize("coding", list(ENCODERS))
async def test_an_encoded_body_reaches_upstream_decoded(coding: str) -> None:
    plain = b'{"model": "m", "x": 1.0}'
    encode = ENCODERS[coding]
    async with one_gateway() as (upstream, gateway):
        assert (await ask(gateway.port, post(CHAT, encode(plain), [("Content-Encoding", coding)]))).status == 200
        broken = await ask(gateway.port, post(CHAT, encode(plain)[:-3], [("Content-Encoding", coding)]))
        assert_refused(broken, BAD_REQUEST)
        not_encoded = await ask(gateway.port, post(CHAT, plain, [("Content-Encoding", coding)]))
        assert_refused(not_encoded, BAD_REQUEST)
    assert upstream.requests[0].raw_body == plain
    assert upstream.requests[0].header(b"content-encoding") is None
    assert len(upstream.requests) == 1


async def test_an_unknown_content_encoding_is_415() -> None:
    async with one_gateway() as (upstream, gateway):
        for coding in ("br", "compress", "gzip, br", "x"):
            assert_refused(await ask(gateway.port, post(CHAT, b"{}", [("Content-Encoding", coding)])), UNKNOWN_CODING)
    assert not upstream.requests


async def test_a_refused_account_key_passes_to_the_client_and_is_named_for_whoever_runs_the_gateway() -> None:
    body = b'{"error":{"message":"Incorrect API key provided","type":"t","param":null,"code":"invalid_api_key"}}'
    async with WireUpstream(reply(401, [(b"Content-Type", b"application/json")], body)) as upstream:
        with running_gateway(f"{upstream.url}/v1") as gateway:
            answer = await ask(gateway.port, post(CHAT, {}))
            record = (await gateway.recorded(1))[0]
            metrics = await ask(gateway.port, request("GET", "/metrics"))
    assert (answer.status, answer.body) == (401, body)
    assert (record.outcome, record.error, record.upstream_error) == ("upstream_error", "invalid_api_key", "key_refused")
    counted = rb'^gmi_gateway_upstream_errors_total{kind="key_refused",endpoint="[a-z]+"} 1$'
    assert re.search(counted, metrics.body, re.MULTILINE)
