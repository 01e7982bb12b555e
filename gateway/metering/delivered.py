"""How many tokens of answer a stream that was cut had delivered, from its first events and its length.

Pure. A stream that reports its usage does so at its end, so one that never got there is counted by what it held. Knows
where the dialects carry text (OpenAI API reference, streaming); most servers put one token into an event, and a token
is about four bytes of English, so the larger of both counts is taken. What a model thought and did not say is in no
event, and cannot be counted.
"""

from collections.abc import Iterator, Sequence
from math import ceil
from typing import Any, NamedTuple

import msgspec

from gateway.call import Dialect
from gateway.metering.estimate import BYTES_PER_TOKEN
from gateway.metering.usage import data_of_events

SAMPLE_BYTES = 8 * 1024
"""How much text in events is kept for this; of a longer stream, the rest is taken to be like it."""
_LARGE_BYTES = SAMPLE_BYTES // 8
"""A larger event is unlike others: it fills no more of the sample than this."""
_MOST_BYTES = 7 * SAMPLE_BYTES
"""What is kept is held as long as the stream lasts, so where there would be more, a large event is counted at once."""

_MARKS = {Dialect.RESPONSES: (b'"delta"',), Dialect.CHAT: (b'"delta"', b'"text"'), Dialect.OTHER: ()}
"""Members that events with text have; the older completions say `text`, and so do many objects of responses."""

_TEXTS = frozenset(
    (
        "content",
        "reasoning_content",
        "reasoning",
        "refusal",
        "arguments",
        "name",
        "input",
        "transcript",
        "text",
    )
)
"""Members of a chat delta, at any depth, whose text the model has made."""


class _Part(NamedTuple):
    """Of some events: how many bytes they have, how many of them have text, and how many bytes that is."""

    size: int
    texts: int
    text_bytes: int


class Sample:
    """Feed blocks of whole events while `is_open`; ask for `tokens` when the stream has ended.

    Of these, what has no text is no part of the sample, and nothing is taken to be like it: the first events of a
    responses stream repeat instructions and tools, and would be all of it.
    """

    __slots__ = ("_blocks", "_filled_bytes", "_marks", "_other_bytes", "is_open")

    def __init__(self, dialect: Dialect) -> None:
        self._marks = _MARKS[dialect]
        self._blocks: list[bytes | _Part] = []
        self._filled_bytes = 0
        self._other_bytes = 0
        self.is_open = bool(self._marks)

    @property
    def held_bytes(self) -> int:
        """How much is kept."""
        return sum(len(block) for block in self._blocks if isinstance(block, bytes))

    def feed(self, block: bytes) -> None:
        """Look at `block`, and keep its events with text. Never raises."""
        size = len(block)
        at = self._text_in(block, 0)
        if at >= 0 and size <= _LARGE_BYTES:  # what a stream mostly has
            self._blocks.append(block)
            self._filled_bytes += size
            self.is_open = self._filled_bytes < SAMPLE_BYTES
            return
        end = 0
        while at >= 0 and self.is_open:
            last, start = end, _last_boundary(block, end, at)
            end = _next_boundary(block, at)
            is_large = end - start > _LARGE_BYTES
            if not is_large and len(block) - start > SAMPLE_BYTES:
                end = _last_boundary(block, end, start + SAMPLE_BYTES)
            elif not is_large:
                end = len(block)
            self._other_bytes += start - last
            self._keep(block[start:end], _LARGE_BYTES if is_large else end - start)
            at = self._text_in(block, end)
        if at < 0:
            self._other_bytes += len(block) - end

    def tokens(self, sent_bytes: int) -> int:
        """Tokens in the stream, of which `sent_bytes` were sent."""
        parts = [_part(block) if isinstance(block, bytes) else block for block in self._blocks]
        tokens = _tokens(parts)
        rest_bytes = sent_bytes - _size(parts) - self._other_bytes
        if not self.is_open and rest_bytes > 0:
            later = parts[len(parts) // 2 :]  # the first say more about the stream than of the answer
            tokens += rest_bytes * _tokens(later) / max(_size(later), 1)
        return ceil(tokens)

    def _text_in(self, block: bytes, start: int) -> int:
        at = -1
        for mark in self._marks:
            at = block.find(mark, start)
            if at >= 0:
                break
        return at

    def _keep(self, events: bytes, filled_bytes: int) -> None:
        self._blocks.append(_part(events) if self.held_bytes + len(events) > _MOST_BYTES else events)
        self._filled_bytes += filled_bytes
        self.is_open = self._filled_bytes < SAMPLE_BYTES


def _last_boundary(block: bytes, start: int, end: int) -> int:
    """Where the last event begins that does so between these; `start`, where an event begins too, if none does."""
    found = max(block.rfind(b"\n\n", start, end) + 2, block.rfind(b"\n\r\n", start, end) + 3)
    return found if found > start + 3 else start


def _next_boundary(block: bytes, at: int) -> int:
    """Where the event ends that `at` is in."""
    end_of_event = b"\r\n\r\n" if block.endswith(b"\r\n\r\n") else b"\n\n"
    found = block.find(end_of_event, at)
    return len(block) if found < 0 else found + len(end_of_event)


def _part(events: bytes) -> _Part:
    texts = [len(text) for data in data_of_events(events) for text in _texts(data)]
    return _Part(len(events), len(texts), sum(texts))


def _size(parts: Sequence[_Part]) -> int:
    return sum(part.size for part in parts)


def _tokens(parts: Sequence[_Part]) -> float:
    return max(sum(part.texts for part in parts), sum(part.text_bytes for part in parts) / BYTES_PER_TOKEN)


def _texts(data: bytes) -> Iterator[bytes]:
    """What one event adds to the answer, in UTF-8."""
    try:
        event = msgspec.json.decode(data)
    except (ValueError, RecursionError):
        return
    if isinstance(event, dict):
        text = _of_responses(event) if "type" in event else "".join(_of_chat(event.get("choices")))
        if text:
            yield text.encode()


def _of_responses(event: dict[str, Any]) -> str:
    delta = event.get("delta")
    return delta if isinstance(delta, str) and "audio.delta" not in str(event["type"]) else ""


def _of_chat(choices: Any) -> Iterator[str]:
    for choice in choices if isinstance(choices, list) else ():
        if isinstance(choice, dict):
            text = choice.get("text")  # of the older completions
            yield text if isinstance(text, str) else ""
            yield from _said(choice.get("delta"))


def _said(value: Any) -> Iterator[str]:
    if isinstance(value, list):
        for inner in value:
            yield from _said(inner)
    elif isinstance(value, dict):
        for name, inner in value.items():
            if isinstance(inner, str):
                yield inner if name in _TEXTS else ""
            else:
                yield from _said(inner)
