"""Chat completions as openai-python reads them."""

import json

import openai
import pytest
import requests
from openai import AsyncOpenAI, OpenAI
from openai.types.chat import ChatCompletionMessageParam, ChatCompletionToolParam
from pydantic import BaseModel

from tests.simulator.conftest import MODEL

HELLO: list[ChatCompletionMessageParam] = [{"role": "user", "content": "Hello!"}]
WEATHER: ChatCompletionToolParam = {
    "type": "function",
    "function": {
        "name": "get_current_weather",
        "parameters": {
            "type": "object",
            "properties": {"location": {"type": "string"}, "unit": {"type": "string", "enum": ["celsius"]}},
            "required": ["location"],
        },
    },
}


def chunks(url: str, body: object) -> list[str]:
    reply = requests.post(f"{url}/chat/completions", json=body, timeout=10)
    assert reply.headers["content-type"] == "text/event-stream; charset=utf-8"
    return [line.removeprefix("data: ") for line in reply.text.split("\n\n") if line]


def test_a_plain_answer_is_marked_and_its_usage_adds_up(client: OpenAI) -> None:
    completion = client.chat.completions.create(model=MODEL, messages=HELLO, reasoning_effort="low")
    assert (completion.choices[0].message.content or "").startswith("[simulated]")
    assert completion.model == MODEL
    assert completion.system_fingerprint == "fp_simulated"
    usage = completion.usage
    assert usage is not None
    assert usage.total_tokens == usage.prompt_tokens + usage.completion_tokens
    assert usage.completion_tokens_details is not None
    assert usage.completion_tokens_details.reasoning_tokens == 32


async def test_the_async_client_reads_the_same_text_as_the_stream(async_client: AsyncOpenAI) -> None:
    plain = await async_client.chat.completions.create(model=MODEL, messages=HELLO)
    stream = await async_client.chat.completions.create(model=MODEL, messages=HELLO, stream=True)
    streamed = [chunk.choices[0].delta.content or "" async for chunk in stream]
    assert "".join(streamed) == plain.choices[0].message.content


def test_a_stream_begins_with_the_role_and_ends_with_reason_and_done(url: str) -> None:
    *events, done = chunks(url, {"model": MODEL, "messages": HELLO, "stream": True})
    first, last = json.loads(events[0]), json.loads(events[-1])
    assert done == "[DONE]"
    assert first["choices"][0]["delta"] == {"role": "assistant", "content": "", "refusal": None}
    assert last["choices"][0] == {"index": 0, "delta": {}, "logprobs": None, "finish_reason": "stop"}
    assert all("usage" not in json.loads(event) and "obfuscation" in json.loads(event) for event in events)


def test_include_usage_adds_nulls_and_one_chunk_and_changes_nothing_else(url: str) -> None:
    body = {"model": MODEL, "messages": HELLO, "stream": True}
    without = chunks(url, body)
    *events, usage, done = chunks(url, {**body, "stream_options": {"include_usage": True}})
    assert [event.replace('"usage":null,', "") for event in events] == without[:-1]
    assert done == "[DONE]"
    assert json.loads(usage)["choices"] == []
    assert json.loads(usage)["usage"]["total_tokens"] > 0


def test_obfuscation_can_be_turned_off(url: str) -> None:
    options = {"include_obfuscation": False}
    body = {"model": MODEL, "messages": HELLO, "stream": True, "stream_options": options}
    assert not any("obfuscation" in event for event in chunks(url, body))


def test_a_tool_is_called_and_its_result_is_answered_with_text(client: OpenAI) -> None:
    first = client.chat.completions.create(model=MODEL, messages=HELLO, tools=[WEATHER])
    assert first.choices[0].finish_reason == "tool_calls"
    called = (first.choices[0].message.tool_calls or [])[0]
    assert called.type == "function"
    assert json.loads(called.function.arguments) == {"location": "[simulated]"}
    answered: list[ChatCompletionMessageParam] = [
        *HELLO,
        {"role": "tool", "tool_call_id": called.id, "content": "12 degrees"},
    ]
    second = client.chat.completions.create(model=MODEL, messages=answered, tools=[WEATHER])
    assert "12 degrees" in (second.choices[0].message.content or "")


def test_tool_choice_none_means_no_call(client: OpenAI) -> None:
    answer = client.chat.completions.create(model=MODEL, messages=HELLO, tools=[WEATHER], tool_choice="none")
    assert answer.choices[0].finish_reason == "stop"


