"""What clients read of limits, to the byte."""

import pytest

from gateway.errors import BudgetSpent, RateLimited
from gateway.limits.answers import dollars, duration, limit_headers, refusal, retry_headers, seconds
from gateway.limits.rules import Charge, Decision, Demand, Rule, Standing

REQUESTS = Rule("t/k/requests/minute", "requests", "key", "minute", 60, 60)
TEAM_REQUESTS = Rule("t/requests/hour", "requests", "team", "hour", 1000, 1000)
TOKENS = Rule("t/k/tokens/minute", "tokens", "key", "minute", 30_000, 30_000)
PARALLEL = Rule("t/parallel", "parallel", "team", None, 4)
BUDGET = Rule("t/k/budget/day/2026-11-22", "budget", "key", "day", 5_000_000, resets_at_s=1_795_392_000)
TOTAL = Rule("t/budget/total", "budget", "team", "total", 1_000_000)
TINY = Rule("t/k/budget/month/2026-11", "budget", "key", "month", 2_100, resets_at_s=1_796_083_200)


@pytest.mark.parametrize(
    ("time_us", "text"),
    [
        (0, b"0s"),
        (1, b"1ms"),
        (12_000, b"12ms"),
        (999_001, b"1s"),
        (1_500_000, b"1.5s"),
        (8_640_000, b"8.64s"),
        (60_000_000, b"1m0s"),
        (360_000_000, b"6m0s"),
        (61_001_000, b"1m1.001s"),
        (3_600_000_000, b"1h0m0s"),
        (86_400_000_000, b"24h0m0s"),
    ],
)
def test_durations_are_gos(time_us: int, text: bytes) -> None:
    assert duration(time_us) == text


@pytest.mark.parametrize(("time_us", "text"), [(6_570_000, "6.57"), (6_561_000, "6.57"), (1, "0.01"), (2_000_000, "2")])
def test_seconds_are_rounded_up(time_us: int, text: str) -> None:
    assert seconds(time_us) == text


@pytest.mark.parametrize(
    ("wait_us", "whole_s", "ms"), [(1, b"1", b"1"), (1_000_001, b"2", b"1001"), (3_600_000_000, b"60", b"3600000")]
)
def test_retry_after_is_at_least_one_second_and_at_most_sixty(wait_us: int, whole_s: bytes, ms: bytes) -> None:
    assert retry_headers(wait_us) == [(b"retry-after", whole_s), (b"retry-after-ms", ms)]


def test_the_tightest_limit_of_each_dimension_is_told() -> None:
    standings = (
        Standing(TEAM_REQUESTS, 900, 360_000_000),
        Standing(REQUESTS, 59, 1_000_000),
        Standing(TOKENS, 29_000, 2_000_000),
        Standing(PARALLEL, 0, 0),
    )
    assert dict(limit_headers(standings)) == {
        b"x-ratelimit-limit-requests": b"60",
        b"x-ratelimit-remaining-requests": b"59",
        b"x-ratelimit-reset-requests": b"1s",
        b"x-ratelimit-limit-tokens": b"30000",
        b"x-ratelimit-remaining-tokens": b"29000",
        b"x-ratelimit-reset-tokens": b"2s",
    }


def test_a_limit_in_shadow_is_not_told() -> None:
    shadow = Rule("t/k/requests/minute", "requests", "key", "minute", 1, 1, shadow=True)
    assert limit_headers((Standing(shadow, 0, 1),)) == []


def test_a_refusal_says_which_limit_and_ends_with_when_to_try_again() -> None:
    error = refusal(Decision(admitted=False, standings=(), binding=TOKENS, retry_after_us=6_570_000))
    assert isinstance(error, RateLimited)
    assert (error.status, error.type, error.code) == (429, "tokens", "rate_limit_exceeded")
    assert error.message == ("Rate limit reached: this key may use 30000 tokens a minute. Please try again in 6.57s.")
    assert dict(error.headers) == {b"retry-after": b"7", b"retry-after-ms": b"6570"}


def test_a_refusal_for_parallel_calls_is_one_of_requests() -> None:
    error = refusal(Decision(admitted=False, standings=(), binding=PARALLEL))
    assert (error.type, error.code) == ("requests", "rate_limit_exceeded")
    assert error.message.endswith("this key's team may have 4 calls in flight at once. Please try again in 1s.")


