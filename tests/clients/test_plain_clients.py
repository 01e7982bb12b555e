"""Clients that know nothing of OpenAI: requests, httpx2, curl in its moods, and a bare socket."""

import asyncio
import gzip
import json
import socket
import subprocess
from pathlib import Path
from typing import Any

import httpx2
import pytest
import requests

from tests.clients.conftest import MODEL, TIMEOUT_S
from tests.clients.line import RAW, RESPONSES, UNASKED, Line, Way
from tests.clients.streams import SHORT
from tests.support.gateway import BEARER, KEY, RunningGateway
from tests.support.wire import reply, sse

CHAT: dict[str, Any] = {"model": MODEL, "messages": [{"role": "user", "content": "Hello!"}]}
STREAM = {**CHAT, "stream": True}


async def curl(gateway: RunningGateway, *options: str, body: object = CHAT, simulate: str = "") -> tuple[str, bytes]:
    """What curl shows of heads (all of them) and the body that it got."""
    command = ["curl", "-qsS", "--max-time", "10", "-D", "/dev/stderr", *options, f"{gateway.api}/chat/completions"]
    headers = ["Content-Type: application/json", f"Authorization: Bearer {KEY}", f"x-simulate: {simulate}"]
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(
        *command, *(f"-H{header}" for header in headers), "--data-binary", "@-", stdin=pipe, stdout=pipe, stderr=pipe
    )
    out, heads = await process.communicate(json.dumps(body).encode())
    assert process.returncode == 0, heads
    return heads.decode().lower(), out


def plain_stream(gateway: RunningGateway) -> bytes:
    return requests.post(f"{gateway.api}/chat/completions", json=STREAM, headers=BEARER, timeout=TIMEOUT_S).content


def test_requests_gets_a_reply_and_keeps_its_connection(gateway: RunningGateway) -> None:
    with requests.Session() as session:
        for _ in range(3):
            got = session.post(f"{gateway.api}/chat/completions", json=CHAT, headers=BEARER, timeout=TIMEOUT_S)
            assert got.json()["object"] == "chat.completion"
            assert "connection" not in got.headers
    assert len(gateway.wait_for_records(3)) == 3


def test_requests_reads_a_stream_line_by_line(gateway: RunningGateway) -> None:
    with requests.post(
        f"{gateway.api}/chat/completions", json=STREAM, headers=BEARER, stream=True, timeout=TIMEOUT_S
    ) as got:
        lines = [line for line in got.iter_lines() if line]
    assert lines[-1] == b"data: [DONE]"
    assert all(line.startswith(b"data: ") for line in lines)


def test_requests_may_send_a_body_of_unknown_length(gateway: RunningGateway) -> None:
    pieces = iter([b'{"model":"openai/gpt-5.2",', b'"messages":[{"role":"user",', b'"content":"In pieces"}]}'])
    got = requests.post(f"{gateway.api}/chat/completions", data=pieces, headers=BEARER, timeout=TIMEOUT_S)
    assert "In pieces" in got.json()["choices"][0]["message"]["content"]


def test_httpx2_reads_events_and_an_error(gateway: RunningGateway) -> None:
    with httpx2.Client(base_url=gateway.api, headers=BEARER, timeout=TIMEOUT_S) as http:
        with http.stream("POST", "/chat/completions", json=STREAM) as got:
            assert list(got.iter_lines())[-2:] == ["data: [DONE]", ""]
        refused = http.post("/chat/completions", json={**CHAT, "model": "openai/gpt-0"})
    assert (refused.status_code, refused.json()["error"]["code"]) == (404, "model_not_found")


@pytest.mark.parametrize("path", ["/chat/completions", "/responses"])
def test_a_client_whose_base_url_lacks_the_prefix_is_served(gateway: RunningGateway, path: str) -> None:
    body = {**CHAT, "input": "Hello!"}
    got = requests.post(gateway.url + path, json=body, headers=BEARER, timeout=TIMEOUT_S)
    assert got.json()["object"] in ("chat.completion", "response")


@pytest.mark.parametrize("body", [CHAT, STREAM], ids=["plain", "stream"])
async def test_curl_over_http_1_0_gets_the_whole_reply(gateway: RunningGateway, body: dict[str, Any]) -> None:
    _, old = await curl(gateway, "--http1.0", body=body)
    _, new = await curl(gateway, body=body)
    assert old == new


async def test_curl_that_expects_100_continue_is_told_to_go_on(gateway: RunningGateway) -> None:
    large = {**CHAT, "metadata": {"pad": "x" * 100_000}}
    heads, body = await curl(gateway, "-HExpect: 100-continue", "--expect100-timeout", "9", body=large)
    assert heads.startswith("http/1.1 100 continue")
    assert json.loads(body)["object"] == "chat.completion"


