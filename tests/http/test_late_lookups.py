"""Names of stores that vanish: connecting is given up soon, and what comes of the look-up after that is no news."""

import asyncio
import gc
import logging
import socket
from collections.abc import Coroutine
from typing import Any

import pytest

from tests.support.gateway import RunningGateway, running_gateway

NOWHERE = "nosuch.invalid"


def run(gateway: RunningGateway, work: Coroutine[Any, Any, None]) -> None:
    """Do it on the gateway's own loop."""
    assert gateway.loop is not None
    asyncio.run_coroutine_threadsafe(work, gateway.loop).result(10)


async def give_up_connecting() -> None:
    loop = asyncio.get_running_loop()
    connecting = loop.create_task(loop.create_connection(asyncio.Protocol, NOWHERE, 6379))
    await asyncio.sleep(0)  # by now the name is being looked up
    connecting.cancel()
    await asyncio.gather(connecting, return_exceptions=True)
    with pytest.raises(socket.gaierror):
        await loop.getaddrinfo(NOWHERE, 6379)  # begun later, so the other one is over too
    gc.collect()


async def forget_a_failure() -> None:
    future = asyncio.get_running_loop().create_future()
    future.set_exception(ValueError("a bug"))
    del future
    gc.collect()


def test_a_look_up_that_fails_when_nobody_waits_for_it_is_not_logged(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING)
    with running_gateway("http://127.0.0.1:9/v1") as gateway:
        run(gateway, give_up_connecting())
    assert not caplog.records


def test_other_failures_that_nobody_looked_at_are_logged(caplog: pytest.LogCaptureFixture) -> None:
    with running_gateway("http://127.0.0.1:9/v1") as gateway:
        run(gateway, forget_a_failure())
    assert [record.getMessage().splitlines()[0] for record in caplog.records] == [
        "Future exception was never retrieved"
    ]
