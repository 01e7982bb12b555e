"""What a call costs: exact, no token counted twice, rounded up once."""

from datetime import date
from fractions import Fraction

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.call import Usage
from gateway.metering.cost import cost_microusd, estimated_microusd, is_priced, output_microusd
from gateway.metering.prices import Price, Rates, Tier

INPUT_KINDS = ("cached_tokens", "cache_write_tokens", "audio_input_tokens", "image_input_tokens")
OUTPUT_KINDS = ("reasoning_tokens", "audio_output_tokens", "image_output_tokens")
NAMES = {"cached_tokens": "cached", "cache_write_tokens": "cache_write", "audio_input_tokens": "audio_input"} | {
    "reasoning_tokens": "reasoning",
    "audio_output_tokens": "audio_output",
    "image_input_tokens": "image_input",
    "image_output_tokens": "image_output",
}

amounts = st.integers(0, 10**12)
tokens = st.integers(0, 2**53)
rates = st.builds(Rates, *[amounts] * 9)
prices = st.builds(Price, rates, st.just(date(2026, 11, 22)))
anything = st.builds(Usage, tokens, tokens, tokens, **dict.fromkeys((*INPUT_KINDS, *OUTPUT_KINDS), tokens))
"""Also such as upstream should never report: parts that are more than the whole."""


@given(prices, anything)
def test_what_is_not_for_output_is_for_input(price: Price, usage: Usage) -> None:
    no_output = msgspec.structs.replace(usage, output_tokens=0)
    for_input = cost_microusd(price, usage) - output_microusd(price, usage)
    assert 0 <= for_input - cost_microusd(price, no_output) <= 1, "but for a part of a micro-dollar, which is input's"
    assert output_microusd(price, no_output) == 0


@st.composite
def consistent(draw: st.DrawFn) -> Usage:
    """Kinds that make up no more than their totals."""
    parts = {kind: draw(tokens) for kind in (*INPUT_KINDS, *OUTPUT_KINDS)}
    total_input = sum(parts[kind] for kind in INPUT_KINDS) + draw(tokens)
    total_output = sum(parts[kind] for kind in OUTPUT_KINDS) + draw(tokens)
    return Usage(total_input, total_output, total_input + total_output, **parts)


def flat(amount: int) -> Price:
    return Price(Rates(*[amount] * 9), date(2026, 11, 22))


def kinds_of(usage: Usage) -> dict[str, int]:
    """Tokens by the name of their price, each token once."""
    found = {NAMES[kind]: getattr(usage, kind) for kind in (*INPUT_KINDS, *OUTPUT_KINDS)}
    found["input"] = usage.input_tokens - sum(getattr(usage, kind) for kind in INPUT_KINDS)
    found["output"] = usage.output_tokens - sum(getattr(usage, kind) for kind in OUTPUT_KINDS)
    return found


def added(one: Usage, other: Usage) -> Usage:
    return Usage(**{name: getattr(one, name) + getattr(other, name) for name in Usage.__struct_fields__})


def test_a_call_by_hand() -> None:
    price = Price(
        Rates(
            input=1_750_000,
            output=14_000_000,
            cached=175_000,
            cache_write=2_000_000,
            reasoning=14_000_000,
            audio_input=40_000_000,
            audio_output=80_000_000,
            image_input=2_000_000,
            image_output=40_000_000,
        ),
        date(2026, 11, 22),
    )
    usage = Usage(
        1_000, 500, 1_500, cached_tokens=600, reasoning_tokens=300, audio_input_tokens=10, cache_write_tokens=100
    )
    assert cost_microusd(price, usage) == -(
        -(290 * 1_750 + 600 * 175 + 100 * 2_000 + 10 * 40_000 + 500 * 14_000) // 1000
    )


@given(prices, consistent())
def test_it_is_the_exact_sum_over_kinds_rounded_up_once(price: Price, usage: Usage) -> None:
    exact = sum(Fraction(count * getattr(price.rates, kind), 1_000_000) for kind, count in kinds_of(usage).items())
    assert exact <= cost_microusd(price, usage) < exact + 1