def test_a_budget_that_is_spent_is_not_worth_a_retry_and_says_when_it_starts_anew() -> None:
    error = refusal(Decision(admitted=False, standings=(), binding=BUDGET, retry_after_us=1))
    assert isinstance(error, BudgetSpent)
    assert (error.status, error.type, error.code) == (429, "insufficient_quota", "insufficient_quota")
    assert dict(error.headers)[b"x-should-retry"] == b"false"
    assert b"retry-after" not in dict(error.headers)
    assert error.message == (
        "This key's budget of $5.00 a day is spent, calls under way included. "
        "It starts anew at 2026-11-23T00:00:00Z; ask whoever runs this gateway for more."
    )
    assert refusal(Decision(admitted=False, standings=(), binding=TOTAL)).message == (
        "This team's budget of $1.00 is spent, calls under way included. Ask whoever runs this gateway for more."
    )


def asking(rule: Rule, microusd: int) -> Demand:
    return Demand("c", "t", (Charge(TEAM_REQUESTS, 1), Charge(rule, microusd)))


def test_a_call_that_is_too_large_for_what_is_left_of_a_budget_is_told_both_amounts() -> None:
    decision = Decision(admitted=False, standings=(Standing(BUDGET, 12_504_999, 1),), binding=BUDGET, retry_after_us=1)
    error = refusal(decision, asking(BUDGET, 12_505_001))
    assert error.message == (
        "$12.50 is left of this key's budget of $5.00 a day, calls under way included, and this call was estimated to"
        " need up to $12.51. Fewer answers (n) or shorter ones (max_tokens, max_output_tokens) make that less. "
        "It starts anew at 2026-11-23T00:00:00Z; ask whoever runs this gateway for more."
    )
    assert (error.type, error.code) == ("insufficient_quota", "insufficient_quota")
    assert dict(error.headers)[b"x-should-retry"] == b"false"


def test_small_amounts_are_told_to_where_they_differ() -> None:
    decision = Decision(admitted=False, standings=(Standing(TINY, 1_999, 1),), binding=TINY, retry_after_us=1)
    told = refusal(decision, asking(TINY, 2_001)).message
    assert told.startswith("$0.0019 is left of this key's budget of $0.0021 a month")
    assert "up to $0.0021. " in told


def test_what_is_left_in_all_is_told_without_a_day_on_which_it_starts_anew() -> None:
    decision = Decision(admitted=False, standings=(Standing(TOTAL, 1, 0),), binding=TOTAL)
    assert refusal(decision, asking(TOTAL, 2)).message.endswith("less. Ask whoever runs this gateway for more.")


def test_a_call_of_unknown_cost_is_told_that_the_budget_is_spent() -> None:
    decision = Decision(admitted=False, standings=(Standing(TOTAL, 0, 0),), binding=TOTAL)
    assert "is spent, calls under way included" in refusal(decision, asking(TOTAL, 0)).message


@pytest.mark.parametrize(
    ("microusd", "text"),
    [
        (0, "$0.00"),
        (1, "$0.000001"),
        (2_100, "$0.0021"),
        (10_000, "$0.01"),
        (500_000, "$0.50"),
        (12_500_000, "$12.50"),
        (1_234_567_890, "$1,234.56789"),
    ],
)
def test_dollars_are_exact_and_have_two_decimals_at_least(microusd: int, text: str) -> None:
    assert dollars(microusd) == text


@pytest.mark.parametrize(
    ("rule", "said"),
    [
        (Rule("k/requests/minute", "requests", "key", "minute", 1, 1), "this key may use 1 request a minute"),
        (Rule("k/tokens/day", "tokens", "key", "day", 1, 1), "this key may use 1 token a day"),
        (Rule("k/parallel", "parallel", "key", None, 1), "this key may have 1 call in flight at once"),
    ],
)
def test_one_of_something_is_told_in_the_singular(rule: Rule, said: str) -> None:
    assert f" {said}. " in refusal(Decision(admitted=False, standings=(), binding=rule, retry_after_us=1)).message
