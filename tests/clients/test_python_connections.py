"""What openai-python's connections go through: reuse, many streams at once, clients that leave."""

import asyncio
from collections.abc import AsyncIterator

import httpx2
import pytest
from openai import AsyncOpenAI
from openai.types.chat import ChatCompletionMessageParam

from tests.clients.conftest import MODEL, TIMEOUT_S
from tests.support.gateway import KEY, RunningGateway
from tests.support.link import FaultyLink

HELLO: list[ChatCompletionMessageParam] = [{"role": "user", "content": "Hello!"}]
STREAMS = 100


@pytest.fixture
async def link(gateway: RunningGateway) -> AsyncIterator[FaultyLink]:
    """Counts the connections that clients make to the gateway."""
    async with FaultyLink("127.0.0.1", gateway.port) as link:
        yield link


@pytest.fixture
async def linked(link: FaultyLink) -> AsyncIterator[AsyncOpenAI]:
    async with AsyncOpenAI(base_url=f"{link.url}/v1", api_key=KEY, max_retries=0, timeout=TIMEOUT_S) as client:
        yield client


async def chat_text(client: AsyncOpenAI, prompt: str) -> str:
    messages: list[ChatCompletionMessageParam] = [{"role": "user", "content": prompt}]
    stream = await client.chat.completions.create(model=MODEL, messages=messages, stream=True)
    return "".join([chunk.choices[0].delta.content or "" async for chunk in stream])


async def response_text(client: AsyncOpenAI, prompt: str) -> str:
    stream = await client.responses.create(model=MODEL, input=prompt, stream=True)
    return "".join([event.delta async for event in stream if event.type == "response.output_text.delta"])


async def test_a_connection_is_used_again_after_done(linked: AsyncOpenAI, link: FaultyLink) -> None:
    for number in range(5):
        assert f"number {number}" in await chat_text(linked, f"number {number}")
        assert f"number {number}" in await response_text(linked, f"number {number}")
    assert len(link.connections) == 1


async def test_a_connection_is_used_again_after_an_error_reply(linked: AsyncOpenAI, link: FaultyLink) -> None:
    raw = linked.chat.completions.with_raw_response
    for status in (400, 404, 429, 500):
        with pytest.raises(Exception, match="Error code"):
            await raw.create(model=MODEL, messages=HELLO, extra_headers={"x-simulate": f"status={status}"})
    await chat_text(linked, "after")
    assert len(link.connections) == 1


async def test_the_connection_to_upstream_is_used_again_too(linked: AsyncOpenAI, simulator: str) -> None:
    root = simulator.removesuffix("/v1")
    async with httpx2.AsyncClient() as http:
        before = (await http.delete(f"{root}/_seen")).json()
        for _ in range(5):
            await chat_text(linked, "Hello!")
        seen = (await http.get(f"{root}/_seen", params={"total": "5", "open": "0"})).json()
    assert before["total"] == 0
    assert len(seen["requests"]) == 5
    assert len({request["client"] for request in seen["requests"]}) == 1


async def test_100_streams_at_once_each_get_their_own_text(async_client: AsyncOpenAI, gateway: RunningGateway) -> None:
    prompts = [f"stream {number}." for number in range(STREAMS)]
    texts = await asyncio.gather(
        *(chat_text(async_client, p) for p in prompts[::2]), *(response_text(async_client, p) for p in prompts[1::2])
    )
    for prompt, text in zip([*prompts[::2], *prompts[1::2]], texts, strict=True):
        assert f'"{prompt}"' in text
    records = await gateway.recorded(STREAMS)
    assert {(record.outcome, record.streamed) for record in records} == {("done", True)}
    assert all(record.usage is not None for record in records)
    assert gateway.ask(lambda: len(gateway.app.proxy.open_calls)) == 0


async def test_a_user_who_breaks_out_of_a_stream_ends_the_call(
    async_client: AsyncOpenAI, gateway: RunningGateway
) -> None:
    endless = {"x-simulate": "chunks=100000;chunk-delay=0.01"}
    stream = await async_client.chat.completions.create(model=MODEL, messages=HELLO, stream=True, extra_headers=endless)
    async for _ in stream:
        break
    await stream.close()
    (record,) = await gateway.recorded(1, within_s=1)
    assert (record.outcome, record.status) == ("client_left", 200)
