"""Find the ids of objects that upstream has made in its replies, and have them noted before a client sees them.

Knows where the OpenAI API puts such ids: in plain replies and in event streams. Looks only where upstream writes ids
of its own, never where it repeats what a client sent. Refuses to know whose they are: that is the noter's business.
"""

import logging
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import msgspec

from gateway.call import Makes
from gateway.relay.events import data_of, split_events

Note = Callable[[Iterable[str]], None]
"""Notes ids for good, or raises a `GatewayError`: then they must not reach the client."""

_log = logging.getLogger("gateway")
_NULL = msgspec.Raw(b"null")
_COMPLETE_IN_THEMSELVES = frozenset({"message", "reasoning", "function_call", "custom_tool_call"})
"""Items that a client sends back whole, so that their ids matter only where upstream has stored them."""


class _Object(msgspec.Struct, gc=False):
    """The members that some reply has, as they come: what has another type than expected is no id."""

    id: Any = None
    type: Any = None
    container_id: Any = None
    output_file_id: Any = None
    error_file_id: Any = None
    file: msgspec.Raw = _NULL
    item: msgspec.Raw = _NULL
    response: msgspec.Raw = _NULL
    output: msgspec.Raw = _NULL
    environment: msgspec.Raw = _NULL
    choices: msgspec.Raw = _NULL
    message: msgspec.Raw = _NULL
    delta: msgspec.Raw = _NULL
    audio: msgspec.Raw = _NULL


_object = msgspec.json.Decoder(_Object).decode
_list = msgspec.json.Decoder(list[msgspec.Raw]).decode
_NOTHING = _Object()


class NewIds:
    """Looks at one reply of a route that `makes` objects. `is_stored`: what it answers itself is kept upstream.

    `response_id` is that of the response which the reply is, once it was seen.
    """

    __slots__ = ("_has_id", "_is_stored", "_makes", "_note", "response_id")

    def __init__(self, makes: Makes, note: Note, *, is_stored: bool = True) -> None:
        self._makes = makes
        self._note = note
        self._is_stored = is_stored
        self._has_id = not is_stored
        self.response_id: str | None = None

    def read(self, body: bytes) -> None:
        """Note the ids in a whole plain reply; one that is no JSON object holds none."""
        try:
            found = _object(body)
        except (ValueError, RecursionError):
            _log.warning("a reply that should name a new object cannot be read: nobody will see what it made")
            return
        self._note(self._of(found))

    def feed(self, block: bytes) -> None:
        """Note the ids in whole events of a stream."""
        if self._makes is Makes.CHAT:
            self._feed_chat(block)
        elif block.find(b'"item"') >= 0 or block.find(b'"response"') >= 0:
            for event in _events(block):
                self._note(self._of_item(event.item))
                self._note(self._of_response(_decoded(event.response)))

    def _feed_chat(self, block: bytes) -> None:
        if self._has_id and block.find(b'"audio"') < 0:
            return
        for event in _events(block):
            self._note(self._of_chat(event))
            self._has_id = self._has_id or isinstance(event.id, str)

    def _of(self, found: _Object) -> Iterator[str]:
        if self._makes is Makes.CHAT:
            return self._of_chat(found)
        if self._makes is Makes.RESPONSE:
            return self._of_response(found)
        if self._makes is Makes.UPLOADED:
            return _texts(_decoded(found.file).id)
        if self._makes is Makes.BATCH:
            return _texts(found.id, found.output_file_id, found.error_file_id)
        return _texts(found.id)

    def _of_chat(self, found: _Object) -> Iterator[str]:
        if self._is_stored:
            yield from _texts(found.id)
        for choice in _objects(found.choices):
            for said in (_decoded(choice.message), _decoded(choice.delta)):
                yield from _texts(_decoded(said.audio).id)

    def _of_response(self, found: _Object) -> Iterator[str]:
        if self.response_id is None and isinstance(found.id, str):
            self.response_id = found.id
        if self._is_stored:
            yield from _texts(found.id)
        for item in _raws(found.output):
            yield from self._of_item(item)

    def _of_item(self, raw: msgspec.Raw) -> Iterator[str]:
        item = _decoded(raw)
        yield from _texts(item.container_id, _decoded(item.environment).container_id)
        if self._is_stored or item.type not in _COMPLETE_IN_THEMSELVES:
            yield from _texts(item.id)


def files_of_batch(raw: msgspec.Raw) -> Iterator[str]:
    """The ids of the files that a batch has written by now."""
    batch = _decoded(raw)
    return _texts(batch.output_file_id, batch.error_file_id)


def id_of(raw: msgspec.Raw) -> str | None:
    """The `id` of an object."""
    return next(_texts(_decoded(raw).id), None)


def _texts(*values: Any) -> Iterator[str]:
    return (value for value in values if isinstance(value, str) and value)


def _decoded(raw: msgspec.Raw | bytes) -> _Object:
    if raw is _NULL:
        return _NOTHING
    try:
        return _object(raw)
    except (ValueError, RecursionError):
        return _NOTHING


def _raws(raw: msgspec.Raw) -> list[msgspec.Raw]:
    try:
        return _list(raw)
    except (ValueError, RecursionError):
        return []


def _objects(raw: msgspec.Raw) -> Iterator[_Object]:
    return map(_decoded, _raws(raw))


def _events(block: bytes) -> Iterator[_Object]:
    return (_decoded(data_of(event) or b"") for event in split_events(block))
