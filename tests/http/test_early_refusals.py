"""A refusal waits for a small request to be there, since proxies drop a client whose request it overtakes."""

import asyncio
from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

from tests.faults.face import AUTHORIZATION, CHAT, Answer, Client, ask, connected, request
from tests.support.gateway import RunningGateway, running_gateway
from tests.support.patience import Stopwatch

if TYPE_CHECKING:
    from gateway.call import Recorded

WRONG = ("Authorization", "Bearer sk-gmi-wrong")
BODY = b'{"model": "m", "messages": []}'


@pytest.fixture(scope="module")
def gateway() -> Iterator[RunningGateway]:
    with running_gateway("http://127.0.0.1:9/v1", server={"max_body_bytes": 100_000}) as running:
        yield running


def head(*fields: tuple[str, str]) -> bytes:
    return request("POST", CHAT, headers=list(fields) or [WRONG, ("Content-Length", str(len(BODY)))])


async def refused(client: Client, gateway: RunningGateway, *pieces: bytes) -> Answer:
    """The answer to a request in `pieces`, which comes no sooner than the last: not while later calls are answered."""
    answer = asyncio.create_task(client.answer())
    for piece in pieces[:-1]:
        client.send(piece)
        for _ in range(2):
            assert (await ask(gateway.port, request("POST", CHAT, BODY, [WRONG]))).status == 401
        assert not answer.done()
    client.send(pieces[-1])
    return await answer


async def test_a_refusal_waits_for_the_rest_of_a_small_request(gateway: RunningGateway) -> None:
    async with connected(gateway.port) as client:
        for _ in range(2):
            assert (await refused(client, gateway, head(), BODY[:10], BODY[10:])).status == 401


async def test_so_does_one_in_chunks(gateway: RunningGateway) -> None:
    async with connected(gateway.port) as client:
        pieces = head(WRONG, ("Transfer-Encoding", "chunked")), b"1\r\na\r\n", b"0\r\n\r\n"
        assert (await refused(client, gateway, *pieces)).status == 401
        client.send(request("POST", CHAT, BODY, [WRONG]))
        assert (await client.answer()).status == 401


async def test_a_refusal_does_not_wait_for_a_large_request(gateway: RunningGateway) -> None:
    watch = Stopwatch()
    async with connected(gateway.port) as client:
        client.send(head(WRONG, ("Content-Length", "1000000")) + b"a" * 70_000)
        assert (await client.answer()).status == 401
    assert watch.took().running_s < 1


async def test_nor_where_its_client_waits_for_word_before_it_sends_the_rest(gateway: RunningGateway) -> None:
    watch = Stopwatch()
    async with connected(gateway.port) as client:
        client.send(head(WRONG, ("Content-Length", "10"), ("Expect", "100-continue")))
        assert (await client.answer()).status == 401
    assert watch.took().running_s < 1


async def test_a_rest_that_does_not_come_is_waited_for_one_second(gateway: RunningGateway) -> None:
    watch = Stopwatch()
    async with connected(gateway.port) as client:
        client.send(head())
        assert (await client.answer()).status == 401
    assert watch.took().is_between(1, 3)


async def test_the_wait_is_no_part_of_what_the_gateway_takes_for_itself(gateway: RunningGateway) -> None:
    async with connected(gateway.port) as client:
        client.send(head(AUTHORIZATION, ("x-gateway-tags", "???"), ("Content-Length", "1")))
        answer = await client.answer()
    assert answer.status == 400
    assert float(answer.header("x-gateway-overhead-ms") or "nan") < 500


@pytest.mark.parametrize(
    ("key", "told"),
    [
        (WRONG, (401, "refused", "invalid_api_key", 0, "malformed key, from 127.0.0.1")),
        (AUTHORIZATION, (413, "refused", "request_too_large", 0, "")),
    ],
)
async def test_a_client_that_leaves_meanwhile_was_refused(
    gateway: RunningGateway, key: tuple[str, str], told: tuple[object, ...]
) -> None:
    seen: list[Recorded] = []
    gateway.ask(lambda: gateway.app.proxy.settlement.add_observer(seen.extend))
    before = len(gateway.records)
    async with connected(gateway.port) as client:
        client.send(head(key, ("Content-Length", "200000")))
        for _ in range(2):  # so it is refused by now
            assert (await ask(gateway.port, request("POST", CHAT, BODY, [WRONG]))).status == 401
        client.leave()
        await gateway.recorded(before + 3)
    record, detail = gateway.ask(lambda: seen[2])
    assert (record.status, record.outcome, record.error, record.sent_bytes, detail) == told


async def test_a_rest_that_cannot_be_read_is_what_is_told(gateway: RunningGateway) -> None:
    async with connected(gateway.port) as client:
        pieces = head(WRONG, ("Transfer-Encoding", "chunked")), b"no length\r\n"
        assert (await refused(client, gateway, *pieces)).status == 400
