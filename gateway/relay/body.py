"""Read the few members of a JSON request that policy needs, and change three of them in place.

Knows the top level of a request body: which policy members are there, that each is
there once under one spelling, and where its bytes lie. Refuses to know messages,
tools or anything else that a request carries: those bytes are checked to be JSON and
are otherwise never looked at, copied or written anew.

JSON libraries differ on duplicate keys (the first or the last wins) and some match keys
without regard to case. So a body in which a policy key could be read in two ways is
refused: the model that was authorised is the model that upstream reads.
"""

import operator
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Annotated, Any, NamedTuple

import msgspec

from gateway.errors import BadRequest


class Peek(msgspec.Struct, frozen=True, gc=False):
    """What policy needs to know of one JSON request body.

    `include_usage` says whether the client itself asked for it. `prompt_bytes` is the size of the whole body.
    `background` is whether some server may read it as true: all but `false` and null, also what is a colour for image
    routes. `store` is None where it is not said; only `false` is False. `audio` says whether a spoken answer is asked
    for.

    Numbers are read as the most generous server would read them, since what is read too small is reserved too small:
    `8.0` and `"8"` are 8. What is none above 0 counts as not said. Bounds in tokens are None then. `n` and `best_of`
    are 1 to `MOST_ANSWERS`; `prompts`, how many there are in `prompt`, is at least 1, and above `MOST_PROMPTS` may be
    too many.
    """

    prompt_bytes: int
    model: str | None = None
    stream: bool = False
    include_usage: bool = False
    background: bool = False
    previous_response_id: str | None = None
    conversation: str | None = None
    store: bool | None = None
    audio: bool = False
    prompt_cache_key: str | None = None
    max_tokens: int | None = None
    max_completion_tokens: int | None = None
    max_output_tokens: int | None = None
    n: int = 1
    best_of: int = 1
    prompts: int = 1


class Member(NamedTuple):
    """One member of a JSON object: its name, and the offsets of key, value and the byte after the value."""

    name: str
    start: int
    value_start: int
    end: int


class _Key(str):
    """One occurrence of a key: two never share an entry of a dict, so duplicates and order stay visible."""

    __slots__ = ()
    __hash__ = object.__hash__


Pairs = Mapping[_Key, msgspec.Raw]

_BOUNDS = ("max_tokens", "max_completion_tokens", "max_output_tokens")
_OPTION_KEYS = frozenset({"include_usage"})
_ID_KEYS = frozenset({"id"})

_PAIRS = msgspec.json.Decoder(dict[_Key, msgspec.Raw], dec_hook=operator.call)
_SMALL_BYTES = 64 * 1024
"""An object of this size cannot hold so many members that reading them all takes long."""
MAX_MEMBERS = 1000
MOST_ANSWERS = 2_000_000
"""OpenAI gives 128 to one prompt, others more. No call reserves as many tokens as these would have."""
MOST_PROMPTS = 16_384
"""As many are counted one by one; OpenAI takes 2,048 in one call."""
_text = msgspec.json.Decoder(str).decode
_text_or_null = msgspec.json.Decoder(str | None).decode
_SWITCH = msgspec.json.Decoder(bool | None)
_COUNT = msgspec.json.Decoder(Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)] | None)
_ODD_NUMBER = msgspec.json.Decoder(float | str)
_LONGEST_NUMBER = 32
"""Characters of a number that was written as text."""

_TOO_DEEP = "The request body is nested too deep. Send a flatter JSON object."

# The key, the colon and the white space around them, from the byte after `{` or `,` on (RFC 8259, section 4).
_KEY = re.compile(rb'[ \t\n\r]*+("[^"\\]*+(?:\\.[^"\\]*+)*+")[ \t\n\r]*+:[ \t\n\r]*+', re.DOTALL)
_HALF = re.compile(rb"\\u[dD][89a-fA-F]")
"""What may be a half of a surrogate pair, or a whole one."""
_SPACE = re.compile(rb"[ \t\n\r]*+")
_COMMA = re.compile(rb"[ \t\n\r]*+,")
# A text, or a list of tokens, within a list of prompts.
_PROMPT = re.compile(rb'[ \t\n\r,]*+(?:"[^"\\]*+(?:\\.[^"\\]*+)*+"|\[[^\]]*+\])', re.DOTALL)


def peek(body: bytes) -> Peek:
    """Read the policy members of `body`; raises `BadRequest` unless it is one unambiguous JSON object."""
    return Peek(len(body), **_read(_policy_members(_decode(body), POLICY_KEYS)))


def replace_model(body: bytes, name: str) -> bytes:
    """`body` with `name` as its model, all other bytes as they are; unchanged if it names no model."""
    return replace_text(body, "model", name)


