"""What a call that a client saw must have come to, by what upstream says and by what was delivered.

Counts anew: shares neither code nor prices with the gateway (docs/usage.md says how it counts).
"""

import gzip
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from fractions import Fraction
from math import ceil
from typing import Any, NamedTuple

from tests.faults.mixed_calls import EMBEDDING, LARGE, SMALL, Planned, Seen

_EVENT_END = re.compile(rb"\r?\n\r?\n")


class Rates(NamedTuple):
    """Micro-dollars a million tokens."""

    input: int
    cached: int
    output: int
    reasoning: int


RATES = {
    LARGE: Rates(1_750_000, 175_000, 14_000_000, 14_000_000),
    SMALL: Rates(250_000, 250_000, 2_000_000, 3_000_001),
    EMBEDDING: Rates(20_000, 20_000, 20_000, 20_000),
}
"""All other models are unpriced."""
LONG_TOKENS, LONG_RATES = 1_100, Rates(3_500_000, 350_000, 21_000_000, 21_000_001)
"""Calls of `LARGE` with more input cost this."""


def price_file() -> str:
    """The prices as the gateway reads them; `SMALL` by a pattern."""
    entries = {name: {"looked_up": "2026-11-22", **rates._asdict()} for name, rates in RATES.items()}
    entries[LARGE]["tiers"] = [{"above_input_tokens": LONG_TOKENS, **LONG_RATES._asdict()}]
    entries["openai/*-mini"] = entries.pop(SMALL)
    # YAML knows a date only without quotes.
    models = json.dumps(entries).replace('"2026-11-22"', "2026-11-22")
    return f"unit: microusd_per_million_tokens\nmodels: {models}\n"


class Tokens(NamedTuple):
    """Of one call; `cached` are among `input`, `reasoning` among `output`."""

    input: int
    output: int
    cached: int = 0
    reasoning: int = 0


def cost_microusd(model: str | None, tokens: Tokens) -> int | None:
    """What that costs; None: the model has no price."""
    rates = RATES.get(model or "")
    if rates is None:
        return None
    if model == LARGE and tokens.input > LONG_TOKENS:
        rates = LONG_RATES
    cost = (tokens.input - tokens.cached) * rates.input + tokens.cached * rates.cached
    cost += (tokens.output - tokens.reasoning) * rates.output + tokens.reasoning * rates.reasoning
    return ceil(Fraction(cost, 1_000_000))


@dataclass(frozen=True, slots=True)
class Bill:
    """What must be on record of a call.

    Of a call that was cut, `output` are the least and the most tokens of answer that were delivered, and `tokens` what
    upstream reports for all of it, which may be on record too where `may_be_reported`.
    """

    outcome: str
    source: str
    tokens: Tokens | None = None
    output: tuple[int, int] = (0, 0)
    may_be_reported: bool = False


_REFUSED = Bill("refused", "none")


def bill(seen: Seen) -> Bill:
    """Of a call whose client saw that."""
    call, answer = seen.planned, seen.answer
    if answer is None:
        return Bill("client_left", "estimated")
    if answer.status in (502, 504):
        return Bill("failed", "estimated")
    if answer.status != 200:
        is_upstreams = call.fate == "error" and answer.status != 403
        return Bill("upstream_error", "none") if is_upstreams else _REFUSED
    events = list(_events(seen))
    is_broken = seen.has_left or answer.end == "cut" or any(map(_is_error, events))
    if not is_broken or answer.body.endswith(b"data: [DONE]\n\n"):
        return Bill("done", "reported", _reported(seen, events))
    return _cut(seen, events)


