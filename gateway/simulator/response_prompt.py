"""A responses request, read: its members, its input as items, and the prompt they make.

Shapes as of https://platform.openai.com/docs/api-reference/responses/create.
Knows nothing of what is stored; earlier turns come in as items and a count.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import msgspec

from gateway.simulator.answer import Attachment, Prompt, Tool, pick_tool, source_of
from gateway.simulator.call import Call, Json, require_model
from gateway.simulator.refusals import invalid, missing

MIN_OUTPUT_TOKENS = 16


class StreamOptions(msgspec.Struct):
    include_obfuscation: bool | None = None


class Reasoning(msgspec.Struct):
    effort: str | None = None
    summary: str | None = None


class ResponseRequest(msgspec.Struct):
    """The members that change an answer or are echoed in it; all else is accepted and ignored."""

    model: str | None = None
    input: str | list[Json] | None = None
    instructions: str | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    background: bool | None = None
    store: bool | None = None
    previous_response_id: str | None = None
    conversation: str | Json | None = None
    prompt: Json | None = None
    max_output_tokens: int | None = None
    max_tool_calls: int | None = None
    parallel_tool_calls: bool | None = None
    reasoning: Reasoning | None = None
    text: Json | None = None
    tools: list[Json] | None = None
    tool_choice: str | Json | None = None
    include: list[str] | None = None
    metadata: dict[str, str] | None = None
    prompt_cache_key: str | None = None
    safety_identifier: str | None = None
    temperature: float | None = None
    top_p: float | None = None
    truncation: str | None = None
    user: str | None = None


def check(request: ResponseRequest) -> None:
    """Refuse what the real API refuses before it looks anything up."""
    require_model(request.model)
    if request.input is None and not (request.conversation or request.previous_response_id or request.prompt):
        raise missing("input")
    if request.conversation and request.previous_response_id:
        both = "Mutually exclusive parameters: 'previous_response_id' and 'conversation'."
        raise invalid(None, both, "mutually_exclusive_parameters")
    limit = request.max_output_tokens
    if limit is not None and limit < MIN_OUTPUT_TOKENS:
        wanted = f"Expected a value >= {MIN_OUTPUT_TOKENS}, but got {limit} instead."
        message = f"Invalid 'max_output_tokens': integer below minimum value. {wanted}"
        raise invalid("max_output_tokens", message, "integer_below_min_value")


def input_items(call: Call, given: str | list[Json] | None) -> list[Json]:
    """The input as items with ids, as `GET /responses/{id}/input_items` lists them."""
    items = [{"role": "user", "content": given}] if isinstance(given, str) else given or []
    return [_item(call, number, item) for number, item in enumerate(items)]


def _item(call: Call, number: int, item: Json) -> Json:
    if item.get("type", "message") != "message":
        return {"id": call.new_id("item_", number), **item}
    role, content = str(item.get("role", "user")), item.get("content")
    kind = "output_text" if role == "assistant" else "input_text"
    parts = [{"type": kind, "text": content}] if isinstance(content, str) else content
    return {
        "id": call.new_id("msg_", "input", number),
        **item,
        "type": "message",
        "status": "completed",
        "role": role,
        "content": [_part(part) for part in parts] if isinstance(parts, list) else [],
    }


def _part(part: Any) -> Json:
    if not isinstance(part, dict):
        raise invalid("input", "Invalid type for 'input[0].content[0]': expected an object.", "invalid_type")
    if part.get("type") == "output_text":
        return {"annotations": [], "logprobs": [], **part}
    return {"detail": "auto", **part} if part.get("type") == "input_image" else part


def prompt_of(request: ResponseRequest, items: Sequence[Json], earlier_tokens: int) -> Prompt:
    """What the model is asked; raises Refusal for a tool without a name."""
    tools = request.tools or []
    last = items[-1] if items else {}
    texts = tuple(text for item in items for text in _texts(item))
    tool_texts = (msgspec.json.encode(tools).decode(),) if tools else ()
    return Prompt(
        model=require_model(request.model),
        texts=(request.instructions or "", *texts, *tool_texts),
        last=" ".join(_texts(last)),
        last_is_tool_result=str(last.get("type")).endswith("_output"),
        attachments=tuple(found for item in items for found in _attachments(item)),
        tool=pick_tool(_tools(tools), request.tool_choice),
        searches_web=request.tool_choice != "none" and any(_searches(tool) for tool in tools),
        format=_schema(request.text),
        max_tokens=request.max_output_tokens,
        effort=request.reasoning.effort if request.reasoning else None,
        earlier_tokens=earlier_tokens,
    )


def _texts(item: Json) -> Iterator[str]:
    for member in ("content", "output"):
        value = item.get(member)
        if isinstance(value, str):
            yield value
        for part in value if isinstance(value, list) else ():
            if isinstance(part, dict) and isinstance(part.get("text"), str):
                yield part["text"]


def _attachments(item: Json) -> Iterator[Attachment]:
    content = item.get("content")
    for part in content if isinstance(content, list) else ():
        if not isinstance(part, dict):
            continue
        kind = str(part.get("type"))
        if kind == "input_image":
            yield Attachment("image", _source(part, "image_url", None))
        elif kind == "input_file":
            yield Attachment("file", _source(part, "file_url", "file_data"))


def _source(part: Json, url: str, inline: str | None) -> str:
    def text(name: str | None) -> str | None:
        value = part.get(name or "")
        return value if isinstance(value, str) else None

    return source_of(text(url), inline=text(inline), file_id=text("file_id"))


def _searches(tool: Json) -> bool:
    return str(tool.get("type")).startswith("web_search")


def _tools(tools: list[Json]) -> list[Tool]:
    found = []
    for index, tool in enumerate(tools):
        if tool.get("type") not in ("function", "custom"):
            continue
        if not isinstance(tool.get("name"), str):
            raise missing(f"tools[{index}].name")
        found.append(Tool(tool["name"], tool.get("parameters"), is_custom=tool["type"] == "custom"))
    return found


def _schema(text: Json | None) -> Any:
    given = (text or {}).get("format")
    if not isinstance(given, dict):
        return None
    if given.get("type") == "json_object":
        return {"const": {"simulated": True}}
    if given.get("type") != "json_schema":
        return None
    if not isinstance(given.get("schema"), dict):
        raise missing("text.format.schema")
    return given["schema"]