async def test_curl_that_offers_compression_gets_the_same_bytes_and_upstream_is_asked_for_none(
    gateway: RunningGateway,
) -> None:
    heads, body = await curl(gateway, "--compressed", body=STREAM)
    assert "content-encoding" not in heads
    assert body == plain_stream(gateway)


async def test_a_stream_that_upstream_compressed_unasked_is_passed_on_as_it_came(gateway: RunningGateway) -> None:
    heads, packed = await curl(gateway, body={**STREAM, "stream_options": {}}, simulate="odd=gzip")
    assert "content-encoding: gzip" in heads
    assert gzip.decompress(packed).endswith(b"data: [DONE]\n\n")
    _, unpacked = await curl(gateway, "--compressed", body={**STREAM, "stream_options": {}}, simulate="odd=gzip")
    assert unpacked == gzip.decompress(packed)


async def test_curl_sends_two_requests_over_one_connection(gateway: RunningGateway) -> None:
    url = f"{gateway.api}/chat/completions"
    heads, body = await curl(gateway, "-w", "%{num_connects} ", url)
    assert heads.count("http/1.1 200") == 2
    assert body.count(b"1 ") == body.count(b"0 ") == 1


def test_curl_uploads_a_file_in_a_form(gateway: RunningGateway, tmp_path: Path) -> None:
    content = bytes(range(256)) * 100
    (tmp_path / "notes.bin").write_bytes(content)
    form = ["-F", "purpose=user_data", "-F", f"file=@{tmp_path}/notes.bin"]
    command = ["curl", "-qsS", f"{gateway.api}/files", f"-HAuthorization: Bearer {KEY}", *form]
    made = json.loads(subprocess.run(command, capture_output=True, timeout=TIMEOUT_S, check=True).stdout)
    assert made["bytes"] == len(content)
    got = requests.get(f"{gateway.api}/files/{made['id']}/content", headers=BEARER, timeout=TIMEOUT_S)
    assert got.content == content


def over_http_1_0(gateway: RunningGateway, body: bytes) -> tuple[bytes, bytes]:
    """Head and body of a reply to a request of HTTP/1.0, which knows no chunks: the connection's end is the body's."""
    head = f"POST /v1/chat/completions HTTP/1.0\r\nAuthorization: Bearer {KEY}\r\nContent-Length: {len(body)}\r\n\r\n"
    with socket.create_connection(("127.0.0.1", gateway.port), TIMEOUT_S) as connection:
        connection.sendall(head.encode() + body)
        got = b"".join(iter(lambda: connection.recv(65536), b""))
    first, _, rest = got.partition(b"\r\n\r\n")
    return first.lower(), rest


def test_a_plain_reply_to_http_1_0_ends_with_its_connection(gateway: RunningGateway) -> None:
    head, body = over_http_1_0(gateway, json.dumps(CHAT).encode())
    assert b"connection: close" in head
    assert json.loads(body)["object"] == "chat.completion"


def test_an_error_reply_to_http_1_0_ends_with_its_connection(gateway: RunningGateway) -> None:
    _, body = over_http_1_0(gateway, b"{")
    assert json.loads(body)["error"]["type"] == "invalid_request_error"


@pytest.mark.parametrize("way", [UNASKED, RESPONSES, RAW], ids=["chat", "responses", "raw"])
async def test_a_stream_to_http_1_0_which_knows_no_chunks_ends_with_its_connection(wire: Line, way: Way) -> None:
    wire.upstream.scripts = [sse([SHORT["chat"]])]
    head = f"POST /v1{way.path} HTTP/1.0\r\nAuthorization: Bearer {KEY}\r\nContent-Length: {len(way.body)}\r\n"
    reader, writer = await asyncio.open_connection("127.0.0.1", wire.gateway.port)
    writer.write(head.encode() + f"Content-Type: {way.content_type}\r\n\r\n".encode() + way.body)
    got, _, body = (await reader.read()).partition(b"\r\n\r\n")
    writer.close()
    assert b"transfer-encoding" not in got.lower()
    assert body == SHORT["chat"]


async def test_a_get_with_a_body_and_an_odd_query_reaches_upstream_as_it_was(wire: Line) -> None:
    wire.upstream.scripts = [reply(200, body=b"{}")]
    wire.gateway.own("resp_1")
    target = "/v1/responses/resp_1?include[]=a%2Fb&x=%C3%A9&&y=1+2&stream="
    got = await wire.http.request("GET", wire.gateway.url + target, headers=BEARER, content=b"odd")
    assert got.content == b"{}"
    seen = wire.upstream.requests[0]
    assert (seen.target, seen.body) == (target.encode(), b"odd")
