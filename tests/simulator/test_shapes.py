"""Every object and event, checked strictly against the types that OpenAI generates from its specification.

The SDK itself reads leniently: a member that is missing would not be noticed by it.
"""

from typing import Any

import pytest
import requests
from openai.types import CreateEmbeddingResponse, FileObject, ImagesResponse, Model, ModerationCreateResponse
from openai.types.chat import ChatCompletion, ChatCompletionChunk
from openai.types.conversations import Conversation
from openai.types.responses import CompactedResponse, Response, ResponseItemList, ResponseStreamEvent
from openai.types.vector_store import VectorStore
from pydantic import TypeAdapter

from tests.simulator.conftest import MODEL

FUNCTION = {"name": "f", "parameters": {"type": "object", "properties": {}}, "strict": True}
CHAT: dict[str, Any] = {"model": MODEL, "messages": [{"role": "user", "content": "Hi"}]}
SPOKEN = {"model": MODEL, "input": "Hi"}
CHATS = [
    {},
    {"n": 2},
    {"tools": [{"type": "function", "function": FUNCTION}]},
    {"max_completion_tokens": 1},
    {"stream_options": {"include_usage": True}},
]
RESPONSES = [
    {},
    {"reasoning": {"effort": "low", "summary": "auto"}, "include": ["reasoning.encrypted_content"]},
    {"tools": [{"type": "web_search_preview"}]},
    {"tools": [{"type": "function", **FUNCTION}]},
    {"tools": [{"type": "custom", "name": "c"}]},
    {"max_output_tokens": 16, "reasoning": {"effort": "low"}},
    {"background": True},
    {"instructions": "Be brief", "metadata": {"a": "b"}, "user": "u", "temperature": 0.5},
    {"text": {"format": {"type": "json_schema", "name": "n", "schema": {"type": "object", "properties": {}}}}},
]


def post(url: str, path: str, body: dict[str, Any]) -> str:
    reply = requests.post(f"{url}/{path}", json=body, timeout=10)
    assert reply.status_code == 200, reply.text
    return reply.text


def data_lines(text: str) -> list[str]:
    lines = [line.removeprefix("data: ") for line in text.splitlines() if line.startswith("data: ")]
    return [line for line in lines if line != "[DONE]"]


@pytest.mark.parametrize("more", CHATS)
def test_chat_completions_and_chunks_are_whole(url: str, more: dict[str, Any]) -> None:
    if "stream_options" not in more:
        ChatCompletion.model_validate_json(post(url, "chat/completions", {**CHAT, **more}))
    for line in data_lines(post(url, "chat/completions", {**CHAT, **more, "stream": True})):
        ChatCompletionChunk.model_validate_json(line)


@pytest.mark.parametrize("more", RESPONSES)
def test_responses_and_events_are_whole(url: str, more: dict[str, Any]) -> None:
    event: TypeAdapter[ResponseStreamEvent] = TypeAdapter(ResponseStreamEvent)
    made = Response.model_validate_json(post(url, "responses", {**SPOKEN, **more}))
    for line in data_lines(post(url, "responses", {**SPOKEN, **more, "stream": True})):
        event.validate_json(line)
    items = requests.get(f"{url}/responses/{made.id}/input_items", timeout=10).text
    ResponseItemList.model_validate_json(items)


@pytest.mark.parametrize(
    ("path", "body", "shape"),
    [
        # What the user said is kept as input, for which the SDK has no type among outputs.
        ("responses/compact", {**SPOKEN, "input": []}, CompactedResponse),
        ("embeddings", {"model": "any", "input": "a", "dimensions": 4}, CreateEmbeddingResponse),
        ("moderations", {"input": "a"}, ModerationCreateResponse),
        ("images/generations", {"prompt": "a"}, ImagesResponse),
        ("conversations", {}, Conversation),
        ("vector_stores", {}, VectorStore),
    ],
)
def test_other_objects_are_whole(url: str, path: str, body: dict[str, Any], shape: type[Model]) -> None:
    shape.model_validate_json(post(url, path, body))


def test_files_and_models_are_whole(url: str) -> None:
    form, file = {"purpose": "user_data"}, {"file": b"x"}
    made = requests.post(f"{url}/files", data=form, files=file, timeout=10)
    FileObject.model_validate_json(made.text)
    Model.model_validate_json(requests.get(f"{url}/models/{MODEL}", timeout=10).text)
