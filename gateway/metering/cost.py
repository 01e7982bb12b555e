"""What a call costs: tokens by kind times the price of each kind, in integers.

Pure: knows what the kinds of tokens contain of each other. Which price a model has is `gateway.metering.prices`'s
business.
"""

from gateway.call import Usage
from gateway.metering.prices import Price, Rates

_MILLION = 1_000_000


def cost_microusd(price: Price, usage: Usage) -> int:
    """Micro-dollars, exact and rounded up once.

    No token is counted twice: a kind takes what is left of its total (input: cached, written to the cache, audio,
    image, the rest; output: audio, image, reasoning, the rest), so that kinds which overlap, or add up to more than
    their total, cost no more tokens than were used.
    """
    rates = price.rates_for(usage.input_tokens)
    cost = _input(rates, usage) + _output(rates, usage)
    if usage.audio_ms and rates.audio_seconds and not cost:  # else the same sound would be paid for twice
        return -(-(usage.audio_ms * rates.audio_seconds) // (1000 * _MILLION))
    return -(-cost // _MILLION)


def output_microusd(price: Price, usage: Usage) -> int:
    """Of `cost_microusd`, what is for output, rounded down: the rest is for input, and for time of audio."""
    return _output(price.rates_for(usage.input_tokens), usage) // _MILLION


def _input(rates: Rates, usage: Usage) -> int:
    left = usage.input_tokens
    if not (
        usage.cached_tokens or usage.cache_write_tokens or usage.audio_input_tokens or usage.image_input_tokens
    ):  # as of most calls
        return left * rates.input
    left -= (cached := min(usage.cached_tokens, left))
    left -= (written := min(usage.cache_write_tokens, left))
    left -= (heard := min(usage.audio_input_tokens, left))
    left -= (seen := min(usage.image_input_tokens, left))
    cost = left * rates.input + cached * rates.cached + written * rates.cache_write
    return cost + heard * rates.audio_input + seen * rates.image_input


def _output(rates: Rates, usage: Usage) -> int:
    left = usage.output_tokens
    if not (usage.audio_output_tokens or usage.image_output_tokens or usage.reasoning_tokens):  # as of most calls
        return left * rates.output
    left -= (spoken := min(usage.audio_output_tokens, left))
    left -= (drawn := min(usage.image_output_tokens, left))
    left -= (thought := min(usage.reasoning_tokens, left))
    cost = left * rates.output + thought * rates.reasoning
    return cost + spoken * rates.audio_output + drawn * rates.image_output


def is_priced(price: Price, usage: Usage) -> bool:
    """Whether `price` says what such usage costs: tokens, or time for which the model has a price."""
    return not usage.audio_ms or bool(usage.total_tokens) or price.rates.audio_seconds is not None


def estimated_microusd(price: Price, input_tokens: int, output_tokens: int) -> int:
    """Micro-dollars of a call that is still to be made: all of it as plain input and output, or reasoning if dearer."""
    rates = price.rates_for(input_tokens)
    cost = input_tokens * rates.input + output_tokens * max(rates.output, rates.reasoning)
    return -(-cost // _MILLION)
