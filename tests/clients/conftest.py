"""A gateway in front of the simulator, and the clients that nobody here wrote."""

import shutil
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import httpx2
import pytest
from openai import AsyncOpenAI, OpenAI

from gateway.simulator import running_simulator
from tests.clients.line import Line
from tests.support.gateway import KEY, UPSTREAM_KEY, RunningGateway, running_gateway
from tests.support.missing import is_missing
from tests.support.wire import WireUpstream

NODE_MODULES = Path(__file__).parent / "node_modules"
MODEL = "openai/gpt-5.2"
ALIAS = "gpt-5.2"
TIMEOUT_S = 10


@pytest.fixture(scope="session")
def simulator() -> Iterator[str]:
    """The base URL of a simulator that knows no key but the account's, so that a call which works had it put in."""
    with running_simulator(api_key=UPSTREAM_KEY) as base_url:
        yield base_url


@pytest.fixture(scope="session")
def shared_gateway(simulator: str) -> Iterator[RunningGateway]:
    with running_gateway(simulator, models={"aliases": {ALIAS: MODEL}}) as running:
        yield running


@pytest.fixture
def gateway(shared_gateway: RunningGateway) -> RunningGateway:
    """A gateway in front of the simulator whose records are those of this test alone."""
    deadline_s = time.monotonic() + TIMEOUT_S
    while shared_gateway.ask(lambda: len(shared_gateway.app.proxy.open_calls)):
        assert time.monotonic() < deadline_s, "a call of an earlier test does not end"
    shared_gateway.records.clear()
    return shared_gateway


@pytest.fixture
def client(gateway: RunningGateway) -> Iterator[OpenAI]:
    with OpenAI(base_url=gateway.api, api_key=KEY, max_retries=0, timeout=TIMEOUT_S) as client:
        yield client


@pytest.fixture
async def async_client(gateway: RunningGateway) -> AsyncIterator[AsyncOpenAI]:
    async with AsyncOpenAI(base_url=gateway.api, api_key=KEY, max_retries=0, timeout=TIMEOUT_S) as client:
        yield client


@pytest.fixture
async def wire() -> AsyncIterator[Line]:
    async with WireUpstream() as upstream, httpx2.AsyncClient(timeout=TIMEOUT_S) as http:
        with running_gateway(f"{upstream.url}/v1") as gateway:
            yield Line(upstream, gateway, http)


@pytest.fixture(scope="session")
def node() -> str:
    """The path of Node.js; where it or its packages are missing, an error in CI and a skip elsewhere."""
    found = shutil.which("node")
    if found is None or not (NODE_MODULES / "openai").is_dir():
        is_missing("Node.js or its packages are missing: install Node.js 20 or newer, then run scripts/install-clients")
    return found