def replace_text(body: bytes, name: str, text: str) -> bytes:
    """`body` with `text` as its member `name`, all other bytes as they are; unchanged if it has none."""
    for member in members(body):
        if member.name == name:
            return splice(body, member.value_start, member.end, msgspec.json.encode(text))
    return body


def ask_for_usage(body: bytes) -> bytes:
    """`body` with `stream_options.include_usage` true; all other bytes stay.

    The member that is missing is put right after the brace that opens its object.
    """
    if "stream_options" not in tuple(_decode(body)):
        return _with_first(body, b'"stream_options":{"include_usage":true}')
    _, _, start, end = _member(body, "stream_options")
    options = body[start:end]
    return splice(body, start, end, b'{"include_usage":true}' if options == b"null" else _asking(options))


def members(text: bytes) -> Iterator[Member]:
    """The members of the JSON object `text` in order, duplicates too; `BadRequest` if it is none."""
    at = text.find(b"{") + 1
    for name, raw in _decode(text).items():
        key = _KEY.match(text, at)
        assert key is not None  # noqa: S101 - the decoder has read the same bytes
        end = key.end() + memoryview(raw).nbytes
        yield Member(str(name), key.start(1), key.end(), end)
        comma = _COMMA.match(text, end)
        at = comma.end() if comma else end


def folded(text: bytes | msgspec.Raw) -> Iterator[tuple[str, msgspec.Raw]]:
    """Names, as the most generous reader would match them, and values of the JSON object `text`; duplicates too.

    Raises `BadRequest` if it is none.
    """
    for key, raw in _decode(text).items():
        yield key.casefold() if key.isascii() else _fold(key), raw


def splice(text: bytes, start: int, end: int, value: bytes) -> bytes:
    """`text` with `value` in place of the bytes from `start` to `end`, copied once."""
    view = memoryview(text)
    return b"".join((view[:start], value, view[end:]))


def _member(text: bytes, name: str) -> Member:
    return next(member for member in members(text) if member.name == name)


def _asking(options: bytes) -> bytes:
    if "include_usage" not in tuple(_decode(options)):
        return _with_first(options, b'"include_usage":true')
    _, _, start, end = _member(options, "include_usage")
    return splice(options, start, end, b"true")


def _with_first(text: bytes, member: bytes) -> bytes:
    brace = text.index(b"{") + 1
    space = _SPACE.match(text, brace)
    empty = space is not None and text[space.end()] == ord("}")
    return splice(text, brace, brace, member if empty else member + b",")


def _decode(text: bytes | msgspec.Raw) -> Pairs:
    try:
        return _pairs(text)
    except msgspec.ValidationError as error:
        raise BadRequest("The request body must be a JSON object, such as {...}.") from error
    except RecursionError as error:
        raise BadRequest(_TOO_DEEP) from error
    except ValueError as error:
        raise BadRequest(f"The request body is not valid JSON: {_reason(error, text)}.") from error


def _pairs(text: bytes | msgspec.Raw) -> Pairs:
    """The members of an object. A large one may hold `MAX_MEMBERS`: each costs memory, and a million cost seconds."""
    if memoryview(text).nbytes <= _SMALL_BYTES:
        return _PAIRS.decode(text)
    count = 0

    def counted(kind: Callable[[str], _Key], key: str) -> _Key:
        nonlocal count
        count += 1
        if count > MAX_MEMBERS:
            raise BadRequest(f"The request body has an object of over {MAX_MEMBERS} members where a few are expected.")
        return kind(key)

    return msgspec.json.Decoder(dict[_Key, msgspec.Raw], dec_hook=counted).decode(text)


def _reason(error: ValueError, text: bytes | msgspec.Raw) -> str:
    if isinstance(error, UnicodeDecodeError):
        return "a key is not valid UTF-8"
    if str(error) == "Input data was truncated":
        has_halves = _HALF.search(bytes(text)) is not None
        return "it ends too early" + (", or holds half of a surrogate pair such as \\ud800" if has_halves else "")
    return str(error).removeprefix("JSON is malformed: ")


def _policy_members(pairs: Pairs, policy: frozenset[str], inside: str = "") -> dict[str, msgspec.Raw]:
    """The `policy` members among `pairs`; raises `BadRequest` where one could be read in two ways."""
    found: dict[str, msgspec.Raw] = {}
    for key, raw in pairs.items():
        name = key.casefold() if key.isascii() else _fold(key)
        if name in policy:
            if key != name or name in found:
                raise _ambiguous(inside + name, name)
            found[name] = raw
    return found


def _ambiguous(param: str, name: str) -> BadRequest:
    return BadRequest(
        f"The request body has {param} twice, or under a key that only looks like it."
        f" Send it once, with the key spelled exactly {name}.",
        param=param,
    )


