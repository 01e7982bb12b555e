"""The upstream key is nowhere but in the request to upstream, whatever went wrong and wherever upstream repeats it."""

import asyncio
import base64
import json
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import pytest

from gateway.simulator import running_simulator
from tests.faults.face import CHAT, RESPONSES, Answer, Client, ask, connected, post, request
from tests.faults.process import serving
from tests.support.gateway import UPSTREAM_KEY, RunningGateway, running_gateway
from tests.support.wire import Fin, Reset, Script, Stall, Step, WireUpstream, chunk, reply, sse

BEARER = f"Bearer {UPSTREAM_KEY}"
JSON = (b"Content-Type", b"application/json")
SECRETS = (
    UPSTREAM_KEY,
    quote(UPSTREAM_KEY, safe=""),
    *(base64.b64encode(b"x" * before + UPSTREAM_KEY.encode()).decode()[4:-4] for before in range(3)),
)
SHOWN_IN_PART = (UPSTREAM_KEY[:12], UPSTREAM_KEY[-6:])


def spellings() -> dict[str, str]:
    """How a reply may repeat the key."""
    return {
        "plain": BEARER,
        "json": json.dumps(BEARER)[1:-1],
        "percent": quote(BEARER, safe=""),
        "base64": base64.b64encode(BEARER.encode()).decode(),
        "base64 of the key": base64.b64encode(UPSTREAM_KEY.encode()).decode(),
        "base64url": base64.urlsafe_b64encode(b"ab" + BEARER.encode()).decode(),
        "basic": base64.b64encode(f"user:{UPSTREAM_KEY}".encode()).decode(),
    }


def echoes(text: str) -> Iterator[tuple[str, Script]]:
    """Everywhere in a reply that `text` may stand."""
    data = text.encode()
    yield "error body", reply(401, [JSON], b'{"error":{"message":"Incorrect API key: %b"}}' % data)
    yield "body", reply(200, [JSON], b'{"choices":[],"echo":"%b"}' % data)
    yield (
        "body in two pieces",
        [
            reply(200, [JSON, (b"Content-Length", b"%d" % len(data))], data[:20]),
            data[20:],
        ],
    )
    yield (
        "body in chunks of a byte",
        b"".join(
            (
                b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
                *(chunk(data[i : i + 1]) for i in range(len(data))),
            )
        )
        + b"0\r\n\r\n",
    )
    yield "headers", reply(500, [JSON, (b"X-Echo", data), (b"WWW-Authenticate", b'Bearer realm="%b"' % data)], b"{}")
    yield "request id", reply(500, [JSON, (b"X-Request-Id", data)], b"{}")
    yield "request id of a stream", stream_with([(b"X-Request-Id", data)], b"data: 1\n\n")
    yield "header name", reply(500, [JSON, (data.replace(b" ", b"-").replace(b"=", b""), b"1")], b"{}")
    yield "reason", reply(500, [JSON], b"{}", reason=data)
    yield "events", sse([f'{{"echo":"{text}"}}', "[DONE]"])
    yield "event name", sse([f"event: {text}\ndata: 1\n\n".encode(), "[DONE]"])
    yield "cut stream", [*sse([f'{{"echo":"{text}"}}'], end=False), Reset()]
    yield "nonsense", b"HTTP/1.1 %b\r\n\r\n" % data
    yield "nonsense header", b"HTTP/1.1 200 OK\r\n%b\x01: 1\r\n\r\n" % data
    yield "bad chunk", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n%b\r\n" % data
    yield "content type", reply(200, [(b"Content-Type", b"text/event-stream; x=%b" % data)], b"data: 1\n\n")


def stream_with(headers: list[tuple[bytes, bytes]], event: bytes) -> list[Step]:
    head, *rest = sse([event, "[DONE]"])
    assert isinstance(head, bytes)
    lines = b"".join(b"%b: %b\r\n" % header for header in headers)
    return [head[:-2] + lines + b"\r\n", *rest]


def breaks() -> list[Script]:
    """Replies that fail without repeating anything."""
    return [[Fin()], [Reset()], [Stall()], reply(500, [], b""), [*sse([{"n": 1}], end=False), Stall()]]


def assert_free_of_secrets(text: str, where: str) -> None:
    for secret in SECRETS:
        assert secret not in text, f"{where}: {text[:500]}"


def assert_files_are_free_of_secrets(directory: Path) -> None:
    for path in directory.rglob("*"):
        if path.is_file():
            assert_free_of_secrets(path.read_bytes().decode("latin-1"), str(path))


async def replay(port: int, count: int) -> list[Answer]:
    """As many calls as there are scripts."""
    answers = []
    for number in range(count):
        async with connected(port) as client:
            client.send(post(CHAT if number % 2 else RESPONSES, {"model": "m", "stream": True}))
            answers.append(await _any_answer(client))
    return answers


async def _any_answer(client: Client) -> Answer:
    try:
        return await client.answer()
    except (asyncio.IncompleteReadError, ConnectionError):
        return Answer(0, b"", [], b"", "cut")


