"""Every test of the contract runs on both transports and on both event loops."""

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Any

import pytest
import uvloop

from gateway.upstream.transport import Transport
from tests.contract.transports import KINDS, Connect, load, make


def pytest_asyncio_loop_factories() -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
    return {"asyncio": asyncio.new_event_loop, "uvloop": uvloop.new_event_loop}


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
async def connect(kind: str) -> AsyncIterator[Connect]:
    """Transports of this kind. When the test is over they must be idle, and no task may be left."""
    before = asyncio.all_tasks()
    transports: list[Transport] = []

    def open_transport(url: str, **options: Any) -> Transport:
        transports.append(make(kind, url, **options))
        return transports[-1]

    yield open_transport
    assert [load(transport)[0] for transport in transports] == [0] * len(transports)
    for transport in transports:
        await transport.close()
    assert asyncio.all_tasks() - before - {asyncio.current_task()} == set()
