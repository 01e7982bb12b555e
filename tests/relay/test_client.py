"""The client's side of a call: when its reply has begun."""

import asyncio
from collections.abc import MutableMapping
from typing import Any

from gateway.relay.client import ClientReply
from gateway.relay.live import LiveCall
from tests.relay.test_catalogue import FullWire


async def test_a_reply_whose_head_waits_has_not_begun_so_that_it_can_still_become_an_error() -> None:
    asked = asyncio.Event()

    async def send(_: MutableMapping[str, Any]) -> None:
        asked.set()
        await asyncio.Event().wait()

    call = LiveCall(b"req_1", "POST", FullWire())
    client = ClientReply(call, send, 200, [])
    writing = asyncio.create_task(client.write(b"data: 1\n\n"))
    await asked.wait()
    writing.cancel()
    await asyncio.gather(writing, return_exceptions=True)
    assert (client.started, call.status, call.first_write_at) == (False, 0, None)


async def test_a_reply_whose_head_is_sent_has_begun() -> None:
    sent: list[MutableMapping[str, Any]] = []

    async def send(message: MutableMapping[str, Any]) -> None:
        sent.append(message)

    call = LiveCall(b"req_1", "POST", FullWire())
    client = ClientReply(call, send, 201, [(b"x-a", b"b")])
    await client.write(b"data: 1\n\n")
    assert (client.started, call.status, call.sent_bytes) == (True, 201, 9)
    assert call.first_write_at is not None
    assert [message["type"] for message in sent] == ["http.response.start", "http.response.body"]
    assert sent[0]["headers"][0] == (b"x-a", b"b")
