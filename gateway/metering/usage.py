"""Read token usage out of replies without touching or delaying them.

Bytes go in exactly as upstream sent them; only a fact comes out. Knows where usage sits
(OpenAI API reference): at the top level of a plain reply, of the last chunk of a chat or
completions stream and of the event that ends a stream of sound, text or images, and in
`response` of the event that ends a responses stream. Text that merely speaks of usage is
no usage: only those places are looked at. Of a count in both spellings the one that is not 0
is believed, with the details of that spelling. One of input, output and total that is missing
follows from the others, and so does a total that is less than the other two come to; without
any of these there is no usage, but for sound that is told by its length. One that makes no
sense must follow from both others: half of an account would pass for a whole one, so it is
none. Other counts that make no sense are left out.
"""

import re
from collections.abc import Iterator
from itertools import groupby
from typing import Annotated

import msgspec

from gateway.call import Usage

MAX_COUNT = 2**31
"""A larger count is taken for a mistake of upstream's: a thousand times what any model takes, and sums of millions of
such calls, and what they cost, still fit into 64 bits."""

_ENDS = (b'"response.completed"', b'"response.incomplete"', b'"response.failed"')
_KEY = b'"usage"'
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"
STREAM_BEGINNINGS = (b"data:", b"event:", b"id:", b":")
"""What an event stream begins with, and no JSON does."""
EVENT_END = re.compile(rb"(?:\r\n|\n|\r(?!\n)){2,}+")
_DATA = b"data:"
_DECIMAL = re.compile(r"[0-9]+(?:\.[0-9]*)?")
_LONGEST_NUMBER = 20
_COUNTS = ("prompt_tokens", "completion_tokens", "input_tokens", "output_tokens", "total_tokens")

Count = Annotated[int, msgspec.Meta(ge=0, le=MAX_COUNT)] | None
Seconds = Annotated[float, msgspec.Meta(ge=0, le=MAX_COUNT / 1000)] | None


class _Details(msgspec.Struct, gc=False):
    cached_tokens: Count = None
    cache_write_tokens: Count = None
    audio_tokens: Count = None
    image_tokens: Count = None
    reasoning_tokens: Count = None
    accepted_prediction_tokens: Count = None
    rejected_prediction_tokens: Count = None


class _Tokens(msgspec.Struct, gc=False):
    """Both spellings: `prompt` and `completion` of chat, `input` and `output` of responses.

    Besides, `input_token_details` and `seconds` of transcriptions, and what servers of open models put at the top:
    `reasoning_tokens`, and `prompt_cache_hit_tokens`, which is what came from the cache.
    """

    prompt_tokens: Count = None
    completion_tokens: Count = None
    input_tokens: Count = None
    output_tokens: Count = None
    total_tokens: Count = None
    prompt_tokens_details: _Details | None = None
    completion_tokens_details: _Details | None = None
    input_tokens_details: _Details | None = None
    output_tokens_details: _Details | None = None
    input_token_details: _Details | None = None
    reasoning_tokens: Count = None
    prompt_cache_hit_tokens: Count = None
    seconds: Seconds = None


class _Reply(msgspec.Struct, gc=False):
    """What a reply holds whose usage is in order."""

    usage: _Tokens | None = None


class _Document(msgspec.Struct, gc=False):
    type: msgspec.Raw = msgspec.Raw()
    usage: msgspec.Raw = msgspec.Raw()
    response: msgspec.Raw = msgspec.Raw()


_REPLY = msgspec.json.Decoder(_Reply)
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
        for data in data_of_events(block):
            if _KEY in data:
                self._found = _usage_of_event(data) or self._found


def data_of_events(block: bytes) -> Iterator[bytes]:
    """What the events of `block` say: of each its `data` fields joined, b"" where it has none.

    A byte order mark, with which a stream may begin, is no part of them.
    """
    # With an expression in place of lines this takes ten times as long.
    for has_fields, lines in groupby(block.removeprefix(_BYTE_ORDER_MARK).splitlines(), bool):
        if has_fields:
            yield b"\n".join([line[len(_DATA) :] for line in lines if line.startswith(_DATA)])


def usage_of_reply(body: bytes) -> Usage | None:
    """The usage that a plain JSON reply reports; None if it reports none or is no JSON object. Never raises.

    Some servers send an event stream and do not call it one: then it is what that reports.
    """
    try:
        tokens = _REPLY.decode(body).usage
    except (ValueError, RecursionError):
        return _usage_of_odd_reply(body.removeprefix(_BYTE_ORDER_MARK))
    return None if tokens is None else _counted(tokens)


