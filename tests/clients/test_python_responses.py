"""Responses and conversations by openai-python, sync and async."""

import json

import openai
import pytest
from openai import AsyncOpenAI, OpenAI
from openai.types.responses import FunctionToolParam, ResponseInputParam
from pydantic import BaseModel

from tests.clients.conftest import ALIAS, MODEL
from tests.support.gateway import RunningGateway

WEATHER: FunctionToolParam = {
    "type": "function",
    "name": "get_current_weather",
    "strict": True,
    "parameters": {"type": "object", "properties": {"location": {"type": "string"}}, "required": ["location"]},
}


class Story(BaseModel):
    title: str
    pages: list[int]


def test_a_plain_response_is_answered_and_its_usage_is_on_the_record(client: OpenAI, gateway: RunningGateway) -> None:
    made = client.responses.create(model=ALIAS, input="Hello!")
    assert made.output_text.startswith("[simulated]")
    assert made.model == MODEL
    (record,) = gateway.wait_for_records(1)
    assert made.usage is not None
    assert record.usage is not None
    assert record.usage.total_tokens == made.usage.total_tokens


def test_a_stream_is_numbered_without_a_gap_and_ends_with_the_whole_response(
    client: OpenAI, gateway: RunningGateway
) -> None:
    events = list(client.responses.create(model=MODEL, input="Hello!", stream=True))
    assert [event.sequence_number for event in events] == list(range(len(events)))
    last = events[-1]
    assert last.type == "response.completed"
    (record,) = gateway.wait_for_records(1)
    assert last.response.usage is not None
    assert record.usage is not None
    assert record.usage.output_tokens == last.response.usage.output_tokens


def test_the_stream_helper_tells_deltas_and_the_final_response(client: OpenAI) -> None:
    with client.responses.stream(model=MODEL, input="Hello!") as stream:
        deltas = "".join(event.delta for event in stream if event.type == "response.output_text.delta")
        final = stream.get_final_response()
    assert deltas == final.output_text


def test_a_function_is_called_and_its_result_answered(client: OpenAI) -> None:
    first = client.responses.create(model=MODEL, input="Boston?", tools=[WEATHER])
    called = first.output[0]
    assert called.type == "function_call"
    assert "location" in json.loads(called.arguments)
    result: ResponseInputParam = [{"type": "function_call_output", "call_id": called.call_id, "output": "12 degrees"}]
    second = client.responses.create(model=MODEL, input=result, tools=[WEATHER], previous_response_id=first.id)
    assert "12 degrees" in second.output_text


def test_a_stored_response_can_be_read_listed_and_deleted(client: OpenAI) -> None:
    made = client.responses.create(model=MODEL, input="Keep this")
    assert client.responses.retrieve(made.id) == made
    assert [item.type for item in client.responses.input_items.list(made.id, order="asc", limit=1)] == ["message"]
    client.responses.delete(made.id)
    with pytest.raises(openai.NotFoundError):
        client.responses.retrieve(made.id)


def test_a_background_response_can_be_cancelled(client: OpenAI) -> None:
    queued = client.responses.create(model=MODEL, input="Cancel me", background=True)
    assert queued.status == "queued"
    assert client.responses.cancel(queued.id).status == "cancelled"


@pytest.mark.parametrize("after", [0, 4])
def test_a_stream_resumes_where_it_is_asked_to_and_counts_no_tokens_twice(
    client: OpenAI, gateway: RunningGateway, after: int
) -> None:
    events = list(client.responses.create(model=MODEL, input="Resume", stream=True))
    first = events[0]
    assert first.type == "response.created"
    again = list(client.responses.retrieve(first.response.id, stream=True, starting_after=after))
    assert again == events[after + 1 :]
    made, resumed = gateway.wait_for_records(2)
    assert made.usage is not None
    assert (resumed.streamed, resumed.outcome, resumed.usage) == (True, "done", None)


def test_input_tokens_are_counted_and_a_response_compacted(client: OpenAI) -> None:
    assert client.responses.input_tokens.count(model=MODEL, input="Count these words").input_tokens > 0
    compacted = client.responses.compact(model=MODEL, input="Remember this")
    assert [item.type for item in compacted.output] == ["message", "compaction"]


def test_a_conversation_collects_both_sides_and_its_items_live_and_die(client: OpenAI) -> None:
    made = client.conversations.create(metadata={"a": "1"})
    client.responses.create(model=MODEL, input="First", conversation=made.id)
    items = list(client.conversations.items.list(made.id, order="asc"))
    assert [item.role for item in items if item.type == "message"] == ["user", "assistant"]
    added = client.conversations.items.create(made.id, items=[{"role": "user", "content": "More", "type": "message"}])
    item_id = added.data[0].id or ""
    assert client.conversations.items.retrieve(item_id, conversation_id=made.id).type == "message"
    client.conversations.items.delete(item_id, conversation_id=made.id)
    assert client.conversations.update(made.id, metadata={"b": "2"}).metadata == {"b": "2"}
    assert client.conversations.retrieve(made.id).metadata == {"b": "2"}
    assert client.conversations.delete(made.id).deleted


async def test_the_async_client_streams_and_parses(async_client: AsyncOpenAI) -> None:
    parsed = await async_client.responses.parse(model=MODEL, input="A story", text_format=Story)
    assert isinstance(parsed.output_parsed, Story)
    async with async_client.responses.stream(model=MODEL, input="A story", text_format=Story) as stream:
        final = await stream.get_final_response()
    assert final.output_parsed == parsed.output_parsed


@pytest.mark.parametrize("odd", ["crlf", "comments", "unknown-events", "big-event", "crlf|comments|split-utf8"])
async def test_odd_but_legal_streams_say_the_same_text(async_client: AsyncOpenAI, odd: str) -> None:
    stream = await async_client.responses.create(
        model=MODEL, input="Hello!", stream=True, extra_headers={"x-simulate": f"odd={odd};drip=7"}
    )
    events = [event async for event in stream]
    text = "".join(event.delta for event in events if event.type == "response.output_text.delta")
    last = events[-1]
    assert last.type == "response.completed"
    assert last.response.output_text == text
