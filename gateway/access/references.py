"""Find the ids by which a JSON request body names objects that upstream stores.

Pure: knows the names under which the OpenAI API takes ids (https://platform.openai.com/docs/api-reference), and
nothing of whose the objects are. These are all of them:

- `file_id`, `file_ids`, `input_file_id`, `vector_store_id`, `vector_store_ids`, `container`, `container_id`,
  `comparison_response_id` and `approval_request_id`, at any depth: parts of messages, tools, images, variables of a
  prompt, batches, vector stores;
- the `id` of an item in `input` or `items` that does not bring along what it stands for: item references, and what
  tools and models made, such as `{"type": "image_generation_call", "id": "ig_1"}`;
- `messages[].audio.id`, an earlier spoken answer.

`previous_response_id` and `conversation` are read by `gateway.relay.body`. What whoever holds the account made for all
(prompt templates, skills, voices, connectors, tunnels) is nobody's, and not looked for.

Most bodies name nothing, so a search for how such a name begins comes first. Every occurrence counts, so of duplicate
keys none is missed; a key spelled with escapes, in capitals or with letters that lower to the same counts as the key.
"""

import operator
import re
from collections.abc import Iterator, Mapping
from typing import NamedTuple

import msgspec

from gateway.errors import BadRequest


class Reference(NamedTuple):
    """An id that a body names; `at` is the offset of its key, -1 where what holds it leaves no doubt that it is one."""

    id: str
    at: int


MAX_REFERENCES = 2_500
"""More than any route of the API takes: a batch of files holds 2,000. Each may cost a look into the database."""

_NAMES = (
    "file_id",
    "file_ids",
    "input_file_id",
    "vector_store_id",
    "vector_store_ids",
    "container",
    "container_id",
    "comparison_response_id",
    "approval_request_id",
)
_LOOK_ALIKES = {"i": ("\u0131", "\u0130"), "s": ("\u017f",), "k": ("\u212a",)}
"""Letters that some readers fold to these: the Turkish i with and without its dot, the long s, the Kelvin sign."""


def _letter(character: str) -> str:
    """A pattern of all spellings of one letter of a key, in JSON's bytes read as Latin-1."""
    spellings = {character, character.upper(), *_LOOK_ALIKES.get(character, ())}
    plain = [re.escape(spelling.encode().decode("latin-1")) for spelling in sorted(spellings)]
    return f"(?:{'|'.join([*plain, *(_escaped(spelling) for spelling in sorted(spellings))])})"


def _escaped(character: str) -> str:
    digits = f"{ord(character):04x}"
    return r"\\u" + "".join(f"[{digit}{digit.upper()}]" if digit.isalpha() else digit for digit in digits)


def _spelled(*names: str) -> str:
    return f"(?:{'|'.join(''.join(map(_letter, name)) for name in names)})"


def _pattern(text: str) -> re.Pattern[bytes]:
    return re.compile(text.encode("latin-1"), re.DOTALL)


# The searches begin with a quote, so that what lies between quotes, such as an image, is passed over.
_BEGINNINGS = r"ile_|nput_f|ector|ontaine|ompar|pprov|udio"
_ODD = r"[a-zA-Z_]{0,24}+(?:\\u0|[\xc4\xc5\xe2])|[\xb0\xb1]|u0"
_SUSPECT = _pattern(rf'"[fFiIvVcCaA\\\xc4](?:(?i:{_BEGINNINGS})|{_ODD})')
_ITEM_SUSPECT = _pattern(rf'"[fFiIvVcCaA\\\xc4](?:(?i:{_BEGINNINGS}|d")|{_ODD})')
_LONGEST_SUSPECT = 32
_BLOCK = 65_536

_STRING = r'"[^"\\]*+(?:\\.[^"\\]*+)*+"'
_S = r"[ \t\r\n]*+"
# In JSON a quote with a backslash before it lies within a string, and one without, before a letter, begins one.
_KEY = _pattern(rf'"(?<!\\")({_spelled(*_NAMES)})"{_S}:{_S}(?=["\[])')
_AUDIO = _pattern(rf'"(?<!\\"){_spelled("audio")}"{_S}:{_S}\{{')
_ITEM_ID = _pattern(rf'"(?<!\\"){_spelled("id")}"{_S}:{_S}"')
_TEXT = _pattern(_STRING)
_TEXTS = _pattern(rf"\[{_S}(?:{_STRING}{_S}(?:,{_S}{_STRING}{_S})*+)?+\]")

_text = msgspec.json.Decoder(str).decode
_texts = msgspec.json.Decoder(list[str]).decode
_elements = msgspec.json.Decoder(list[msgspec.Raw]).decode


class _Name(str):
    """One occurrence of a key: two never share an entry of a dict, so duplicates stay visible."""

    __slots__ = ()
    __hash__ = object.__hash__


_pairs = msgspec.json.Decoder(dict[_Name, msgspec.Raw], dec_hook=operator.call).decode

_BROUGHT_IN: dict[str | None, tuple[str, ...]] = {
    None: ("role", "content"),
    "message": ("role", "content"),
    "function_call": ("arguments",),
    "function_call_output": ("output",),
    "custom_tool_call": ("input",),
    "custom_tool_call_output": ("output",),
    "local_shell_call_output": ("output",),
    "shell_call_output": ("output",),
    "apply_patch_call_output": ("status",),
    "computer_call_output": ("output",),
    "mcp_approval_response": ("approve",),
    "tool_search_output": ("tools",),
    "additional_tools": ("tools",),
    "compaction_trigger": ("type",),
}
"""What a client writes itself brings all of its content in these members; its `id`, if any, is a label."""

