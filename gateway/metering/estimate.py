"""How many tokens a call will take, said before it is made, by its size and by what its model lately did for its team.

Pure: knows no tokenizer, which would hold up the event loop, and no clock. An estimate is a reservation, which the
truth replaces; it has to be near on average, and cannot be exact.
"""

import re
from collections.abc import Iterator
from itertools import islice

from gateway.call import Usage

BYTES_PER_TOKEN = 4.0
"""English prose; also where a model begins that has not been seen yet."""
MAX_INPUT_TOKENS = MAX_OUTPUT_TOKENS = 2_000_000
"""More than any model takes: what is beyond is refused upstream, and must not empty a bucket until then."""

FIRST_OUTPUT_TOKENS = 1_000
"""What a model that has not been seen yet is taken to answer, if the call states no bound."""
MAX_LEARNT_OUTPUT_TOKENS = 32_768
"""Where calls state no bound, one that answers at more length than this becomes debt."""
LEARNT_FROM_CALLS = 20
"""After so many calls it is known of a model how long its answers are."""
TIMES_LEARNT, LEAST_LEARNT_OUTPUT_TOKENS = 2, 256
"""A bound that a call states is mostly far from what it needs. Of a model that is known, an answer reserves at most so
many times the length that few exceed, but never less than that many tokens for a bound that is larger."""

ATTACHMENT_BYTES = 6_000
"""What an image or sound counts for, about 1,500 tokens: what it costs has little to do with its size."""
_SCAN_FROM_BYTES = 16 * 1024
_ATTACHMENTS = (b";base64,", b'"data"')
"""Data URLs of images and files; and the member of `input_audio`, which holds base64 alone."""
_MOST_ATTACHMENTS = 1_000
"""More of them count as text, so that no body keeps the loop busy."""
_BASE64 = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/=_-"
_IS_OTHER = bytes(byte not in _BASE64 + b"\\" for byte in range(256))
"""By byte: 1 where it ends base64 inside a JSON string. A backslash may belong to it, as below."""
_ESCAPED = (b"\\/", b"\\n", b"\\r")
"""How JSON may write a slash, and the ends of lines of base64."""
_FIRST_BLOCK, _LARGEST_BLOCK = 1024, 64 * 1024
_PROBE_BYTES = 1024
_VALUE = re.compile(rb'[ \t\n\r]*+:[ \t\n\r]*+"')

_MEMORY = 1 / 32
"""Share of the newest call in the mean of tokens a byte."""
_TEACHES_FULLY_BYTES = 4096
"""A smaller prompt is half JSON, and says less of what a large one will come to."""
_LEAST, _MOST = 1 / 32, 2.0
"""Bounds of tokens a byte that one call can teach: a stored conversation is no part of the bytes that refer to it."""

_QUANTILE = 0.95
_STEP, _FIRST_STEPS = 0.1, 8.0
"""By how much the quantile of the output moves at most, as a share of itself; the first eight calls ten times that."""
_STEADY_FROM = _FIRST_STEPS / _STEP
"""After so many calls the steps no longer become smaller."""


class Model:
    """What a model lately did for a team: its tokens a byte of prompt, and a length that few of its answers exceed."""

    __slots__ = ("calls", "cost_microusd", "output_tokens", "paid", "tokens_per_byte")

    def __init__(self) -> None:
        self.calls = 0
        """That it learnt from."""
        self.tokens_per_byte = 1 / BYTES_PER_TOKEN
        self.output_tokens = float(FIRST_OUTPUT_TOKENS)
        self.paid = 0
        """Calls whose cost it learnt."""
        self.cost_microusd = 0.0
        """What few of its answers cost more than, where tokens do not tell."""

    def most_output_tokens(self, max_tokens: int) -> int:
        """What an answer reserves that is bound to `max_tokens`."""
        if self.calls < LEARNT_FROM_CALLS:
            return max_tokens
        likely = int(TIMES_LEARNT * self.output_tokens) + 1
        if likely >= max_tokens:
            return max_tokens
        return min(max_tokens, LEAST_LEARNT_OUTPUT_TOKENS) if likely < LEAST_LEARNT_OUTPUT_TOKENS else likely

    def learn(self, prompt_bytes: int, usage: Usage, answers: int) -> None:
        """A call of `prompt_bytes` took what `usage` says, for so many answers."""
        self.calls = calls = self.calls + 1
        input_tokens = usage.input_tokens
        # What is seldom out of its bounds is compared before it is bounded: every call comes by here.
        if prompt_bytes > 0 and input_tokens > 0:
            seen, weight, known = input_tokens / prompt_bytes, _MEMORY, self.tokens_per_byte
            if not _LEAST <= seen <= _MOST:
                seen = min(max(seen, _LEAST), _MOST)
            if prompt_bytes < _TEACHES_FULLY_BYTES:
                weight *= prompt_bytes / _TEACHES_FULLY_BYTES
            self.tokens_per_byte = known + weight * (seen - known)
        moved = _moved(self.output_tokens, usage.output_tokens / answers, calls)
        if not 1.0 <= moved <= MAX_LEARNT_OUTPUT_TOKENS:
            moved = min(max(moved, 1.0), MAX_LEARNT_OUTPUT_TOKENS)
        self.output_tokens = moved

    def learn_cost(self, cost_microusd: int, answers: int) -> None:
        """A call with so many answers has cost that."""
        self.paid += 1
        each = cost_microusd / answers
        moved = each if self.paid == 1 else _moved(self.cost_microusd, each, self.paid)
        # Up no further than to what was seen: where all cost the same, that is what the next one reserves.
        self.cost_microusd = min(moved, each) if each > self.cost_microusd else moved