def _fold(key: str) -> str:
    """As the most generous reader would match it: Java's takes the dotted and the dotless Turkish i for i."""
    return key.upper().casefold().replace("\u0307", "")


def _read(found: Mapping[str, msgspec.Raw]) -> dict[str, Any]:
    """By the name that `Peek` has for it."""
    values = {}
    name = ""
    try:
        for name, raw in found.items():
            field, read = _READERS[name]
            values[field] = read(raw)
    except RecursionError as error:
        raise BadRequest(_TOO_DEEP, param=name) from error
    except ValueError as error:
        raise BadRequest(f"{name} must be {_EXPECTED[name]}.", param=name) from error
    return values


def _stream(raw: msgspec.Raw) -> bool:
    return _SWITCH.decode(raw) is True


def _background(raw: msgspec.Raw) -> bool:
    return _store(raw) is True


def _include_usage(raw: msgspec.Raw) -> bool:
    if _starts(raw, b"null"):
        return False
    options = _pairs(raw)
    inner = _policy_members(options, _OPTION_KEYS, "stream_options.")
    return "include_usage" in inner and _stream(inner["include_usage"])


def _conversation_id(raw: msgspec.Raw) -> Any:
    if not _starts(raw, b"{"):
        return _text_or_null(raw)
    inner = _policy_members(_pairs(raw), _ID_KEYS, "conversation.")
    return _text(inner.get("id", b"null"))


def _starts(raw: msgspec.Raw, start: bytes) -> bool:
    return bytes(memoryview(raw)[: len(start)]) == start


def _store(raw: msgspec.Raw) -> bool | None:
    """What is neither `false` nor `null` may be read as true."""
    return None if _starts(raw, b"null") else not _starts(raw, b"false")


def _is_there(raw: msgspec.Raw) -> bool:
    return not _starts(raw, b"null")


def _text_if_any(raw: msgspec.Raw) -> str | None:
    """Text; what it is otherwise is upstream's business, only that it is there once is ours."""
    return _text(raw) if _starts(raw, b'"') else None


def _number(raw: msgspec.Raw) -> int | None:
    """A number above 0; what is none is upstream's business."""
    try:
        return _COUNT.decode(raw) or None
    except ValueError:
        return _odd_number(raw)


def _odd_number(raw: msgspec.Raw) -> int | None:
    try:
        told = _ODD_NUMBER.decode(raw)
        number = float(told) if len(str(told)) <= _LONGEST_NUMBER else 0.0
    except ValueError:
        return None
    return int(number) if number.is_integer() and number > 0 else None


def _answers(raw: msgspec.Raw) -> int:
    return min(_number(raw) or 1, MOST_ANSWERS)


def answers_of(text: bytes) -> int:
    """How many answers the field `n` of a form asks for, by the rules of a body's; 1 where it tells no number."""
    if len(text) > _LONGEST_NUMBER or not text.strip():
        return 1
    try:
        return min(max(int(text), 1), MOST_ANSWERS)  # `010` and `+10` too, which are no JSON
    except ValueError:
        return _answers(msgspec.Raw(text.strip()))


def _prompts(raw: msgspec.Raw) -> int:
    """How many: a text and a list of tokens are one. Of very many no fewer than there are."""
    if not _starts(raw, b"["):
        return 1
    count = at = 0
    view = memoryview(raw)[1:]
    while count < MOST_PROMPTS and (found := _PROMPT.match(view, at)) is not None:
        count, at = count + 1, found.end()
    return max(count, 1) if count < MOST_PROMPTS else count + bytes(view[at:]).count(b",")


_READERS: dict[str, tuple[str, Callable[[msgspec.Raw], Any]]] = {
    "model": ("model", _text),
    "stream": ("stream", _stream),
    "stream_options": ("include_usage", _include_usage),
    "background": ("background", _background),
    "previous_response_id": ("previous_response_id", _text_or_null),
    "conversation": ("conversation", _conversation_id),
    "store": ("store", _store),
    "audio": ("audio", _is_there),
    "prompt_cache_key": ("prompt_cache_key", _text_if_any),
    "n": ("n", _answers),
    "best_of": ("best_of", _answers),
    "prompt": ("prompts", _prompts),
    **{name: (name, _number) for name in _BOUNDS},
}
"""By member: the field of `Peek` that it becomes, and how."""

POLICY_KEYS = frozenset(_READERS)
"""The members that decide what a call may do, whom it belongs to and what it costs."""

_EXPECTED = {
    "model": "a string",
    "stream": "true, false or null",
    "stream_options": "an object or null, and its include_usage true, false or null",
    "previous_response_id": "a string or null",
    "conversation": "a string, an object with an id, or null",
    "prompt_cache_key": "a string or null",
}
