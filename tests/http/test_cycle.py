"""A reply whose client is gone before it is sent is complete all the same: nobody is to log it as left undone."""

import asyncio
from typing import TYPE_CHECKING, cast

from uvicorn.protocols.http.flow_control import FlowControl

from gateway.http.cycle import GatewayCycle

if TYPE_CHECKING:
    import logging


class Gone(asyncio.Transport):
    """A connection that is closing, though nobody was told of that yet."""

    def is_closing(self) -> bool:
        return True

    def write(self, data: object) -> None:
        raise AssertionError(data)


async def test_a_reply_to_a_client_that_is_gone_counts_as_complete() -> None:
    transport = Gone()
    scope = {"method": "GET", "http_version": "1.1", "headers": []}
    cycle = GatewayCycle(
        scope,
        transport,
        FlowControl(transport),
        cast("logging.Logger", None),
        lambda: None,
        expects_100=False,
        keep_alive=True,
    )
    await cycle.send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
    await cycle.send({"type": "http.response.body", "body": b"ok"})
    assert cycle.response_complete
