"""The native transport runs on both event loops, and each test must leave it idle."""

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Any

import pytest
import uvloop

from gateway.upstream.connection import Connection
from gateway.upstream.native import NativeTransport
from gateway.upstream.origin import Origin
from gateway.upstream.transport import Timeouts
from tests.upstream.calls import Connect


def pytest_asyncio_loop_factories() -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
    return {"asyncio": asyncio.new_event_loop, "uvloop": uvloop.new_event_loop}


def live_timers() -> list[Connection]:
    """Connections that still have a timer. Only asyncio's own loop can tell."""
    scheduled = getattr(asyncio.get_running_loop(), "_scheduled", ())
    owners = [getattr(timer._callback, "__self__", None) for timer in scheduled if not timer.cancelled()]
    return [owner for owner in owners if isinstance(owner, Connection)]


@pytest.fixture
async def connect() -> AsyncIterator[Connect]:
    """Native transports; when the test is over nothing may be in use, and no task and no timer may be left."""
    before = asyncio.all_tasks()
    transports: list[NativeTransport] = []

    def open_transport(url: str, **options: Any) -> NativeTransport:
        options = {"max_connections": 10, "ssl_context": None, "timeouts": Timeouts(5, 5, 5, 5)} | options
        transports.append(NativeTransport(Origin.from_url(url), options.pop("timeouts"), **options))
        return transports[-1]

    yield open_transport
    for transport in transports:
        assert transport.pool.in_use == 0, transport
        await transport.close()
        assert ": closed, 0 in use, 0 idle, 0 open" in repr(transport.pool), transport
        assert transport.pool._sweep is None
    assert live_timers() == []
    assert asyncio.all_tasks() - before - {asyncio.current_task()} == set()