async def pages(port: int) -> str:
    """All that the gateway's own pages show."""
    paths = ("/metrics", "/openapi.json", "/docs", "/healthz", "/readyz", "/nowhere")
    answers = [await ask(port, request("GET", path)) for path in paths]
    return "".join(f"{answer.head!r}{answer.body!r}" for answer in answers)


@pytest.mark.parametrize("transport", ["native", "httpx2"])
@pytest.mark.parametrize("log_format", ["json", "human"])
async def test_the_key_is_not_in_what_the_gateway_says_writes_or_logs(
    log_format: str, transport: str, tmp_path: Path
) -> None:
    named = [(f"{place}, {how}", script) for how, text in spellings().items() for place, script in echoes(text)]
    scripts = [*(script for _, script in named), *breaks()]
    options: dict[str, str] = {
        "GATEWAY_LOG_FORMAT": log_format,
        "GATEWAY_LOG_CALLS": "all",
        "GATEWAY_UPSTREAM_TRANSPORT": transport,
        "GATEWAY_UPSTREAM_FIRST_BYTE_TIMEOUT_S": "0.2",
        "GATEWAY_UPSTREAM_IDLE_TIMEOUT_S": "0.2",
    }
    async with serving(*scripts, arguments=(), directory=tmp_path, until_ready=True, **options) as running:
        answers = await replay(running.port, len(scripts))
        shown = await pages(running.port)
        running.terminate()
        assert await running.status() == 0
    for (where, _), answer in zip(named, answers, strict=False):
        assert_free_of_secrets(answer.head.decode("latin-1") + answer.body.decode("latin-1"), where)
    assert_free_of_secrets(shown, "pages")
    logged = running.output.decode()
    assert logged.count("upstream_error") >= len(breaks())
    for part in (*SECRETS, *SHOWN_IN_PART):
        assert part not in logged
    assert_files_are_free_of_secrets(tmp_path)


@pytest.mark.parametrize("path", [CHAT, RESPONSES, "/v1/files", "/v1/models"])
def test_the_key_is_not_in_an_echo_of_the_simulator(path: str) -> None:
    with running_simulator() as base_url, running_gateway(base_url) as gateway:
        answer = asyncio.run(ask(gateway.port, _simulated(path)))
    assert answer.status >= 400
    assert_free_of_secrets(answer.head.decode("latin-1") + answer.body.decode("latin-1"), path)


def _simulated(path: str) -> bytes:
    if path == "/v1/models":
        return request("GET", path, headers=[("Authorization", _own_key()), ("X-Simulate", "echo-key")])
    return post(path, {"model": "simulated", "input": "x", "messages": []}, [("X-Simulate", "echo-key")])


def _own_key() -> str:
    data = request("GET", "/").decode()
    return data.split("Authorization: ")[1].split("\r\n")[0]


async def test_what_an_api_shows_of_a_refused_key_is_hidden() -> None:
    shown = [f"Incorrect API key provided: {UPSTREAM_KEY[:8]}{filler}{UPSTREAM_KEY[-4:]}." for filler in _FILLERS]
    scripts = [reply(401, [JSON], json.dumps({"error": {"message": text}}).encode()) for text in shown]
    async with WireUpstream(*scripts) as upstream:
        with running_gateway(f"{upstream.url}/v1") as gateway:
            bodies = [(await ask(gateway.port, post(CHAT, {}))).body.decode() for _ in shown]
    for body in bodies:
        assert UPSTREAM_KEY[:8] not in body
        assert UPSTREAM_KEY[-4:] not in body
        assert "Incorrect API key provided" in body


_FILLERS = ("****", "...", "*" * 40, "\u2026\u2026\u2026")


async def test_a_bug_shows_no_key_in_its_traceback(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async with WireUpstream() as upstream:
        with running_gateway(f"{upstream.url}/v1") as gateway:
            _break(gateway, monkeypatch)
            answer = await ask(gateway.port, post(CHAT, {}))
    assert answer.status == 500
    assert "failed on a bug" in caplog.text
    assert_free_of_secrets(caplog.text, "traceback")
    assert_free_of_secrets(answer.body.decode(), "body")


def _break(gateway: RunningGateway, monkeypatch: pytest.MonkeyPatch) -> None:
    async def fails(*_: object) -> None:
        raise KeyError("something")

    monkeypatch.setattr(gateway.app.proxy._relay.transport, "send", fails)


def test_no_object_of_the_gateway_shows_the_key_in_its_repr() -> None:
    with running_gateway("http://127.0.0.1:9/v1") as gateway:
        proxy = gateway.app.proxy
        shown = [repr(each) for each in (proxy, proxy._relay, proxy._headers, proxy._relay.transport)]
    assert_free_of_secrets("".join(shown), "repr")


async def test_a_key_that_somebody_sends_as_a_model_is_not_in_the_record() -> None:
    async with WireUpstream(reply(404, [JSON], b'{"error":{}}')) as upstream:
        with running_gateway(f"{upstream.url}/v1") as gateway:
            await ask(gateway.port, post(CHAT, {"model": "sk-somebodys-0123456789", "messages": []}))
            (record,) = await gateway.recorded(1)
    assert record.model == "sk-***"
    assert b"sk-somebodys-0123456789" in upstream.requests[0].body, "upstream reads what was sent"