def _usage_of_odd_reply(body: bytes) -> Usage | None:
    document = _document(body)
    if document is None:
        return usage_of_stream(body) if body.startswith(STREAM_BEGINNINGS) else None
    return _usage(document.usage)


def usage_of_stream(body: bytes) -> Usage | None:
    """The usage that a whole event stream reports; None if it reports none. Never raises."""
    scanner = UsageScanner()
    scanner.feed(body)
    return scanner.usage


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
        members = msgspec.json.decode(raw)
        sensible = _sensible(members)
        tokens = msgspec.convert(sensible, _Tokens)
    except (ValueError, RecursionError):
        return None
    is_odd = any(members.get(name) is not None and name not in sensible for name in _COUNTS) if sensible else False
    return None if is_odd and not _suffices(tokens) else _counted(tokens)


def _suffices(tokens: _Tokens) -> bool:
    """Whether two of input, output and total are told, from which the third follows."""
    has_input = tokens.prompt_tokens is not None or tokens.input_tokens is not None
    has_output = tokens.completion_tokens is not None or tokens.output_tokens is not None
    parts = (tokens.input_tokens or tokens.prompt_tokens or 0) + (tokens.output_tokens or tokens.completion_tokens or 0)
    has_total = tokens.total_tokens is not None and tokens.total_tokens >= parts
    return has_input + has_output + has_total >= 2


def _sensible(members: object) -> dict[str, object]:
    """What in a usage object has the type that its name promises, or can be read as if it had."""
    if not isinstance(members, dict):
        return {}
    found: dict[str, object] = {name: _sensible(inner) for name, inner in members.items() if name.endswith("_details")}
    for name, value in members.items():
        number = _number(value)
        if number is not None and name not in found and (name == "seconds" or number.is_integer()):
            found[name] = number if name == "seconds" else int(number)
    return found


def _number(value: object) -> float | None:
    """What stands for a number that is possible here; some servers put it in quotes."""
    if isinstance(value, str) and len(value) <= _LONGEST_NUMBER and _DECIMAL.fullmatch(value):
        value = float(value)
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= MAX_COUNT:
        return None
    return float(value)


def _counted(tokens: _Tokens) -> Usage | None:
    # Some servers tell all counts in both spellings, and 0 in the one that the route does not use.
    if (input_tokens := tokens.input_tokens) or tokens.prompt_tokens is None:
        inputs = tokens.input_tokens_details or tokens.input_token_details or tokens.prompt_tokens_details
    else:
        input_tokens = tokens.prompt_tokens
        inputs = tokens.prompt_tokens_details or tokens.input_tokens_details or tokens.input_token_details
    if (output_tokens := tokens.output_tokens) or tokens.completion_tokens is None:
        outputs = tokens.output_tokens_details or tokens.completion_tokens_details
    else:
        output_tokens = tokens.completion_tokens
        outputs = tokens.completion_tokens_details or tokens.output_tokens_details
    total_tokens = tokens.total_tokens
    if input_tokens is None or output_tokens is None or total_tokens is None:
        if input_tokens is None and output_tokens is None and total_tokens is None:
            return None if tokens.seconds is None else Usage(0, 0, 0, audio_ms=round(tokens.seconds * 1000))
        # Of embeddings some servers tell the total alone.
        if input_tokens is None:
            input_tokens = max(0, (total_tokens or 0) - (output_tokens or 0))
        if output_tokens is None:
            output_tokens = max(0, (total_tokens or 0) - input_tokens)
        total_tokens = total_tokens or 0
    # A larger one is believed: some servers count what a model thought there alone.
    if total_tokens < (parts := input_tokens + output_tokens):
        total_tokens = parts
    inputs, outputs = inputs or _NO_DETAILS, outputs or _NO_DETAILS
    reasoning_tokens = outputs.reasoning_tokens or tokens.reasoning_tokens or 0
    if reasoning_tokens and total_tokens == parts + reasoning_tokens:
        # xAI's output is without them, and they are paid for as output.
        output_tokens += reasoning_tokens
    # In the order of its fields, which need not be found by name then.
    return Usage(
        input_tokens,
        output_tokens,
        total_tokens,
        inputs.cached_tokens or tokens.prompt_cache_hit_tokens or 0,
        reasoning_tokens,
        inputs.audio_tokens or 0,
        outputs.audio_tokens or 0,
        outputs.accepted_prediction_tokens or 0,
        outputs.rejected_prediction_tokens or 0,
        inputs.cache_write_tokens or 0,
        inputs.image_tokens or 0,
        outputs.image_tokens or 0,
        0 if tokens.seconds is None else round(tokens.seconds * 1000),
    )
