"""JSON that was made to confuse, through the face: never a 5xx, and the model upstream reads is the one on record."""

import asyncio
import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from tests.faults.face import AUTHORIZATION, CHAT, RESPONSES, Client, request
from tests.support.gateway import RunningGateway, running_gateway
from tests.support.wire import WireRequest, WireUpstream, reply

ALIASES = {"alias": "openai/gpt-5.2", "m\u00e9": "upstream/\u20ac"}
PATHS = (CHAT, RESPONSES, "/v1/embeddings", "/v1/batches")

KEYS = [
    "model",
    "mod\\u0065l",
    "MODEL",
    "\\u006dodel",
    "model ",
    "stream",
    "stream_options",
    "max_tokens",
    "x",
    "\u017ftream",
]
VALUES = [
    '"alias"',
    '"a"',
    '"\\u0061lias"',
    '"m\u00e9"',
    '"\\ud800"',
    "null",
    "true",
    "1e400",
    "-0",
    "1E+2",
    '{"a":{}}',
]
ODD = ["[1,2", "NaN", "Infinity", "'a'", '{"model":"b"}', '{"include_usage":false}', "01", "[" * 300 + "]" * 300, '""']
SPACE = ["", " ", "\n", "\t \r\n", "\x0b", "\ufeff", "/**/"]
members = st.tuples(
    st.sampled_from(SPACE), st.sampled_from(KEYS), st.sampled_from(SPACE), st.sampled_from(VALUES + ODD)
).map(lambda parts: f'{parts[0]}"{parts[1]}"{parts[2]}:{parts[3]}')
objects = st.lists(members, max_size=5).map(lambda each: "{" + ",".join(each) + "}")
valid = st.dictionaries(
    st.sampled_from(["model", "stream", "x", "input", "\u00e9"]),
    st.sampled_from(["alias", "a", True, None, 1.5, ["model"], {"model": "b"}, "m\u00e9"]),
).map(lambda value: json.dumps(value, ensure_ascii=False))
bodies = st.one_of(
    st.one_of(objects, valid).map(lambda text: text.encode()),
    st.tuples(st.one_of(objects, valid), st.binary(max_size=4), st.floats(0, 1)).map(
        lambda parts: _spliced(parts[0].encode(), parts[1], parts[2])
    ),
    st.binary(max_size=60),
)


def _spliced(body: bytes, piece: bytes, where: float) -> bytes:
    at = int(where * len(body))
    return body[:at] + piece + body[at + len(piece) :]


async def _plain(_: asyncio.StreamReader, writer: asyncio.StreamWriter, __: WireRequest) -> None:
    writer.write(reply(200, [(b"Content-Type", b"application/json")], b"{}"))


class _Face:
    """A gateway and one client connection, on a loop that the cases share."""

    def __init__(self, loop: asyncio.AbstractEventLoop, upstream: WireUpstream, gateway: RunningGateway) -> None:
        self._loop, self._upstream, self._gateway = loop, upstream, gateway
        self._client: Client | None = None

    def ask(self, path: str, body: bytes) -> tuple[int, WireRequest | None]:
        """The status, and what upstream saw of the call."""
        return self._loop.run_until_complete(self._ask(path, body))

    async def _ask(self, path: str, body: bytes) -> tuple[int, WireRequest | None]:
        if self._client is None:
            self._client = Client(*await asyncio.open_connection("127.0.0.1", self._gateway.port))
        self._upstream.requests.clear()
        length = ("Content-Length", str(len(body)))
        self._client.send(request("POST", path, body, [AUTHORIZATION, length], length=False))
        answer = await self._client.answer()
        return answer.status, self._upstream.requests[0] if self._upstream.requests else None

    def recorded_model(self) -> str | None:
        """The model of the last record."""
        return self._gateway.ask(lambda: self._gateway.records[-1].model)


@pytest.fixture(scope="module")
def face() -> Iterator[_Face]:
    with _running() as running:
        yield running


@contextmanager
def _running() -> Iterator[_Face]:
    loop = asyncio.new_event_loop()
    upstream = WireUpstream(_plain)
    loop.run_until_complete(upstream.__aenter__())
    try:
        with running_gateway(f"{upstream.url}/v1", models={"aliases": ALIASES}) as gateway:
            running = _Face(loop, upstream, gateway)
            yield running
            if running._client is not None:
                running._client.leave()
    finally:
        loop.run_until_complete(upstream.__aexit__(None, None, None))
        loop.close()


def read_by(body: bytes, *, first: bool) -> Any:
    """The model as a reader sees it who takes the first, or the last, of several equal keys.

    Bytes that are no UTF-8 pass where they decide nothing; this reader is lenient about them.
    """
    pairs = json.loads(body.decode(errors="replace"), object_pairs_hook=lambda each: each)
    models = [value for key, value in pairs if key == "model"]
    return (models[0] if first else models[-1]) if models else None


def check(face: _Face, path: str, body: bytes) -> None:
    status, seen = face.ask(path, body)
    assert status in (200, 400), (status, body)
    assert (seen is not None) == (status == 200)
    if seen is None:
        return
    model = face.recorded_model()
    assert model == read_by(seen.body, first=True) == read_by(seen.body, first=False)
    assert model == _resolved(read_by(body, first=True))
    if model == read_by(body, first=True) and path != CHAT:
        assert seen.body == body


def _resolved(model: Any) -> Any:
    return ALIASES.get(model, model) if isinstance(model, str) else model


def test_no_json_confuses_the_gateway_and_upstream_about_the_model(face: _Face, is_long: bool) -> None:
    @settings(
        max_examples=1_000_000 if is_long else 1_500,
        deadline=None,
        database=None,
        phases=(Phase.explicit, Phase.generate, Phase.shrink),
        suppress_health_check=list(HealthCheck),
    )
    @given(path=st.sampled_from(PATHS), body=bodies)
    def holds(path: str, body: bytes) -> None:
        check(face, path, body)

    holds()


DEEP = [
    b'{"x":' * 100_000 + b"1" + b"}" * 100_000,
    b'{"x":' + b"[" * 1_000_000 + b"]" * 1_000_000 + b"}",
    b'{"stream_options":' + b'{"a":' * 900 + b"1" + b"}" * 901,
    b'{"conversation":' + b'{"id":' * 50_000 + b'"a"' + b"}" * 50_001,
    b'{"x":' + b"9" * 1_000_000 + b"}",
    b'{"max_tokens":' + b"9" * 100_000 + b"}",
    b'{"' + b"k" * 1_000_000 + b'":1}',
    b"{" + b",".join(b'"k%d":1' % number for number in range(100_000)) + b"}",
    b'{"model":"' + b"m" * 1_000_000 + b'"}',
    b'{"model":"\\u0000"}',
]


@pytest.mark.parametrize("number", range(len(DEEP)))
def test_depth_and_size_are_refused_or_passed_and_never_a_failure(face: _Face, number: int) -> None:
    for path in PATHS:
        status, seen = face.ask(path, DEEP[number])
        assert status in (200, 400)
        assert (seen is not None) == (status == 200)