@given(amounts, anything)
def test_no_token_is_counted_twice_whatever_upstream_reports(amount: int, usage: Usage) -> None:
    total = usage.input_tokens + usage.output_tokens
    assert cost_microusd(flat(amount), usage) == -(-total * amount // 1_000_000)


@given(prices, consistent(), st.sampled_from([*INPUT_KINDS, *OUTPUT_KINDS, "input", "output"]), tokens)
def test_more_tokens_of_a_kind_never_cost_less(price: Price, usage: Usage, kind: str, more: int) -> None:
    total = "input_tokens" if kind == "input" or kind in INPUT_KINDS else "output_tokens"
    grown = msgspec.structs.replace(usage, **{total: getattr(usage, total) + more})
    if kind in NAMES:
        grown = msgspec.structs.replace(grown, **{kind: getattr(grown, kind) + more})
    assert cost_microusd(price, grown) >= cost_microusd(price, usage)


@given(prices, consistent(), consistent())
def test_two_calls_cost_what_both_together_cost_but_for_the_rounding(price: Price, one: Usage, other: Usage) -> None:
    apart = cost_microusd(price, one) + cost_microusd(price, other)
    assert apart - 1 <= cost_microusd(price, added(one, other)) <= apart


@given(anything)
def test_what_costs_nothing_is_free_and_anything_else_is_not(usage: Usage) -> None:
    assert cost_microusd(flat(0), usage) == 0
    assert (cost_microusd(flat(1), usage) > 0) == (usage.input_tokens + usage.output_tokens > 0)


@pytest.mark.parametrize(("input_tokens", "cost"), [(200, 201), (201, 402 + 2)])
def test_a_tier_is_for_the_whole_call(input_tokens: int, cost: int) -> None:
    price = Price(Rates(*[1_000_000] * 9), date(2026, 11, 22), tiers=(Tier(200, Rates(*[2_000_000] * 9)),))
    usage = Usage(input_tokens, 1, input_tokens + 1, cached_tokens=150)
    assert cost_microusd(price, usage) == cost
    assert estimated_microusd(price, input_tokens, 1) == cost


@given(prices, consistent())
def test_an_estimate_of_what_was_used_is_enough_where_no_kind_is_dearer_than_plain(price: Price, usage: Usage) -> None:
    dear = {"input": 10**12, "output": 10**12}
    costly = msgspec.structs.replace(price, rates=msgspec.structs.replace(price.rates, **dear))
    assert estimated_microusd(costly, usage.input_tokens, usage.output_tokens) >= cost_microusd(costly, usage)


def test_an_estimate_counts_the_answer_as_reasoning_where_that_is_dearer() -> None:
    price = Price(
        Rates(1_000_000, 1_000_000, 0, 0, 3_000_000, 0, 0, 0, 0),
        date(2026, 11, 22),
    )
    assert estimated_microusd(price, 10, 10) == 40


@pytest.mark.parametrize(("audio_ms", "cost"), [(60_000, 6_000), (1, 1), (10, 1), (11, 2), (0, 0)])
def test_sound_that_is_told_by_its_length_costs_by_the_second(audio_ms: int, cost: int) -> None:
    price = Price(Rates(0, 0, 0, 0, 0, 0, 0, 0, 0, audio_seconds=100_000_000), date(2026, 11, 22))
    assert cost_microusd(price, Usage(0, 0, 0, audio_ms=audio_ms)) == cost


@pytest.mark.parametrize(("token", "cost"), [(1_000_000, 2), (0, 6_000)])
def test_sound_is_paid_for_by_the_second_only_where_its_tokens_cost_nothing(token: int, cost: int) -> None:
    price = msgspec.structs.replace(
        flat(token), rates=msgspec.structs.replace(flat(token).rates, audio_seconds=100_000_000)
    )
    assert cost_microusd(price, Usage(1, 1, 2, audio_ms=60_000)) == cost


def test_sound_that_is_told_by_its_length_is_unpriced_where_seconds_have_no_price() -> None:
    by_time, both = Usage(0, 0, 0, audio_ms=1000), Usage(1, 1, 2, audio_ms=1000)
    assert not is_priced(flat(1), by_time)
    assert is_priced(flat(1), both)
    assert is_priced(Price(Rates(0, 0, 0, 0, 0, 0, 0, 0, 0, audio_seconds=0), date(2026, 11, 22)), by_time)