def _moved(level: float, seen: float, calls: int) -> float:
    """A quantile after one more of `calls`: up as often times as far as down where one in twenty is above it."""
    step = _STEP if calls >= _STEADY_FROM else min(1.0, _FIRST_STEPS / calls)
    return level * (1 + step * _QUANTILE if seen > level else 1 - step * (1 - _QUANTILE))


_UNSEEN = Model()


class Estimator:
    """Estimates by team and model: what one team's calls teach, no other team's are estimated by.

    Of the models that it has learnt of, the `max_models` used last are kept, each counted once a team.
    """

    def __init__(self, *, max_models: int = 4096) -> None:
        self._max_models = max_models
        self._models: dict[tuple[str, str], Model] = {}

    def __len__(self) -> int:
        return len(self._models)

    def estimate(
        self, team_id: str, model: str, prompt_bytes: int, max_tokens: int | None, answers: int = 1
    ) -> tuple[int, int]:
        """Tokens of input and of output that a call should reserve.

        `prompt_bytes` is what `prompt_bytes` below says of the body. `max_tokens` is the bound that the call states for
        each of its `answers`; 0 where the route has no output, None where nothing is stated.
        """
        known = self._models.get((team_id, model), _UNSEEN)
        input_tokens = int(prompt_bytes * known.tokens_per_byte) + 1
        output_tokens = int(known.output_tokens) + 1 if max_tokens is None else known.most_output_tokens(max_tokens)
        output_tokens *= answers
        if input_tokens > MAX_INPUT_TOKENS:  # noqa: PLR1730 - min() takes as long as all else
            input_tokens = MAX_INPUT_TOKENS
        if not 0 <= output_tokens <= MAX_OUTPUT_TOKENS:
            output_tokens = max(0, min(output_tokens, MAX_OUTPUT_TOKENS))
        return input_tokens, output_tokens

    def cost_microusd(self, team_id: str, model: str, answers: int) -> int:
        """What so many answers should reserve by what such have cost; 0 where that is not known."""
        return int(self._models.get((team_id, model), _UNSEEN).cost_microusd * answers)

    def learn(self, team_id: str, model: str, prompt_bytes: int, usage: Usage, answers: int = 1) -> None:
        """A call took what `usage` says, which upstream has reported; never teach what was itself estimated."""
        self._used(team_id, model).learn(prompt_bytes, usage, answers)

    def learn_cost(self, team_id: str, model: str, cost_microusd: int, answers: int = 1) -> None:
        """A call has cost that, by what upstream has reported."""
        self._used(team_id, model).learn_cost(cost_microusd, answers)

    def _used(self, team_id: str, model: str) -> Model:
        """That model, from now on the one used last."""
        which = team_id, model
        known = self._models.pop(which, None)
        if known is not None:
            self._models[which] = known
            return known
        known = self._models[which] = Model()
        if len(self._models) > self._max_models:
            del self._models[next(iter(self._models))]
        return known


def prompt_bytes(body: bytes) -> int:
    """How many bytes of a JSON body are text, with `ATTACHMENT_BYTES` at most for each image or sound in it."""
    if len(body) < _SCAN_FROM_BYTES or not _may_hold_attachment(body):
        return len(body)
    payloads = islice((length for mark in _ATTACHMENTS for length in _payloads(body, mark)), _MOST_ATTACHMENTS)
    return len(body) - sum(max(0, length - ATTACHMENT_BYTES) for length in payloads)


def _may_hold_attachment(body: bytes) -> bool:
    """Whether base64 of over `ATTACHMENT_BYTES` may be in there: some places, of which it covers one, are looked at."""
    return any(
        body.find(b" ", at, at + _PROBE_BYTES) < 0 and 1 not in body[at : at + _PROBE_BYTES].translate(_IS_OTHER)
        for at in range(0, len(body) - _PROBE_BYTES + 1, ATTACHMENT_BYTES - _PROBE_BYTES)
    )


def _payloads(body: bytes, mark: bytes) -> Iterator[int]:
    """Lengths of the base64 that begins at `mark`, or at the value that it is the name of."""
    begin = 0
    while (begin := body.find(mark, begin)) >= 0:
        begin += len(mark)
        if mark.endswith(b'"'):
            value = _VALUE.match(body, begin)
            begin = begin if value is None else value.end()
        end = _end_of_base64(body, begin)
        yield end - begin
        begin = end


def _end_of_base64(body: bytes, begin: int) -> int:
    """Where the base64 that begins there ends: at the first byte of any other alphabet, such as the closing quote."""
    end, block, other = begin, _FIRST_BLOCK, -1
    while other < 0 and end < len(body):
        other = body[end : end + block].translate(_IS_OTHER).find(1)
        end = min(end + block, len(body)) if other < 0 else end + other
        block = min(2 * block, _LARGEST_BLOCK)
    backslash = body.find(b"\\", begin, end)
    if backslash >= 0 and body.count(b"\\", begin, end) != sum(body.count(each, begin, end) for each in _ESCAPED):
        return backslash
    return end
