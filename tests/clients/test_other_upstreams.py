"""Upstreams that nobody here wrote: what they say comes through, and what they do wrong is not hidden."""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass

import httpx2
import openai
import pytest
from openai import OpenAI
from openai.types.chat import ChatCompletionMessageParam, ChatCompletionToolParam
from openai.types.responses import FunctionToolParam
from pydantic import BaseModel

from tests.clients.conftest import TIMEOUT_S
from tests.clients.mocks import running_aimock, running_llmock
from tests.support.gateway import BEARER, KEY, RunningGateway, running_gateway

MODEL = "gpt-4o"
ALIAS = "ours"
PARAMETERS: dict[str, object] = {
    "type": "object",
    "properties": {"location": {"type": "string"}},
    "required": ["location"],
    "additionalProperties": False,
}
CHAT_TOOL: ChatCompletionToolParam = {
    "type": "function",
    "function": {"name": "get_weather", "parameters": PARAMETERS},
}
TOOL: FunctionToolParam = {"type": "function", "name": "get_weather", "parameters": PARAMETERS, "strict": True}
VOLATILE = re.compile(rb'"(?:id|item_id|call_id|response_id)":"[^"]+"|"created(?:_at)?":\d+')
"""What these servers make up anew for every reply."""


class Capital(BaseModel):
    name: str
    people: int


def user(text: str) -> list[ChatCompletionMessageParam]:
    return [{"role": "user", "content": text}]


@dataclass(frozen=True)
class Pair:
    """An upstream's own base URL and a gateway in front of it."""

    base_url: str
    gateway: RunningGateway


@pytest.fixture(scope="module")
def aimock(node: str) -> Iterator[Pair]:
    with running_aimock(node) as url, running_gateway(url, models={"aliases": {ALIAS: MODEL}}) as gateway:
        yield Pair(url, gateway)


@pytest.fixture(scope="module")
def llmock_server() -> Iterator[Pair]:
    settings = {"models": {"aliases": {ALIAS: MODEL}}, "upstream": {"idle_timeout_s": 0.5}}
    with running_llmock() as url, running_gateway(url, **settings) as gateway:
        yield Pair(url, gateway)


@pytest.fixture(params=["aimock", "llmock_server"])
def pair(request: pytest.FixtureRequest) -> Pair:
    found: Pair = request.getfixturevalue(request.param)
    found.gateway.records.clear()
    return found


def connected(pair: Pair) -> OpenAI:
    return OpenAI(base_url=pair.gateway.api, api_key=KEY, max_retries=0, timeout=TIMEOUT_S)


@pytest.fixture
def client(pair: Pair) -> Iterator[OpenAI]:
    with connected(pair) as client:
        yield client


@pytest.fixture
def aimock_client(aimock: Pair) -> Iterator[OpenAI]:
    aimock.gateway.records.clear()
    with connected(aimock) as client:
        yield client


@pytest.fixture
def llmock_pair(llmock_server: Pair) -> Pair:
    """Made to forget what other tests did and asked for."""
    httpx2.post(control(llmock_server, "reset"), timeout=TIMEOUT_S).raise_for_status()
    llmock_server.gateway.records.clear()
    return llmock_server


@pytest.fixture
def llmock_client(llmock_pair: Pair) -> Iterator[OpenAI]:
    with connected(llmock_pair) as client:
        yield client


def control(pair: Pair, what: str) -> str:
    return f"{pair.base_url.removesuffix('/v1')}/_llmock/{what}"


def misbehave(pair: Pair, **behaviour: object) -> None:
    answer = httpx2.post(control(pair, "scenario"), json={"behaviors": [behaviour]}, timeout=TIMEOUT_S)
    answer.raise_for_status()


# What they say.


BODIES: dict[str, tuple[str, dict[str, object]]] = {
    "chat": ("chat/completions", {"model": MODEL, "messages": user("Hello")}),
    "chat stream": ("chat/completions", {"model": MODEL, "messages": user("Hello"), "stream": True}),
    "chat stream with usage": (
        "chat/completions",
        {"model": MODEL, "messages": user("Hello"), "stream": True, "stream_options": {"include_usage": True}},
    ),
    "chat tools": ("chat/completions", {"model": MODEL, "messages": user("weather"), "tools": [CHAT_TOOL]}),
    "chat tools stream": (
        "chat/completions",
        {"model": MODEL, "messages": user("weather"), "tools": [CHAT_TOOL], "stream": True},
    ),
    "response": ("responses", {"model": MODEL, "input": "Hello"}),
    "response stream": ("responses", {"model": MODEL, "input": "Hello", "stream": True}),
    "response tools stream": ("responses", {"model": MODEL, "input": "weather", "tools": [TOOL], "stream": True}),
    "embeddings": ("embeddings", {"model": "text-embedding-3-small", "input": "a"}),
    "unknown route of theirs": ("moderations", {"input": "a", "model": "omni-moderation-latest"}),
}


@pytest.mark.parametrize("name", BODIES)
def test_a_reply_is_byte_for_byte_what_upstream_says_directly_but_for_ids_and_times(pair: Pair, name: str) -> None:
    path, body = BODIES[name]
    with httpx2.Client(headers=BEARER, timeout=TIMEOUT_S) as http:
        direct, through = (http.post(f"{base}/{path}", json=body) for base in (pair.base_url, pair.gateway.api))
    assert through.status_code == direct.status_code
    assert through.headers["content-type"] == direct.headers["content-type"]
    assert VOLATILE.sub(b"", through.content) == VOLATILE.sub(b"", direct.content)