def test_streamed_arguments_join_to_json(client: OpenAI) -> None:
    with client.chat.completions.stream(model=MODEL, messages=HELLO, tools=[WEATHER]) as stream:
        final = stream.get_final_completion()
    called = (final.choices[0].message.tool_calls or [])[0]
    assert called.function.name == "get_current_weather"
    assert json.loads(called.function.arguments) == {"location": "[simulated]"}


class Capital(BaseModel):
    name: str
    people: int
    twin: "Capital | None"


def test_structured_output_fits_its_schema(client: OpenAI) -> None:
    parsed = client.chat.completions.parse(model=MODEL, messages=HELLO, response_format=Capital)
    assert parsed.choices[0].message.parsed is not None
    assert parsed.choices[0].message.parsed.name == "[simulated]"


def test_max_tokens_cuts_the_answer(client: OpenAI) -> None:
    cut = client.chat.completions.create(model=MODEL, messages=HELLO, max_completion_tokens=4)
    assert cut.choices[0].finish_reason == "length"
    assert cut.choices[0].message.content == "[simulated] open"
    assert cut.usage is not None
    assert cut.usage.completion_tokens == 4


def test_stop_cuts_before_the_sequence_and_after_the_prefix(client: OpenAI) -> None:
    cut = client.chat.completions.create(model=MODEL, messages=HELLO, stop=["was", "simulated"])
    assert cut.choices[0].message.content == "[simulated] openai/gpt-5.2 "
    assert cut.choices[0].finish_reason == "stop"


def test_n_choices_come_with_their_index(client: OpenAI) -> None:
    completion = client.chat.completions.create(model=MODEL, messages=HELLO, n=3)
    assert [choice.index for choice in completion.choices] == [0, 1, 2]
    stream = client.chat.completions.create(model=MODEL, messages=HELLO, n=3, stream=True)
    finished = [c.index for chunk in stream for c in chunk.choices if c.finish_reason == "stop"]
    assert finished == [0, 1, 2]


def test_an_image_and_a_file_are_named_by_their_kind(client: OpenAI) -> None:
    data = "data:image/png;base64," + "A" * 100
    content: list[ChatCompletionMessageParam] = [
        {
            "role": "user",
            "content": [
                {"type": "text", "text": "What is this?"},
                {"type": "image_url", "image_url": {"url": "https://example.com/a.jpeg"}},
                {"type": "image_url", "image_url": {"url": data}},
                {"type": "file", "file": {"file_id": "file-1"}},
            ],
        }
    ]
    text = client.chat.completions.create(model=MODEL, messages=content).choices[0].message.content or ""
    assert "image (URL https://example.com/a.jpeg)" in text
    assert "image (image/png inline, 122 characters)" in text
    assert "file (file id file-1)" in text


def test_a_stored_completion_can_be_read_listed_changed_and_deleted(client: OpenAI) -> None:
    made = client.chat.completions.create(model=MODEL, messages=HELLO, store=True, metadata={"a": "1"})
    stored = client.chat.completions
    assert stored.retrieve(made.id).choices == made.choices
    assert made.id in [each.id for each in stored.list()]
    assert stored.update(made.id, metadata={"b": "2"}).metadata == {"b": "2"}
    assert [message.content for message in stored.messages.list(made.id)] == ["Hello!"]
    assert stored.delete(made.id).deleted
    with pytest.raises(openai.NotFoundError):
        stored.retrieve(made.id)


def test_the_same_request_gets_the_same_bytes(url: str) -> None:
    body = {"model": MODEL, "messages": HELLO, "stream": True}
    assert chunks(url, body) == chunks(url, body)


def test_fresh_ids_can_be_asked_for(client: OpenAI) -> None:
    headers = {"x-simulate": "fresh"}
    made = [client.chat.completions.create(model=MODEL, messages=HELLO, extra_headers=headers).id for _ in range(3)]
    assert len(set(made)) == 3


def test_time_stamps_are_fixed_unless_asked_otherwise(client: OpenAI) -> None:
    fixed = client.chat.completions.create(model=MODEL, messages=HELLO)
    asked = client.chat.completions.create(model=MODEL, messages=HELLO, extra_headers={"x-simulate": "created=7"})
    assert (fixed.created, asked.created) == (1_767_225_600, 7)


def test_stored_completions_have_an_id_of_their_own_each_time(client: OpenAI) -> None:
    made = {client.chat.completions.create(model=MODEL, messages=HELLO, store=True).id for _ in range(3)}
    assert len(made) == 3
