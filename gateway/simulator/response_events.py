"""The events of a streamed response, in the order of the real API.

A pure function of the finished response, so that resuming a stream sends the
same events again. Order and members as of
https://platform.openai.com/docs/api-reference/responses-streaming.
"""

from collections.abc import Callable, Iterator

from gateway.simulator.answer import PREFIX, Speech
from gateway.simulator.call import Json
from gateway.simulator.response_object import unfinished
from gateway.simulator.sse import named_event, obfuscation

ARGUMENT_CHARACTERS = 6


def stream(
    response: Json, *, obfuscate: bool = True, after: int = -1, piece_bytes: int | None = None
) -> Iterator[bytes]:
    """Server-sent events with a `sequence_number` over `after`; `piece_bytes` sets the size of text deltas."""
    for number, event in enumerate(_events(response, piece_bytes)):
        if number <= after:
            continue
        numbered = {"type": event["type"], "sequence_number": number, **event}
        if obfuscate and isinstance(event.get("delta"), str):
            numbered["obfuscation"] = obfuscation(response["id"], number, event["delta"])
        yield named_event(numbered)


def _events(response: Json, piece_bytes: int | None) -> Iterator[Json]:
    yield {"type": "response.created", "response": _opening(response)}
    if response["background"]:
        yield {"type": "response.queued", "response": unfinished(response, "queued")}
    yield {"type": "response.in_progress", "response": unfinished(response, "in_progress")}
    for index, item in enumerate(response["output"]):
        yield {"type": "response.output_item.added", "output_index": index, "item": _blank(item)}
        place = {"item_id": item["id"], "output_index": index}
        yield from _WITHIN[item["type"]](item, place, piece_bytes)
        yield {"type": "response.output_item.done", "output_index": index, "item": item}
    yield {"type": f"response.{response['status']}", "response": response}


def _opening(response: Json) -> Json:
    return unfinished(response, "queued" if response["background"] else "in_progress")


def _blank(item: Json) -> Json:
    """The item as it is announced: present, and still empty."""
    empty: Json = {"content": [], "summary": [], "arguments": "", "input": ""}
    blank = {name: empty.get(name, value) for name, value in item.items()}
    return {**blank, "status": "in_progress"} if "status" in item else blank


def _message(item: Json, place: Json, piece_bytes: int | None) -> Iterator[Json]:
    for content_index, part in enumerate(item["content"]):
        here = {**place, "content_index": content_index}
        empty = {**part, "annotations": [], "text": ""}
        yield {"type": "response.content_part.added", **here, "part": empty}
        for delta in _text_pieces(part["text"], piece_bytes):
            yield {"type": "response.output_text.delta", **here, "delta": delta, "logprobs": []}
        for number, annotation in enumerate(part["annotations"]):
            kind = "response.output_text.annotation.added"
            yield {"type": kind, **here, "annotation_index": number, "annotation": annotation}
        yield {"type": "response.output_text.done", **here, "text": part["text"], "logprobs": []}
        yield {"type": "response.content_part.done", **here, "part": part}


def _text_pieces(text: str, piece_bytes: int | None) -> Iterator[str]:
    if piece_bytes is None:
        yield from Speech(text).pieces()
        return
    yield text[: len(PREFIX)]
    for start in range(len(PREFIX), len(text), piece_bytes):
        yield text[start : start + piece_bytes]


def _function_call(item: Json, place: Json, _: int | None) -> Iterator[Json]:
    for delta in _in_pieces(item["arguments"]):
        yield {"type": "response.function_call_arguments.delta", **place, "delta": delta}
    done = "response.function_call_arguments.done"
    yield {"type": done, **place, "arguments": item["arguments"], "name": item["name"]}


def _custom_tool_call(item: Json, place: Json, _: int | None) -> Iterator[Json]:
    for delta in _in_pieces(item["input"]):
        yield {"type": "response.custom_tool_call_input.delta", **place, "delta": delta}
    yield {"type": "response.custom_tool_call_input.done", **place, "input": item["input"]}


def _in_pieces(text: str) -> Iterator[str]:
    for start in range(0, len(text), ARGUMENT_CHARACTERS):
        yield text[start : start + ARGUMENT_CHARACTERS]


def _web_search(_: Json, place: Json, __: int | None) -> Iterator[Json]:
    for phase in ("in_progress", "searching", "completed"):
        yield {"type": f"response.web_search_call.{phase}", **place}


def _reasoning(item: Json, place: Json, _: int | None) -> Iterator[Json]:
    for number, part in enumerate(item["summary"]):
        here = {**place, "summary_index": number}
        empty = {**part, "text": ""}
        yield {"type": "response.reasoning_summary_part.added", **here, "part": empty}
        for delta in Speech(part["text"]).pieces():
            yield {"type": "response.reasoning_summary_text.delta", **here, "delta": delta}
        yield {"type": "response.reasoning_summary_text.done", **here, "text": part["text"]}
        yield {"type": "response.reasoning_summary_part.done", **here, "part": part}


_WITHIN: dict[str, Callable[[Json, Json, int | None], Iterator[Json]]] = {
    "message": _message,
    "function_call": _function_call,
    "custom_tool_call": _custom_tool_call,
    "web_search_call": _web_search,
    "reasoning": _reasoning,
}
