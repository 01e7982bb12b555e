"""The responses API as openai-python reads it, event by event."""

import itertools
import json

import openai
import pytest
from openai import AsyncOpenAI, OpenAI
from openai.types.responses import FunctionToolParam, ResponseInputParam, ResponseStreamEvent
from pydantic import BaseModel

from gateway.simulator import running_simulator
from tests.simulator.conftest import MODEL

WEATHER: FunctionToolParam = {
    "type": "function",
    "name": "get_current_weather",
    "strict": True,
    "parameters": {
        "type": "object",
        "properties": {"location": {"type": "string"}, "unit": {"type": "string", "enum": ["celsius", "k"]}},
        "required": ["location", "unit"],
    },
}


def order(events: list[ResponseStreamEvent]) -> list[str]:
    """The types of events, neighbours of one type told once, without their common prefix."""
    return [name.removeprefix("response.") for name, _ in itertools.groupby(event.type for event in events)]


def test_a_text_streams_in_the_order_of_the_real_api(client: OpenAI) -> None:
    events = list(client.responses.create(model=MODEL, input="Hello!", stream=True))
    assert order(events) == [
        "created",
        "in_progress",
        "output_item.added",
        "content_part.added",
        "output_text.delta",
        "output_text.done",
        "content_part.done",
        "output_item.done",
        "completed",
    ]
    assert [event.sequence_number for event in events] == list(range(len(events)))


def test_what_streamed_is_what_a_plain_call_gets(client: OpenAI) -> None:
    plain = client.responses.create(model=MODEL, input="Hello!")
    with client.responses.stream(model=MODEL, input="Hello!") as stream:
        final = stream.get_final_response()
    assert final.output_text == plain.output_text
    assert final.output_text.startswith("[simulated]")
    assert plain.usage is not None
    assert plain.usage.total_tokens == plain.usage.input_tokens + plain.usage.output_tokens


def test_reasoning_comes_first_with_its_summary(client: OpenAI) -> None:
    reasoning: openai.types.shared_params.Reasoning = {"effort": "high", "summary": "auto"}
    events = list(client.responses.create(model=MODEL, input="Why?", reasoning=reasoning, stream=True))
    assert order(events)[2:8] == [
        "output_item.added",
        "reasoning_summary_part.added",
        "reasoning_summary_text.delta",
        "reasoning_summary_text.done",
        "reasoning_summary_part.done",
        "output_item.done",
    ]
    last = events[-1]
    assert last.type == "response.completed"
    assert last.response.usage is not None
    assert last.response.usage.output_tokens_details.reasoning_tokens == 128


def test_a_web_search_has_its_phases_and_a_citation_that_fits_the_text(client: OpenAI) -> None:
    tools: list[openai.types.responses.ToolParam] = [{"type": "web_search_preview"}]
    events = list(client.responses.create(model=MODEL, input="News?", tools=tools, stream=True))
    assert order(events)[2:7] == [
        "output_item.added",
        "web_search_call.in_progress",
        "web_search_call.searching",
        "web_search_call.completed",
        "output_item.done",
    ]
    assert "output_text.annotation.added" in order(events)
    last = events[-1]
    assert last.type == "response.completed"
    message = last.response.output[-1]
    assert message.type == "message"
    part = message.content[0]
    assert part.type == "output_text"
    cited = part.annotations[0]
    assert cited.type == "url_citation"
    assert cited.url in part.text[cited.start_index : cited.end_index]


def test_a_function_is_called_in_pieces_that_join_to_json(client: OpenAI) -> None:
    events = list(client.responses.create(model=MODEL, input="Boston?", tools=[WEATHER], stream=True))
    assert order(events)[2:6] == [
        "output_item.added",
        "function_call_arguments.delta",
        "function_call_arguments.done",
        "output_item.done",
    ]
    pieces = [event.delta for event in events if event.type == "response.function_call_arguments.delta"]
    assert json.loads("".join(pieces)) == {"location": "[simulated]", "unit": "celsius"}


def test_a_function_result_is_answered_with_text(client: OpenAI) -> None:
    first = client.responses.create(model=MODEL, input="Boston?", tools=[WEATHER])
    called = first.output[0]
    assert called.type == "function_call"
    result: ResponseInputParam = [{"type": "function_call_output", "call_id": called.call_id, "output": "12 degrees"}]
    second = client.responses.create(model=MODEL, input=result, tools=[WEATHER], previous_response_id=first.id)
    assert "12 degrees" in second.output_text
    assert first.usage is not None
    assert second.usage is not None
    assert second.usage.input_tokens > first.usage.total_tokens


def test_a_custom_tool_gets_free_text(client: OpenAI) -> None:
    tools: list[openai.types.responses.ToolParam] = [{"type": "custom", "name": "apply_patch"}]
    events = list(client.responses.create(model=MODEL, input="Patch", tools=tools, stream=True))
    assert order(events)[3:5] == ["custom_tool_call_input.delta", "custom_tool_call_input.done"]


def test_images_and_files_are_named_by_their_kind(client: OpenAI) -> None:
    given: ResponseInputParam = [
        {
            "role": "user",
            "content": [
                {"type": "input_image", "image_url": "https://example.com/a.png", "detail": "auto"},
                {"type": "input_file", "file_url": "https://example.com/a.pdf"},
            ],
        }
    ]
    text = client.responses.create(model=MODEL, input=given).output_text
    assert "image (URL https://example.com/a.png)" in text
    assert "file (URL https://example.com/a.pdf)" in text


