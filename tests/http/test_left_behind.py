"""What a call leaves behind: nothing that only the garbage collector finds, whose runs hold all other calls up."""

import gc
import http.client
import json
from collections.abc import Iterator
from contextlib import closing
from types import FrameType
from typing import Any

import pytest

from gateway.simulator import running_simulator
from tests.support.gateway import BEARER, UPSTREAM_KEY, RunningGateway, running_gateway

CALLS = 20
CHAT = {"model": "openai/gpt-5.2", "messages": [{"role": "user", "content": "hi"}]}
UNKNOWN = {"Authorization": "Bearer sk-gw-" + 38 * "0"}


@pytest.fixture(scope="module")
def gateway() -> Iterator[RunningGateway]:
    limits = {"each_key": {"requests_per_minute": 100_000, "tokens_per_minute": 100_000_000, "parallel": 50}}
    with running_simulator(api_key=UPSTREAM_KEY) as base_url, running_gateway(base_url, limits=limits) as running:
        gc.freeze()  # what other tests have left is not looked through again and again
        yield running


def _call(client: http.client.HTTPConnection, path: str, body: Any, headers: dict[str, str]) -> int:
    method = "GET" if body is None else "POST"
    content = None if body is None else json.dumps(body)
    client.request(method, path, content, {"Content-Type": "application/json", **headers})
    with client.getresponse() as response:
        response.read()
        return response.status


def _is_the_gateways(found: object) -> bool:
    if isinstance(found, FrameType):
        return "/gateway/" in found.f_code.co_filename and "/simulator/" not in found.f_code.co_filename
    module = type(found).__module__
    return module.startswith("gateway.") and not module.startswith("gateway.simulator")


@pytest.mark.parametrize(
    ("path", "body", "headers", "status"),
    [
        ("/v1/chat/completions", CHAT, BEARER, 200),
        ("/v1/chat/completions", {**CHAT, "stream": True}, BEARER, 200),
        ("/v1/responses", {"model": "openai/gpt-5.2", "input": "hi"}, BEARER, 200),
        ("/v1/models", None, BEARER, 200),
        ("/v1/chat/completions", {**CHAT, "model": "nosuch"}, BEARER, 404),
        ("/v1/chat/completions", CHAT, UNKNOWN, 401),
        ("/v1/nosuch", None, BEARER, 404),
    ],
    ids=["plain", "stream", "responses", "models", "error of upstream", "wrong key", "no route"],
)
def test_calls_leave_nothing_to_the_garbage_collector(
    gateway: RunningGateway, path: str, body: Any, headers: dict[str, str], status: int
) -> None:
    with closing(http.client.HTTPConnection("127.0.0.1", gateway.port)) as client:
        _call(client, path, body, headers)  # the first one imports, compiles and remembers
        gateway.ask(gc.collect)
        gc.disable()
        gc.set_debug(gc.DEBUG_SAVEALL)
        try:
            assert {_call(client, path, body, headers) for _ in range(CALLS)} == {status}
            gateway.ask(gc.collect)
            left = [type(found).__name__ for found in gc.garbage if _is_the_gateways(found)]
        finally:
            gc.set_debug(0)
            gc.garbage.clear()
            gc.enable()
    assert left == []