def _cut(seen: Seen, events: list[dict[str, Any]]) -> Bill:
    """A stream that ended before its time, or with an error of upstream's."""
    assert seen.answer is not None
    call = seen.planned
    outcome = "upstream_error" if call.fate == "in_band" else "client_left" if seen.has_left else "cut"
    reported = next((told for event in reversed(events) if (told := event.get("usage"))), None)
    if reported is not None:
        return Bill(outcome, "reported", tokens_of(reported))
    least = most = _delivered(events)
    if call.fate == "midway":
        most = 2 * 60 * 2  # all chunks of two answers, eight bytes each
    elif len(seen.answer.body) > 8_192:  # of the rest it is taken that it is like the beginning
        least, most = int(least * 0.9), ceil(most * 1.1)
    has_finished = any(choice.get("finish_reason") for event in events for choice in event.get("choices", ()))
    whole = None if seen.directly is None else tokens_of(seen.directly)
    return Bill(outcome, "estimated", whole, (least, most), has_finished and whole is not None)


def _reported(seen: Seen, events: list[dict[str, Any]]) -> Tokens:
    assert seen.answer is not None
    if seen.directly is not None:
        return tokens_of(seen.directly)
    if not seen.planned.body.get("stream"):
        return tokens_of(json.loads(_body(seen))["usage"])
    ends = [event.get("response", event) for event in events]
    return tokens_of(next(told for end in reversed(ends) if (told := end.get("usage"))))


def tokens_of(usage: Mapping[str, Any]) -> Tokens:
    """What a `usage` object of either dialect says."""
    inputs = usage.get("prompt_tokens_details") or usage.get("input_tokens_details") or {}
    outputs = usage.get("completion_tokens_details") or usage.get("output_tokens_details") or {}
    tokens = Tokens(
        usage["prompt_tokens"] if "prompt_tokens" in usage else usage["input_tokens"],
        usage.get("completion_tokens", usage.get("output_tokens", 0)),
        inputs.get("cached_tokens", 0),
        outputs.get("reasoning_tokens", 0),
    )
    assert usage["total_tokens"] == tokens.input + tokens.output
    return tokens


def _delivered(events: list[dict[str, Any]]) -> int:
    """Four bytes or one event a token, whichever is more."""
    texts = [text for event in events if (text := _text(event))]
    return max(len(texts), ceil(sum(len(text.encode()) for text in texts) / 4))


def _text(event: Mapping[str, Any]) -> str:
    if "type" in event:
        return str(event.get("delta", ""))
    return "".join(choice["delta"].get("content") or "" for choice in event.get("choices", ()))


def _is_error(event: Mapping[str, Any]) -> bool:
    return event.get("type") == "error" or "error" in event


def _events(seen: Seen) -> Iterator[dict[str, Any]]:
    """The data of each whole event of a stream."""
    if not seen.planned.body.get("stream"):
        return
    *whole, _ = _EVENT_END.split(_body(seen))
    for event in whole:
        data = event.rpartition(b"data: ")[2]
        if b"data: " in event and data != b"[DONE]":
            yield json.loads(data)


def _body(seen: Seen) -> bytes:
    assert seen.answer is not None
    body = seen.answer.body
    return gzip.decompress(body) if seen.answer.header("content-encoding") == "gzip" else body


class Prompts:
    """What prompts may be estimated at whose calls were cut, by what those of whole calls came to.

    A quarter of a body's bytes at first, and then what the model's calls teach: so between the extremes of all these.
    """

    def __init__(self, seen: Iterable[Seen]) -> None:
        self._ratios: dict[str, list[Fraction]] = {}
        for each in seen:
            if (tokens := bill(each).tokens) is not None:
                ratio = Fraction(tokens.input, _size(each.planned))
                of_model = self._ratios.setdefault(each.planned.model, [Fraction(1, 4)] * 2)
                of_model[:] = min(ratio, of_model[0]), max(ratio, of_model[1])

    def tokens(self, call: Planned) -> tuple[int, int]:
        """The least and the most."""
        least, most = self._ratios.get(call.model, [Fraction(1, 4)] * 2)
        return int(_size(call) * least), int(_size(call) * most) + 1


def _size(call: Planned) -> int:
    return len(json.dumps({**call.body, "model": call.model}))