@pytest.mark.parametrize("name", [name for name in BODIES if name.startswith(("chat", "response"))])
def test_usage_is_read_from_every_reply_asked_for_or_not(pair: Pair, name: str) -> None:
    path, body = BODIES[name]
    with httpx2.Client(headers=BEARER, timeout=TIMEOUT_S) as http:
        http.post(f"{pair.gateway.api}/{path}", json=body).raise_for_status()
    (record,) = pair.gateway.wait_for_records(1)
    assert (record.outcome, record.streamed) == ("done", "stream" in body)
    assert record.usage is not None
    assert record.usage.output_tokens > 0
    assert record.usage.total_tokens == record.usage.input_tokens + record.usage.output_tokens


def test_a_tool_is_called_and_its_result_answered(client: OpenAI) -> None:
    first = client.chat.completions.create(model=ALIAS, messages=user("weather"), tools=[CHAT_TOOL])
    (called,) = first.choices[0].message.tool_calls or []
    assert called.type == "function"
    assert "location" in json.loads(called.function.arguments)
    said: list[ChatCompletionMessageParam] = [
        *user("weather"),
        {
            "role": "assistant",
            "tool_calls": [
                {
                    "id": called.id,
                    "type": "function",
                    "function": {"name": called.function.name, "arguments": called.function.arguments},
                }
            ],
        },
        {"role": "tool", "tool_call_id": called.id, "content": "It is cold."},
    ]
    second = client.chat.completions.create(model=ALIAS, messages=said, tools=[CHAT_TOOL])
    assert second.choices[0].finish_reason == "stop"


def test_the_stream_helpers_finish(client: OpenAI) -> None:
    with client.chat.completions.stream(model=ALIAS, messages=user("Hello")) as chat:
        assert chat.get_final_completion().choices[0].message.content
    with client.responses.stream(model=ALIAS, input="Hello") as response:
        assert response.get_final_response().output_text


def test_structured_output_is_parsed(client: OpenAI) -> None:
    parsed = client.chat.completions.parse(model=ALIAS, messages=user("JSON"), response_format=Capital)
    assert isinstance(parsed.choices[0].message.parsed, Capital)


def test_models_are_listed_with_the_alias(client: OpenAI) -> None:
    names = [model.id for model in client.models.list()]
    assert len(names) > 1
    assert names[-1] == ALIAS


# What they do wrong.


def test_a_rate_limit_of_aimock_is_one_for_the_client(aimock_client: OpenAI) -> None:
    with pytest.raises(openai.RateLimitError, match=r"Slow down\.") as caught:
        aimock_client.chat.completions.create(model=MODEL, messages=user("too much"))
    assert caught.value.type == "rate_limit_error"


def test_a_stream_that_aimock_breaks_off_is_raised(aimock: Pair, aimock_client: OpenAI) -> None:
    stream = aimock_client.chat.completions.create(model=MODEL, messages=user("break off"), stream=True)
    with pytest.raises(openai.APIError, match="broke off the connection"):
        list(stream)
    (record,) = aimock.gateway.wait_for_records(1)
    assert (record.outcome, record.upstream_error) == ("cut", "broken")


@pytest.mark.parametrize("status", [400, 401, 403, 404, 429, 500, 503])
def test_an_error_of_llmock_is_the_same_for_the_client(llmock_pair: Pair, llmock_client: OpenAI, status: int) -> None:
    misbehave(llmock_pair, type="fail", status=status, retry_after=3)
    with pytest.raises(openai.APIStatusError) as caught:
        llmock_client.chat.completions.create(model=MODEL, messages=user("Hello"))
    assert caught.value.status_code == status
    assert caught.value.response.headers["retry-after"] == "3"
    seen = httpx2.get(control(llmock_pair, "requests"), timeout=TIMEOUT_S).json()
    assert seen["count"] == 1


@pytest.mark.parametrize(("kind", "message"), [("disconnect", "broke off the connection"), ("stall", "fell silent")])
def test_a_stream_that_llmock_does_not_finish_is_raised(
    llmock_pair: Pair, llmock_client: OpenAI, kind: str, message: str
) -> None:
    stall = {"stall_seconds": 5} if kind == "stall" else {}
    misbehave(llmock_pair, type="stream_fault", kind=kind, after_chunks=3, **stall)
    stream = llmock_client.chat.completions.create(model=MODEL, messages=user("Hello"), stream=True)
    with pytest.raises(openai.APIError, match=message):
        list(stream)


def test_a_stream_that_llmock_ends_too_early_is_not_given_an_end(llmock_pair: Pair) -> None:
    misbehave(llmock_pair, type="stream_fault", kind="truncate", after_chunks=3)
    body = {"model": MODEL, "messages": user("Hello"), "stream": True}
    got = httpx2.post(f"{llmock_pair.gateway.api}/chat/completions", json=body, headers=BEARER, timeout=TIMEOUT_S)
    assert got.content.count(b"data: ") == 3
    assert b"[DONE]" not in got.content
    assert b'finish_reason":"' not in got.content


def test_a_chunk_that_llmock_corrupts_is_passed_on_as_it_is(llmock_pair: Pair) -> None:
    misbehave(llmock_pair, type="stream_fault", kind="malformed", after_chunks=2, times=2)
    body = {"model": MODEL, "messages": user("Hello"), "stream": True, "stream_options": {"include_usage": True}}
    with httpx2.Client(headers=BEARER, timeout=TIMEOUT_S) as http:
        bases = (llmock_pair.base_url, llmock_pair.gateway.api)
        direct, through = (http.post(f"{base}/chat/completions", json=body).content for base in bases)
    assert VOLATILE.sub(b"", through) == VOLATILE.sub(b"", direct)
