"""Where in a request body names of ids are mere labels: what a user calls things, and schemas of what a model writes.

Pure. Upstream stores these parts or shows them to a model, and looks nothing up by them: `metadata`, the `attributes`
of a file, the parameters of functions, the schema of an answer, and the citations in an earlier answer. A list of
places, since anywhere else a name is taken at its word.
"""

import re
from collections.abc import Iterator
from typing import Literal

import msgspec

from gateway.relay.body import members

Tree = dict[str, "Tree | Literal[True]"]
"""Names of members, `*` for each element of a list; True: all below is labels."""

_FUNCTION: Tree = {"parameters": True}
_TOOL: Tree = {"parameters": True, "function": _FUNCTION, "headers": True, "tools": {"*": {"parameters": True}}}
_ITEM: Tree = {"content": {"*": {"annotations": True}}}
_LABELS: Tree = {
    "metadata": True,
    "attributes": True,
    "files": {"*": {"attributes": True}},
    "input": {"*": _ITEM},
    "items": {"*": _ITEM},
    "tools": {"*": _TOOL},
    "functions": {"*": _FUNCTION},
    "text": {"format": {"schema": True}},
    "response_format": {"json_schema": {"schema": True}},
}

_elements = msgspec.json.Decoder(list[msgspec.Raw]).decode
_SEPARATOR = re.compile(rb"[ \t\n\r,]*+")


def label_spans(body: bytes) -> list[tuple[int, int]]:
    """From where to where in `body`, a JSON object, the labels lie. Raises `BadRequest` for what cannot be read."""
    return list(_spans(body, 0, _LABELS))


def _spans(text: bytes, offset: int, tree: Tree) -> Iterator[tuple[int, int]]:
    for name, start, end in _children(text):
        below = tree.get(name)
        if below is True:
            yield offset + start, offset + end
        elif below is not None:
            yield from _spans(text[start:end], offset + start, below)


def _children(text: bytes) -> Iterator[tuple[str, int, int]]:
    """Name, start and end of each member or element; nothing in what is neither object nor list."""
    begin = text.lstrip(b" \t\n\r")[:1]
    if begin == b"{":
        for member in members(text):
            yield member.name, member.value_start, member.end
    elif begin == b"[":
        at = text.index(b"[") + 1
        for element in _elements(text):
            space = _SEPARATOR.match(text, at)
            start = space.end() if space else at
            at = start + memoryview(element).nbytes
            yield "*", start, at
