"""Chat completions by openai-python, sync and async."""

import json

import pytest
from openai import AsyncOpenAI, OpenAI
from openai.types.chat import (
    ChatCompletionMessageParam,
    ChatCompletionStreamOptionsParam,
    ChatCompletionToolParam,
)
from pydantic import BaseModel

from tests.clients.conftest import ALIAS, MODEL
from tests.support.gateway import RunningGateway

HELLO: list[ChatCompletionMessageParam] = [{"role": "user", "content": "Hello!"}]
WEATHER: ChatCompletionToolParam = {
    "type": "function",
    "function": {
        "name": "get_current_weather",
        "parameters": {"type": "object", "properties": {"location": {"type": "string"}}, "required": ["location"]},
    },
}


class Capital(BaseModel):
    name: str
    people: int


def test_a_plain_call_is_answered_and_its_usage_is_on_the_record(client: OpenAI, gateway: RunningGateway) -> None:
    completion = client.chat.completions.create(model=MODEL, messages=HELLO)
    assert (completion.choices[0].message.content or "").startswith("[simulated]")
    (record,) = gateway.wait_for_records(1)
    assert completion.usage is not None
    assert record.usage is not None
    assert record.usage.total_tokens == completion.usage.total_tokens


def test_a_client_sees_the_request_id_of_upstream_and_that_of_the_gateway(
    client: OpenAI, gateway: RunningGateway
) -> None:
    raw = client.chat.completions.with_raw_response.create(model=MODEL, messages=HELLO)
    (record,) = gateway.wait_for_records(1)
    assert raw.request_id == record.upstream_request_id
    assert raw.headers["x-gateway-request-id"] == record.id
    assert raw.parse().choices[0].finish_reason == "stop"


def test_an_alias_is_answered_as_its_model(client: OpenAI) -> None:
    aliased = client.chat.completions.create(model=ALIAS, messages=HELLO)
    assert aliased.model == MODEL
    assert aliased == client.chat.completions.create(model=MODEL, messages=HELLO)


def test_a_stream_joins_to_the_plain_text_and_has_no_chunk_without_a_choice(
    client: OpenAI, gateway: RunningGateway
) -> None:
    chunks = list(client.chat.completions.create(model=MODEL, messages=HELLO, stream=True))
    plain = client.chat.completions.create(model=MODEL, messages=HELLO)
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == plain.choices[0].message.content
    assert all("usage" not in chunk.model_fields_set for chunk in chunks)
    streamed, whole = gateway.wait_for_records(2)
    assert streamed.usage == whole.usage


def test_usage_that_was_asked_for_comes_in_the_last_chunk(client: OpenAI, gateway: RunningGateway) -> None:
    options: ChatCompletionStreamOptionsParam = {"include_usage": True}
    stream = client.chat.completions.create(model=MODEL, messages=HELLO, stream=True, stream_options=options)
    *chunks, last = stream
    assert all("usage" in chunk.model_fields_set and chunk.usage is None for chunk in chunks)
    assert last.choices == []
    assert last.usage is not None
    (record,) = gateway.wait_for_records(1)
    assert record.usage is not None
    assert record.usage.total_tokens == last.usage.total_tokens


def test_the_stream_helper_collects_a_tool_call(client: OpenAI) -> None:
    with client.chat.completions.stream(model=MODEL, messages=HELLO, tools=[WEATHER]) as stream:
        kinds = {event.type for event in stream}
        final = stream.get_final_completion()
    assert "tool_calls.function.arguments.done" in kinds
    (called,) = final.choices[0].message.tool_calls or []
    assert json.loads(called.function.arguments) == {"location": "[simulated]"}


def test_a_tool_result_is_answered_with_text(client: OpenAI) -> None:
    first = client.chat.completions.create(model=MODEL, messages=HELLO, tools=[WEATHER])
    (called,) = first.choices[0].message.tool_calls or []
    result: ChatCompletionMessageParam = {"role": "tool", "tool_call_id": called.id, "content": "12 degrees"}
    second = client.chat.completions.create(model=MODEL, messages=[*HELLO, result], tools=[WEATHER])
    assert "12 degrees" in (second.choices[0].message.content or "")


def test_parse_gives_the_type_that_was_asked_for(client: OpenAI) -> None:
    parsed = client.chat.completions.parse(model=MODEL, messages=HELLO, response_format=Capital)
    assert isinstance(parsed.choices[0].message.parsed, Capital)


def test_a_streaming_response_is_passed_on_line_by_line(client: OpenAI) -> None:
    streaming = client.chat.completions.with_streaming_response
    with streaming.create(model=MODEL, messages=HELLO, stream=True) as reply:
        assert reply.headers["content-type"].startswith("text/event-stream")
        assert reply.headers["x-accel-buffering"] == "no"
        lines = [line for line in reply.iter_lines() if line]
    assert lines[-1] == "data: [DONE]"
    assert all(line.startswith("data: ") for line in lines)


def test_a_stored_completion_can_be_read_listed_changed_and_deleted(client: OpenAI) -> None:
    stored = client.chat.completions
    made = stored.create(model=MODEL, messages=HELLO, store=True, metadata={"a": "1"})
    assert stored.retrieve(made.id).choices == made.choices
    assert made.id in [each.id for each in stored.list()]
    assert stored.update(made.id, metadata={"b": "2"}).metadata == {"b": "2"}
    assert [message.content for message in stored.messages.list(made.id)] == ["Hello!"]
    assert stored.delete(made.id).deleted


def test_reading_a_stored_completion_again_counts_no_tokens(client: OpenAI, gateway: RunningGateway) -> None:
    made = client.chat.completions.create(model=MODEL, messages=HELLO, store=True)
    client.chat.completions.retrieve(made.id)
    _, read = gateway.wait_for_records(2)
    assert (read.outcome, read.usage) == ("done", None)


async def test_the_async_client_streams_and_parses(async_client: AsyncOpenAI) -> None:
    plain = await async_client.chat.completions.create(model=MODEL, messages=HELLO)
    stream = await async_client.chat.completions.create(model=MODEL, messages=HELLO, stream=True)
    text = "".join([chunk.choices[0].delta.content or "" async for chunk in stream])
    assert text == plain.choices[0].message.content
    parsed = await async_client.chat.completions.parse(model=MODEL, messages=HELLO, response_format=Capital)
    assert isinstance(parsed.choices[0].message.parsed, Capital)


async def test_the_async_stream_helper_tells_the_final_completion(async_client: AsyncOpenAI) -> None:
    async with async_client.chat.completions.stream(model=MODEL, messages=HELLO) as stream:
        final = await stream.get_final_completion()
    assert final.choices[0].finish_reason == "stop"
    assert (final.choices[0].message.content or "").startswith("[simulated]")


@pytest.mark.parametrize(
    "odd", ["crlf", "comments", "unknown-events", "no-done", "big-event", "split-utf8", "crlf|comments|split-utf8"]
)
async def test_odd_but_legal_streams_say_the_same_text(async_client: AsyncOpenAI, odd: str) -> None:
    plain = await async_client.chat.completions.create(
        model=MODEL, messages=HELLO, extra_headers={"x-simulate": f"odd={odd}"}
    )
    stream = await async_client.chat.completions.create(
        model=MODEL, messages=HELLO, stream=True, extra_headers={"x-simulate": f"odd={odd};drip=7"}
    )
    texts = [chunk.choices[0].delta.content or "" async for chunk in stream if getattr(chunk, "choices", None)]
    assert "".join(texts) == plain.choices[0].message.content