_SEALED = frozenset({"reasoning", "compaction", "compaction_summary", "context_compaction"})
"""Upstream hands these out whole, sealed in `encrypted_content`; no other item is read from there."""

_ITEM_MEMBERS = frozenset({"id", "type", "encrypted_content"}.union(*_BROUGHT_IN.values()))
_ITEM_LISTS = frozenset({"input", "items"})


def find(body: bytes, *, items: bool = False) -> list[Reference]:
    """The ids that `body` names, which must be valid JSON; `items`: its route takes `input` or `items`.

    Raises `BadRequest` where they cannot be told for sure, or are more than `MAX_REFERENCES`.
    """
    if not _is_suspect(_ITEM_SUSPECT if items else _SUSPECT, body):
        return []
    try:
        found = list(_limited(_found(body, items=items)))
    except RecursionError as error:
        raise BadRequest("The request body is nested too deep. Send a flatter JSON object.") from error
    except ValueError as error:
        raise BadRequest("The request body holds an id that is not valid JSON text.") from error
    return found


def _is_suspect(pattern: re.Pattern[bytes], body: bytes) -> bool:
    """Whether `pattern` is found. Blocks without any quote are left out, since to look for one byte is far quicker."""
    if len(body) <= _BLOCK:
        return pattern.search(body) is not None
    for start in range(0, len(body), _BLOCK):
        quote_at = body.find(b'"', start, start + _BLOCK)
        if quote_at >= 0 and pattern.search(body, quote_at, start + _BLOCK + _LONGEST_SUSPECT) is not None:
            return True
    return False


def _found(body: bytes, *, items: bool) -> Iterator[Reference]:
    if not items or _SUSPECT.search(body) is not None:
        yield from _under_names(body)
        if _AUDIO.search(body) is not None:
            yield from _of_audio(body)
    if items and _ITEM_ID.search(body) is not None:
        yield from _of_items(body)


def _limited(references: Iterator[Reference]) -> Iterator[Reference]:
    for count, reference in enumerate(references):
        if count >= MAX_REFERENCES:
            raise BadRequest(f"The request body names over {MAX_REFERENCES} stored objects. Name fewer in one request.")
        yield reference


def _under_names(body: bytes) -> Iterator[Reference]:
    for key in _KEY.finditer(body):
        at, value_at = key.start(), key.end()
        if body[value_at] == ord('"'):
            text = _TEXT.match(body, value_at)
            yield Reference(_text(text[0] if text else b""), at)
            continue
        texts = _TEXTS.match(body, value_at)
        if texts is None:
            name = _text(b'"' + key[1] + b'"')[:40]
            raise BadRequest(f"{name} must be a string or a list of strings: the ids of objects.", param=name)
        yield from (Reference(each, at) for each in _texts(texts[0]))


def _of_items(body: bytes) -> Iterator[Reference]:
    for name, raw in _pairs(body).items():
        if _fold(name) in _ITEM_LISTS and _starts(raw, b"["):
            for element in _elements(raw):
                if _starts(element, b"{") and _ITEM_ID.search(memoryview(element)) is not None:
                    object_id = _referred_to(element)
                    if object_id is not None:
                        yield Reference(object_id, -1)


def _referred_to(item: msgspec.Raw) -> str | None:
    """The id by which an item stands for something that is stored, None if it brings along what it is."""
    members = _members(item)
    if "id" not in members or not _starts(members["id"], b'"'):
        return None
    kind = _text(members["type"]) if _starts(members.get("type", _NULL), b'"') else None
    sealed = members.get("encrypted_content", _NULL)
    if kind in _SEALED and _starts(sealed, b'"') and not _starts(sealed, b'""'):
        return None
    if kind in _BROUGHT_IN and all(not _starts(members.get(each, _NULL), b"null") for each in _BROUGHT_IN[kind]):
        return None
    return _text(members["id"])


def _members(item: msgspec.Raw) -> Mapping[str, msgspec.Raw]:
    """What of an item decides; raises `BadRequest` where that could be read in two ways."""
    found: dict[str, msgspec.Raw] = {}
    for key, raw in _pairs(item).items():
        name = _fold(key)
        if name in _ITEM_MEMBERS:
            if key != name or name in found:
                raise BadRequest(
                    f"An item of the request body has {name} twice, or under a key that only looks like it."
                    f" Send it once, with the key spelled exactly {name}.",
                    param=name,
                )
            found[name] = raw
    return found


def _of_audio(body: bytes) -> Iterator[Reference]:
    for messages in _values(body, "messages", b"["):
        for message in _elements(messages):
            for audio in _values(message, "audio", b"{") if _starts(message, b"{") else ():
                for object_id in _values(audio, "id", b'"'):
                    yield Reference(_text(object_id), -1)


def _values(text: bytes | msgspec.Raw, wanted: str, start: bytes) -> Iterator[msgspec.Raw]:
    """The values of all members of an object that can be read as `wanted`, where they begin with `start`."""
    for key, raw in _pairs(text).items():
        if _fold(key) == wanted and _starts(raw, start):
            yield raw


def _fold(key: str) -> str:
    """As the most generous reader would match it."""
    return key.casefold() if key.isascii() else key.upper().casefold().replace("\u0307", "")


def _starts(raw: msgspec.Raw, start: bytes) -> bool:
    return bytes(memoryview(raw)[: len(start)]) == start


_NULL = msgspec.Raw(b"null")
