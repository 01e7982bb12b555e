"""Read token usage out of replies without touching or delaying them.

Bytes go in exactly as upstream sent them; only a fact comes out. Knows where usage sits
(OpenAI API reference): at the top level of a plain reply and of the last chunk of a chat
or completions stream, and in `response` of the event that ends a responses stream. Text
that merely speaks of usage is no usage: only those places are looked at. A count that is
missing or makes no sense is 0, a missing total the sum of input and output; without any
of these three there is no usage.
"""

import re
from typing import Annotated, TypeGuard

import msgspec

from gateway.call import Usage

MAX_COUNT = 2**53
"""A larger count is taken for a mistake of upstream's; it would not survive a JSON number either."""

_ENDS = (b'"response.completed"', b'"response.incomplete"', b'"response.failed"')
_KEY = b'"usage"'
_EVENT_END = re.compile(rb"(?:\r\n|\n|\r(?!\n)){2,}+")
_DATA = re.compile(rb"(?<![^\r\n])data:([^\r\n]*+)")


Count = Annotated[int, msgspec.Meta(ge=0, le=MAX_COUNT)] | None


class _Details(msgspec.Struct, gc=False):
    cached_tokens: Count = None
    cache_write_tokens: Count = None
    audio_tokens: Count = None
    reasoning_tokens: Count = None
    accepted_prediction_tokens: Count = None
    rejected_prediction_tokens: Count = None


class _Tokens(msgspec.Struct, gc=False):
    """Both spellings: `prompt` and `completion` of chat, `input` and `output` of responses."""

    prompt_tokens: Count = None
    completion_tokens: Count = None
    input_tokens: Count = None
    output_tokens: Count = None
    total_tokens: Count = None
    prompt_tokens_details: _Details | None = None
    completion_tokens_details: _Details | None = None
    input_tokens_details: _Details | None = None
    output_tokens_details: _Details | None = None


class _Document(msgspec.Struct, gc=False):
    type: msgspec.Raw = msgspec.Raw()
    usage: msgspec.Raw = msgspec.Raw()
    response: msgspec.Raw = msgspec.Raw()


_DOCUMENT = msgspec.json.Decoder(_Document)
_TOKENS = msgspec.json.Decoder(_Tokens)
_NO_DETAILS = _Details()


class UsageScanner:
    """Feed blocks of whole events; read `usage` when the stream has ended, however it did."""

    __slots__ = ("_found",)

    def __init__(self) -> None:
        self._found: Usage | None = None

    def feed(self, block: bytes) -> None:
        """Look at `block`, which may hold any number of events. Never raises."""
        # find() costs a third of `in`, which first tries whether its left side is a number.
        at = block.find(_KEY)
        if at < 0 or (block.startswith(b":null", at + 7) and block.find(_KEY, at + 7) < 0):
            return
        if block.count(_KEY) > block.count(b'"usage":null') + block.count(b'"usage": null'):
            self._read(block)

    @property
    def usage(self) -> Usage | None:
        """The last usage that the stream reported; None if it has reported none."""
        return self._found

    def _read(self, block: bytes) -> None:
        for event in _EVENT_END.split(block):
            if _KEY in event:
                self._found = _usage_of_event(b"\n".join(_DATA.findall(event))) or self._found


def usage_of_reply(body: bytes) -> Usage | None:
    """The usage that a plain JSON reply reports; None if it reports none or is no JSON object. Never raises."""
    document = _document(body)
    return None if document is None else _usage(document.usage)


def _usage_of_event(data: bytes) -> Usage | None:
    document = _document(data)
    if document is None:
        return None
    if bytes(document.type) in _ENDS:
        document = _document(document.response) or document
    return _usage(document.usage)


def _document(text: bytes | msgspec.Raw) -> _Document | None:
    try:
        return _DOCUMENT.decode(text)
    except (ValueError, RecursionError):
        return None


def _usage(raw: msgspec.Raw) -> Usage | None:
    try:
        return _counted(_TOKENS.decode(raw))
    except msgspec.ValidationError:
        return _usage_with_oddities(raw)
    except (ValueError, RecursionError):
        return None


def _usage_with_oddities(raw: msgspec.Raw) -> Usage | None:
    try:
        return _counted(msgspec.convert(_sensible(msgspec.json.decode(raw)), _Tokens))
    except (ValueError, RecursionError):
        return None


def _sensible(members: object) -> dict[str, object]:
    """What in a usage object has the type that its name promises."""
    if not isinstance(members, dict):
        return {}
    counts: dict[str, object] = {name: int(count) for name, count in members.items() if _is_count(count)}
    details = {name: _sensible(inner) for name, inner in members.items() if name.endswith("_details")}
    return counts | details


def _is_count(value: object) -> TypeGuard[int | float]:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    return 0 <= value <= MAX_COUNT and value == int(value)


def _counted(tokens: _Tokens) -> Usage | None:
    input_tokens = tokens.prompt_tokens if tokens.input_tokens is None else tokens.input_tokens
    output_tokens = tokens.completion_tokens if tokens.output_tokens is None else tokens.output_tokens
    total_tokens = tokens.total_tokens
    if total_tokens is None:
        if input_tokens is None and output_tokens is None:
            return None
        total_tokens = (input_tokens or 0) + (output_tokens or 0)
    inputs = tokens.input_tokens_details or tokens.prompt_tokens_details or _NO_DETAILS
    outputs = tokens.output_tokens_details or tokens.completion_tokens_details or _NO_DETAILS
    return Usage(
        input_tokens or 0,
        output_tokens or 0,
        total_tokens,
        cached_tokens=inputs.cached_tokens or 0,
        reasoning_tokens=outputs.reasoning_tokens or 0,
        audio_input_tokens=inputs.audio_tokens or 0,
        audio_output_tokens=outputs.audio_tokens or 0,
        accepted_prediction_tokens=outputs.accepted_prediction_tokens or 0,
        rejected_prediction_tokens=outputs.rejected_prediction_tokens or 0,
        cache_write_tokens=inputs.cache_write_tokens or 0,
    )
