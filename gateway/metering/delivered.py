"""How many tokens of answer a stream that was cut had delivered, from its first events and its length.

Pure. A stream that reports its usage does so at its end, so one that never got there is counted by what it held. Knows
where the dialects carry text (OpenAI API reference, streaming); most servers put one token into an event, and a token
is about four bytes of English, so the larger of both counts is taken. What a model thought and did not say is in no
event, and cannot be counted.
"""

from collections.abc import Iterator, Sequence
from math import ceil
from typing import Any

import msgspec

from gateway.metering.estimate import BYTES_PER_TOKEN
from gateway.metering.usage import data_of_events

SAMPLE_BYTES = 8 * 1024
"""How much of a stream is kept for this; of a longer one, the rest is taken to be like it."""

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


def delivered_tokens(sample: Sequence[bytes], sent_bytes: int) -> int:
    """Tokens in a stream of which `sent_bytes` were sent, beginning with the blocks of whole events in `sample`."""
    tokens = _tokens(sample)
    sampled_bytes = sum(map(len, sample))
    if sampled_bytes >= SAMPLE_BYTES and sent_bytes > sampled_bytes:
        later = sample[len(sample) // 2 :]  # the first events of a stream say more about it than of the answer
        tokens += (sent_bytes - sampled_bytes) * _tokens(later) / max(sum(map(len, later)), 1)
    return ceil(tokens)


def _tokens(blocks: Sequence[bytes]) -> float:
    texts = [text for block in blocks for data in data_of_events(block) for text in _texts(data)]
    return max(len(texts), sum(map(len, texts)) / BYTES_PER_TOKEN)


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
