"""Chat completions: plain, streaming and stored.

Shapes and their order as of https://platform.openai.com/docs/api-reference/chat;
what is said comes from `answer`.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import msgspec

from gateway.simulator.answer import (
    Answer,
    Attachment,
    Prompt,
    Tool,
    answer,
    cached_tokens,
    pick_tool,
    source_of,
)
from gateway.simulator.call import EVENT_STREAM, Call, Json, Reply, json_reply, require_model
from gateway.simulator.listing import list_reply
from gateway.simulator.refusals import invalid, missing, not_found
from gateway.simulator.sse import DONE, data_event, obfuscation

FINGERPRINT = "fp_simulated"
MAX_CHOICES = 128


class StreamOptions(msgspec.Struct):
    include_usage: bool | None = None
    include_obfuscation: bool | None = None


class Message(msgspec.Struct):
    role: str
    content: str | list[Json] | None = None


class ChatRequest(msgspec.Struct):
    """The members that change an answer; all else is accepted and ignored."""

    model: str | None = None
    messages: list[Message] | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    n: int | None = None
    stop: str | list[str] | None = None
    max_tokens: int | None = None
    max_completion_tokens: int | None = None
    reasoning_effort: str | None = None
    tools: list[Json] | None = None
    tool_choice: str | Json | None = None
    response_format: Json | None = None
    store: bool | None = None
    metadata: dict[str, str] | None = None
    service_tier: str | None = None


@dataclass(slots=True)
class StoredChat:
    """A stored completion with the messages that it answered."""

    completion: Json
    messages: list[Json]


def create(call: Call) -> Reply:
    """POST /chat/completions."""
    request = call.read(ChatRequest)
    prompt = _prompt(request)
    completion = Completion(call, request, prompt)
    if request.store:
        stored = StoredChat(completion.stored(), msgspec.to_builtins(request.messages))
        call.state.chats.put(completion.id, stored, len(call.request.body))
    if request.stream:
        return Reply(completion.events(), content_type=EVENT_STREAM)
    return json_reply(completion.whole())


def _prompt(request: ChatRequest) -> Prompt:
    model = require_model(request.model)
    if request.messages is None:
        raise missing("messages")
    if not request.messages:
        raise invalid("messages", "Invalid 'messages': empty array. Expected at least 1 element.", "empty_array")
    if not 1 <= (request.n or 1) <= MAX_CHOICES:
        raise invalid("n", f"Invalid 'n': expected an integer from 1 to {MAX_CHOICES}.")
    last = request.messages[-1]
    return Prompt(
        model=model,
        texts=tuple(text for message in request.messages for text in _texts(message)) + _tool_texts(request.tools),
        last=" ".join(_texts(last)),
        last_is_tool_result=last.role in ("tool", "function"),
        attachments=tuple(found for message in request.messages for found in _attachments(message)),
        tool=pick_tool(_tools(request.tools or []), request.tool_choice),
        format=_schema(request.response_format),
        stop=(request.stop,) if isinstance(request.stop, str) else tuple(request.stop or ()),
        max_tokens=_max_tokens(request),
        effort=request.reasoning_effort,
    )


def _texts(message: Message) -> Iterator[str]:
    if isinstance(message.content, str):
        yield message.content
    for part in message.content if isinstance(message.content, list) else ():
        if isinstance(part.get("text"), str):
            yield part["text"]


def _tool_texts(tools: list[Json] | None) -> tuple[str, ...]:
    return (msgspec.json.encode(tools).decode(),) if tools else ()


def _attachments(message: Message) -> Iterator[Attachment]:
    for part in message.content if isinstance(message.content, list) else ():
        inner = part.get(str(part.get("type")))
        member = inner if isinstance(inner, dict) else {}
        if part.get("type") == "image_url":
            yield Attachment("image", source_of(_string(member.get("url"))))
        elif part.get("type") == "file":
            inline, file_id = _string(member.get("file_data")), _string(member.get("file_id"))
            yield Attachment("file", source_of(None, inline=inline, file_id=file_id))
        elif part.get("type") == "input_audio":
            yield Attachment("audio", source_of(None, inline=_string(member.get("data")) or ""))


def _string(value: Any) -> str | None:
    return value if isinstance(value, str) else None


def _tools(tools: list[Json]) -> list[Tool]:
    found = []
    for index, tool in enumerate(tools):
        kind = str(tool.get("type"))
        inner = tool.get(kind)
        if not isinstance(inner, dict) or not isinstance(inner.get("name"), str):
            raise missing(f"tools[{index}].{kind}.name")
        found.append(Tool(inner["name"], inner.get("parameters"), is_custom=kind == "custom"))
    return found


def _schema(response_format: Json | None) -> Any:
    kind = (response_format or {}).get("type")
    if kind == "json_object":
        return {"const": {"simulated": True}}
    if kind != "json_schema" or response_format is None:
        return None
    wrapped = response_format.get("json_schema")
    if not isinstance(wrapped, dict) or not isinstance(wrapped.get("schema"), dict):
        raise missing("response_format.json_schema.schema")
    return wrapped["schema"]


def _max_tokens(request: ChatRequest) -> int | None:
    name = "max_tokens" if request.max_completion_tokens is None else "max_completion_tokens"
    limit = request.max_tokens if request.max_completion_tokens is None else request.max_completion_tokens
    if limit is not None and limit < 1:
        raise invalid(name, f"Invalid '{name}': integer below minimum value.", "integer_below_min_value")
    return limit


class Completion:
    """One answered request, as an object or as chunks."""

    def __init__(self, call: Call, request: ChatRequest, prompt: Prompt) -> None:
        self._call = call
        self._request = request
        self._prompt_tokens = prompt.tokens
        self._answers = [answer(prompt, call.faults, choice) for choice in range(request.n or 1)]
        self.id = call.new_id("chatcmpl-")

    def whole(self) -> Json:
        """A `chat.completion`."""
        choices = [self._choice(index, said) for index, said in enumerate(self._answers)]
        return {
            **self._head("chat.completion"),
            "choices": choices,
            "usage": self._usage(),
            "service_tier": "default",
            "system_fingerprint": FINGERPRINT,
        }

    def stored(self) -> Json:
        """As `whole`, with what only a stored one has."""
        return {**self.whole(), "metadata": self._request.metadata or {}}

    def events(self) -> Iterator[bytes]:
        """Server-sent events: chunks, the usage-only chunk where it was asked for, `[DONE]`."""
        options = self._request.stream_options or StreamOptions()
        obfuscate = options.include_obfuscation is not False
        for number, (choice, text) in enumerate(self._deltas()):
            chunk = self._chunk([choice], {"usage": None} if options.include_usage else {})
            if obfuscate:
                chunk["obfuscation"] = obfuscation(self.id, number, text)
            yield data_event(chunk)
        if options.include_usage:
            yield data_event(self._chunk([], {"usage": self._usage(), **({"obfuscation": ""} if obfuscate else {})}))
        yield DONE

    def _head(self, kind: str) -> Json:
        return {
            "id": self.id,
            "object": kind,
            "created": self._call.created(),
            "model": self._request.model,
        }

    def _chunk(self, choices: list[Json], rest: Json) -> Json:
        return {
            **self._head("chat.completion.chunk"),
            "service_tier": "default",
            "system_fingerprint": FINGERPRINT,
            "choices": choices,
            **rest,
        }

    def _choice(self, index: int, said: Answer) -> Json:
        message: Json = {"role": "assistant", "content": said.speech.text, "refusal": None, "annotations": []}
        if said.tool_call is not None:
            message |= {"content": None, "tool_calls": [self._tool_call(index, said)]}
        return {"index": index, "message": message, "logprobs": None, "finish_reason": finish_reason(said)}

    def _tool_call(self, index: int, said: Answer) -> Json:
        called = said.tool_call
        if called is None:
            return {}
        kind, member = ("custom", "input") if called.is_custom else ("function", "arguments")
        return {
            "id": self._call.new_id("call_", index),
            "type": kind,
            kind: {"name": called.name, member: called.arguments},
        }

    def _deltas(self) -> Iterator[tuple[Json, str]]:
        """Every choice with its text, in the order in which the real API sends them."""
        for index, said in enumerate(self._answers):
            for delta, text in self._tool_deltas(index, said) if said.tool_call else _text_deltas(said):
                yield _delta(index, delta), text
            yield _delta(index, {}, finish_reason(said)), ""

    def _tool_deltas(self, index: int, said: Answer) -> Iterator[tuple[Json, str]]:
        whole = self._tool_call(index, said)
        kind = whole["type"]
        member = "input" if kind == "custom" else "arguments"
        first = {"index": 0, **whole, kind: {**whole[kind], member: ""}}
        yield {"role": "assistant", "content": None, "tool_calls": [first], "refusal": None}, ""
        for piece in argument_pieces(whole[kind][member]):
            yield {"tool_calls": [{"index": 0, kind: {member: piece}}]}, piece

    def _usage(self) -> Json:
        completion_tokens = sum(said.tokens for said in self._answers)
        return {
            "prompt_tokens": self._prompt_tokens,
            "completion_tokens": completion_tokens,
            "total_tokens": self._prompt_tokens + completion_tokens,
            "prompt_tokens_details": {"cached_tokens": cached_tokens(self._prompt_tokens), "audio_tokens": 0},
            "completion_tokens_details": {
                "reasoning_tokens": sum(said.reasoning_tokens for said in self._answers),
                "audio_tokens": 0,
                "accepted_prediction_tokens": 0,
                "rejected_prediction_tokens": 0,
            },
        }


def finish_reason(said: Answer) -> str:
    if said.tool_call is not None:
        return "tool_calls"
    return "length" if said.cut_short else "stop"


def argument_pieces(arguments: str) -> Iterator[str]:
    """Arguments as they are streamed, a few characters each."""
    for start in range(0, len(arguments), 6):
        yield arguments[start : start + 6]


def _text_deltas(said: Answer) -> Iterator[tuple[Json, str]]:
    yield {"role": "assistant", "content": "", "refusal": None}, ""
    for piece in said.speech.pieces():
        yield {"content": piece}, piece


def _delta(index: int, delta: Json, reason: str | None = None) -> Json:
    return {"index": index, "delta": delta, "logprobs": None, "finish_reason": reason}


class MetadataUpdate(msgspec.Struct):
    metadata: dict[str, str] | None


def list_stored(call: Call) -> Reply:
    """GET /chat/completions."""
    return list_reply([stored.completion for stored in call.state.chats.all()], call.request.query(), "asc")


def get(call: Call) -> Reply:
    """GET /chat/completions/{id}."""
    return json_reply(_stored(call).completion)


def update(call: Call) -> Reply:
    """POST /chat/completions/{id}."""
    stored = _stored(call)
    stored.completion["metadata"] = call.read(MetadataUpdate).metadata or {}
    return json_reply(stored.completion)


def delete(call: Call) -> Reply:
    """DELETE /chat/completions/{id}."""
    _stored(call)
    call.state.chats.take(call.ids[0])
    return json_reply({"object": "chat.completion.deleted", "id": call.ids[0], "deleted": True})


def messages(call: Call) -> Reply:
    """GET /chat/completions/{id}/messages."""
    items = [
        {"id": f"{call.ids[0]}-{number}", "name": None, "content_parts": None, **message}
        for number, message in enumerate(_stored(call).messages)
    ]
    return list_reply(items, call.request.query(), "asc")


def _stored(call: Call) -> StoredChat:
    stored: StoredChat | None = call.state.chats.find(call.ids[0])
    if stored is None:
        raise not_found("Chat completion", call.ids[0])
    return stored
