"""Request bodies reach upstream byte for byte: compressed ones decoded, large ones whole."""

import base64
import gzip
import hashlib
import json
import random
import zlib
from collections.abc import Callable, Iterator
from typing import Any

import httpx2
import pytest
import requests
import zstandard
from openai import OpenAI

from tests.clients.conftest import MODEL, TIMEOUT_S
from tests.clients.line import Line
from tests.support.gateway import BEARER, RunningGateway, running_gateway
from tests.support.wire import reply

IMAGE_BYTES = 10_000_000
ODD_JSON = (
    b' {"b":1.0e+2, "model" : "openai\\/gpt-5.2","unknown":{"z":null,"z":[1E400,-0]},'
    b'"messages":[{"role":"user","content":"na\xc3\xafve \\u00e9\\ud83e\\udd84"}],"future":"\\u0000"}\r\n'
)


def zstd_of_unknown_size(data: bytes) -> bytes:
    """As a streaming compressor writes it: no content size in the frame."""
    compressor = zstandard.ZstdCompressor().compressobj()
    return compressor.compress(data) + compressor.flush()


def raw_deflate(data: bytes) -> bytes:
    """What some clients send as `deflate`: without the zlib wrapper."""
    compressor = zlib.compressobj(wbits=-15)
    return compressor.compress(data) + compressor.flush()


ENCODINGS: dict[str, tuple[str, Callable[[bytes], bytes]]] = {
    "gzip": ("gzip", gzip.compress),
    "gzip in capitals": ("GZIP", gzip.compress),
    "deflate": ("deflate", zlib.compress),
    "raw deflate": ("deflate", raw_deflate),
    "zstd": ("zstd", zstandard.ZstdCompressor().compress),
    "zstd of unknown size": ("zstd", zstd_of_unknown_size),
    "identity": ("identity", bytes),
}


@pytest.mark.parametrize("name", ENCODINGS)
async def test_a_compressed_body_is_forwarded_decoded(wire: Line, name: str) -> None:
    encoding, compress = ENCODINGS[name]
    headers = {**BEARER, "Content-Type": "application/json", "Content-Encoding": encoding}
    wire.upstream.scripts = [reply(200, body=b"{}")]
    got = await wire.http.post(f"{wire.gateway.api}/responses", content=compress(ODD_JSON), headers=headers)
    assert got.status_code == 200, got.text
    (seen,) = wire.upstream.requests
    assert seen.body == ODD_JSON
    assert seen.header(b"content-encoding") is None
    assert seen.header(b"content-length") == b"%d" % len(ODD_JSON)


@pytest.mark.parametrize("path", ["chat/completions", "responses", "embeddings", "conversations"])
async def test_a_json_body_is_forwarded_byte_for_byte(wire: Line, path: str) -> None:
    wire.upstream.scripts = [reply(200, body=b"{}")]
    await wire.http.post(f"{wire.gateway.api}/{path}", content=ODD_JSON, headers=BEARER)
    assert wire.upstream.requests[0].body == ODD_JSON


@pytest.mark.parametrize(
    ("encoding", "body", "status"),
    [
        ("gzip", b"no gzip at all", 400),
        ("gzip", gzip.compress(ODD_JSON, mtime=0)[:-9], 400),
        ("zstd", zstandard.ZstdCompressor().compress(ODD_JSON)[:-3], 400),
        ("deflate", zlib.compress(ODD_JSON)[:-5], 400),
        ("gzip", gzip.compress(b"{" * 1000, mtime=0), 400),
        ("br", ODD_JSON, 415),
    ],
)
async def test_a_body_that_cannot_be_decoded_is_refused_and_upstream_is_not_asked(
    wire: Line, encoding: str, body: bytes, status: int
) -> None:
    headers = {**BEARER, "Content-Encoding": encoding}
    got = await wire.http.post(f"{wire.gateway.api}/responses", content=body, headers=headers)
    assert (got.status_code, got.json()["error"]["type"]) == (status, "invalid_request_error")
    assert wire.upstream.requests == []


@pytest.mark.parametrize("encoding", ["gzip", "deflate", "zstd", "zstd of unknown size"])
def test_a_body_that_inflates_past_the_cap_is_refused(simulator: str, encoding: str) -> None:
    name, compress = ENCODINGS[encoding]
    headers = {**BEARER, "Content-Encoding": name}
    bomb = compress(b'{"model":"m","pad":"' + b"x" * 50_000_000 + b'"}')
    assert len(bomb) < 100_000
    with running_gateway(simulator, server={"max_body_bytes": 1_000_000}) as gateway:
        got = requests.post(f"{gateway.api}/responses", data=bomb, headers=headers, timeout=TIMEOUT_S)
    assert (got.status_code, got.json()["error"]["code"]) == (413, "request_too_large")


@pytest.fixture(scope="module")
def image_url() -> str:
    """A data URL of 10 MB, such as a photograph makes."""
    image = random.Random(10).randbytes(IMAGE_BYTES * 3 // 4)
    return "data:image/png;base64," + base64.b64encode(image).decode()


def chat_with(image_url: str) -> dict[str, Any]:
    picture = {"type": "image_url", "image_url": {"url": image_url}}
    return {"model": MODEL, "messages": [{"role": "user", "content": [{"type": "text", "text": "What?"}, picture]}]}


def response_with(image_url: str) -> dict[str, Any]:
    picture = {"type": "input_image", "image_url": image_url, "detail": "auto"}
    return {"model": MODEL, "input": [{"role": "user", "content": [picture]}]}


@pytest.fixture
def seen(simulator: str) -> Iterator[httpx2.Client]:
    """Asks the simulator what reached it, from now on."""
    with httpx2.Client(base_url=simulator.removesuffix("/v1"), timeout=TIMEOUT_S) as http:
        http.delete("/_seen")
        yield http


@pytest.mark.parametrize("encoding", ["identity", "gzip", "zstd"])
@pytest.mark.parametrize(("path", "make"), [("chat/completions", chat_with), ("responses", response_with)])
def test_an_image_of_10_mb_reaches_upstream_byte_for_byte(
    gateway: RunningGateway,
    seen: httpx2.Client,
    image_url: str,
    path: str,
    make: Callable[[str], dict[str, Any]],
    encoding: str,
) -> None:
    body = json.dumps(make(image_url)).encode()
    headers = {**BEARER, "Content-Encoding": encoding}
    got = requests.post(f"{gateway.api}/{path}", data=ENCODINGS[encoding][1](body), headers=headers, timeout=30)
    assert got.status_code == 200
    assert f"image/png inline, {len(image_url)} characters" in got.text
    (arrived,) = seen.get("/_seen", params={"total": "1"}).json()["requests"]
    assert (arrived["body_bytes"], arrived["body_sha256"]) == (len(body), hashlib.sha256(body).hexdigest())


def test_openai_sends_an_image_of_10_mb_through_both_apis(client: OpenAI, image_url: str) -> None:
    chat, response = chat_with(image_url), response_with(image_url)
    said = client.chat.completions.create(model=MODEL, messages=chat["messages"]).choices[0].message.content or ""
    assert f"{len(image_url)} characters" in said
    assert f"{len(image_url)} characters" in client.responses.create(model=MODEL, input=response["input"]).output_text