class Story(BaseModel):
    title: str
    pages: list[int]


async def test_structured_output_fits_its_schema_also_in_a_stream(async_client: AsyncOpenAI) -> None:
    parsed = await async_client.responses.parse(model=MODEL, input="A story", text_format=Story)
    assert parsed.output_parsed == Story(title="[simulated]", pages=[1])
    async with async_client.responses.stream(model=MODEL, input="A story", text_format=Story) as stream:
        final = await stream.get_final_response()
    assert final.output_parsed == parsed.output_parsed


def test_max_output_tokens_make_it_incomplete(client: OpenAI) -> None:
    events = list(client.responses.create(model=MODEL, input="word " * 40, max_output_tokens=16, stream=True))
    last = events[-1]
    assert last.type == "response.incomplete"
    assert last.response.incomplete_details is not None
    assert last.response.incomplete_details.reason == "max_output_tokens"
    assert last.response.usage is not None
    assert last.response.usage.output_tokens == 16


def test_a_stored_response_can_be_read_and_deleted(client: OpenAI) -> None:
    made = client.responses.create(model=MODEL, input="Keep this")
    assert client.responses.retrieve(made.id) == made
    items = list(client.responses.input_items.list(made.id))
    assert [item.type for item in items] == ["message"]
    client.responses.delete(made.id)
    with pytest.raises(openai.NotFoundError):
        client.responses.retrieve(made.id)


def test_what_is_not_stored_cannot_be_read(client: OpenAI) -> None:
    made = client.responses.create(model=MODEL, input="Forget this", store=False)
    with pytest.raises(openai.NotFoundError):
        client.responses.retrieve(made.id)


def test_a_stream_resumes_after_a_sequence_number(client: OpenAI) -> None:
    events = list(client.responses.create(model=MODEL, input="Resume", stream=True))
    first = events[0]
    assert first.type == "response.created"
    again = list(client.responses.retrieve(first.response.id, stream=True, starting_after=4))
    assert again == events[5:]


def test_a_background_response_is_queued_and_completed_when_asked_for(client: OpenAI) -> None:
    made = client.responses.create(model=MODEL, input="Later", background=True)
    assert (made.status, made.output) == ("queued", [])
    assert client.responses.retrieve(made.id).status == "completed"


def test_a_background_stream_tells_that_it_is_queued(client: OpenAI) -> None:
    events = list(client.responses.create(model=MODEL, input="Later", background=True, stream=True))
    assert order(events)[:3] == ["created", "queued", "in_progress"]


def test_only_a_background_response_can_be_cancelled(client: OpenAI) -> None:
    queued = client.responses.create(model=MODEL, input="Cancel me", background=True)
    assert client.responses.cancel(queued.id).status == "cancelled"
    assert client.responses.retrieve(queued.id).status == "cancelled"
    plain = client.responses.create(model=MODEL, input="Not me")
    with pytest.raises(openai.BadRequestError):
        client.responses.cancel(plain.id)


def test_an_unknown_previous_response_is_refused(client: OpenAI) -> None:
    with pytest.raises(openai.BadRequestError) as refused:
        client.responses.create(model=MODEL, input="And?", previous_response_id="resp_unknown")
    assert refused.value.code == "previous_response_not_found"


def test_input_tokens_are_those_of_the_call(client: OpenAI) -> None:
    counted = client.responses.input_tokens.count(model=MODEL, input="Count these words")
    made = client.responses.create(model=MODEL, input="Count these words")
    assert made.usage is not None
    assert counted.input_tokens == made.usage.input_tokens


def test_compacting_keeps_what_the_user_said(client: OpenAI) -> None:
    compacted = client.responses.compact(model=MODEL, input="Remember this")
    assert [item.type for item in compacted.output] == ["message", "compaction"]


def test_a_conversation_collects_both_sides(client: OpenAI) -> None:
    conversation = client.conversations.create(metadata={"a": "1"})
    client.responses.create(model=MODEL, input="First", conversation=conversation.id)
    items = list(client.conversations.items.list(conversation.id, order="asc"))
    assert [item.role for item in items if item.type == "message"] == ["user", "assistant"]


def test_what_is_stored_has_an_id_of_its_own_each_time(client: OpenAI) -> None:
    made = [client.responses.create(model=MODEL, input="Same") for _ in range(3)]
    assert len({each.id for each in made}) == 3
    assert len({each.output[-1].id for each in made}) == 3
    for each in made:
        assert client.responses.retrieve(each.id).output_text == each.output_text


def test_what_is_not_stored_is_the_same_each_time(client: OpenAI) -> None:
    assert len({client.responses.create(model=MODEL, input="Same", store=False).id for _ in range(3)}) == 1


def test_the_same_requests_get_the_same_ids_in_the_same_order_from_another_simulator() -> None:
    def ids() -> list[str]:
        with running_simulator() as url, OpenAI(base_url=url, api_key="any") as client:
            return [client.responses.create(model=MODEL, input=text).id for text in ("a", "b", "a")]

    assert ids() == ids()
