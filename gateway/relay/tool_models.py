"""Which models the tools of a JSON request name: a tool may make a model work beside the one that answers.

Pure. Knows where the OpenAI API takes tools: in `tools`, within a tool that holds others, and in items of `input` or
`items` that bring some along. Which of the models a key may use is for others to say.
"""

from collections.abc import Iterator

import msgspec

from gateway.errors import BadRequest
from gateway.relay.body import folded

_LISTS_OF_ITEMS = ("input", "items")

_elements = msgspec.json.Decoder(list[msgspec.Raw]).decode
_text = msgspec.json.Decoder(str).decode


def tool_models(body: bytes) -> list[str | None]:
    """The models that the tools in `body`, a JSON object, name; None for one that upstream would choose.

    Raises `BadRequest` where they cannot be told.
    """
    try:
        return list(_models(body))
    except (ValueError, RecursionError) as error:
        raise BadRequest(
            "The model of a tool must be a string, and tools not nested too deep.", param="tools"
        ) from error


def _models(body: bytes) -> Iterator[str | None]:
    for name, raw in folded(body):
        if name == "tools":
            yield from _of_tools(raw)
        elif name in _LISTS_OF_ITEMS:
            for item in _objects(raw):
                for inner, tools in folded(item):
                    if inner == "tools":
                        yield from _of_tools(tools)


def _of_tools(raw: msgspec.Raw) -> Iterator[str | None]:
    for tool in _objects(raw):
        yield from _of_tool(tool)


def _of_tool(tool: msgspec.Raw) -> Iterator[str | None]:
    is_named = makes_images = False
    for name, raw in folded(tool):
        if name == "model" and not _starts(raw, b"null"):
            is_named = True
            yield _text(raw)
        elif name == "type" and _starts(raw, b'"'):
            makes_images = makes_images or _text(raw) == "image_generation"
        elif name == "tools":
            yield from _of_tools(raw)
    if makes_images and not is_named:
        yield None


def _objects(raw: msgspec.Raw) -> Iterator[msgspec.Raw]:
    if _starts(raw, b"["):
        yield from (element for element in _elements(raw) if _starts(element, b"{"))


def _starts(raw: msgspec.Raw, start: bytes) -> bool:
    return bytes(memoryview(raw)[: len(start)]) == start
