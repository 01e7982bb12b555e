"""What clients read of limits, to the byte."""

import pytest

from gateway.errors import BudgetSpent, RateLimited
from gateway.limits.answers import duration, limit_headers, refusal, retry_headers, seconds
from gateway.limits.rules import Decision, Rule, Standing

REQUESTS = Rule("t/k/requests/minute", "requests", "key", "minute", 60, 60)
TEAM_REQUESTS = Rule("t/requests/hour", "requests", "team", "hour", 1000, 1000)
TOKENS = Rule("t/k/tokens/minute", "tokens", "key", "minute", 30_000, 30_000)
PARALLEL = Rule("t/parallel", "parallel", "team", None, 4)
BUDGET = Rule("t/k/budget/day/2026-11-22", "budget", "key", "day", 5_000_000, resets_at_s=1_795_392_000)
TOTAL = Rule("t/budget/total", "budget", "team", "total", 1_000_000)


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
    assert error.message.endswith("its team may have 4 calls in flight at once. Please try again in 1s.")


def test_a_budget_that_is_spent_is_not_worth_a_retry_and_says_when_it_starts_anew() -> None:
    error = refusal(Decision(admitted=False, standings=(), binding=BUDGET, retry_after_us=1))
    assert isinstance(error, BudgetSpent)
    assert (error.status, error.type, error.code) == (429, "insufficient_quota", "insufficient_quota")
    assert dict(error.headers)[b"x-should-retry"] == b"false"
    assert b"retry-after" not in dict(error.headers)
    assert "$5.00 a day is spent. It starts anew at 2026-11-23T00:00:00Z" in error.message
    assert "team's budget of $1.00 is spent." in refusal(Decision(admitted=False, standings=(), binding=TOTAL)).message
