"""The arithmetic of rates, against exact fractions."""

import math
from fractions import Fraction
from itertools import accumulate

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.limits import gcra
from gateway.limits.rules import PERIOD_S, Dimension, Period, Rule
from tests.limits.oracle import worst_excess

NOW_US = 1_795_000_000_000_000
LIMITS = st.integers(1, 10**5) | st.integers(1, 10**11)


@st.composite
def rates(draw: st.DrawFn) -> Rule:
    dimension: Dimension = draw(st.sampled_from(("requests", "tokens")))
    period: Period = draw(st.sampled_from(("minute", "hour", "day")))
    limit = draw(LIMITS)
    return Rule("rate", dimension, "key", period, limit, draw(st.just(limit) | st.integers(1, 2 * limit)))


def time_us(rule: Rule, units: int) -> Fraction:
    """In which a rate gains so many units, exactly."""
    assert rule.period is not None
    return Fraction(units * PERIOD_S[rule.period] * 1_000_000, rule.limit)


@given(rates(), st.integers(0, 10**12))
def test_a_charge_is_rounded_up_by_less_than_a_microsecond_a_request(rule: Rule, amount: int) -> None:
    roundings = amount if rule.dimension == "requests" else 1
    over_us = gcra.increment_us(rule, amount) - time_us(rule, amount)
    assert 0 <= over_us < max(roundings, 1)


@given(rates())
def test_a_full_bucket_holds_its_burst_and_no_more(rule: Rule) -> None:
    held = gcra.remaining(rule, NOW_US, NOW_US)
    assert held == rule.burst
    assert gcra.wait_us(NOW_US, gcra.increment_us(rule, held), gcra.capacity_us(rule), NOW_US) == 0


@given(rates())
def test_a_burst_of_requests_is_never_one_short(rule: Rule) -> None:
    if rule.dimension == "requests":
        before_last_us = gcra.charged(NOW_US, gcra.increment_us(rule, rule.burst - 1), NOW_US)
        one_us = gcra.increment_us(rule, 1)
        assert gcra.wait_us(before_last_us, one_us, gcra.capacity_us(rule), NOW_US) == 0
        full_us = gcra.charged(before_last_us, one_us, NOW_US)
        assert gcra.wait_us(full_us, one_us, gcra.capacity_us(rule), NOW_US) == one_us


@given(rates(), st.integers(0, 10**9), st.integers(1, 10**12))
def test_an_empty_bucket_admits_whatever_comes_first(rule: Rule, idle_us: int, amount: int) -> None:
    amount_us = gcra.increment_us(rule, amount)
    assert gcra.wait_us(NOW_US - idle_us, amount_us, gcra.capacity_us(rule), NOW_US) == 0


def test_a_bucket_is_rounded_down_since_many_small_charges_would_find_the_room() -> None:
    rule = Rule("rate", "tokens", "key", "minute", 10**10, burst=167)
    one_us = gcra.increment_us(rule, 166)
    assert gcra.wait_us(gcra.charged(NOW_US, one_us, NOW_US), one_us, gcra.capacity_us(rule), NOW_US) > 0


def test_a_burst_of_nothing_in_particular_is_the_limit() -> None:
    rule = Rule("rate", "tokens", "key", "minute", 600)
    assert gcra.capacity_us(rule) == 60_000_000


@given(rates(), st.integers(-(10**9), 10**9), st.integers(1, 10**6))
def test_what_is_said_to_remain_fits_and_a_unit_more_does_not(rule: Rule, ahead_us: int, spare: int) -> None:
    tat_us, depth_us = NOW_US + ahead_us, gcra.capacity_us(rule)
    remaining = gcra.remaining(rule, tat_us, NOW_US)
    if ahead_us > 0:
        more_us = gcra.increment_us(rule, remaining + spare)
        assert gcra.wait_us(tat_us, more_us, depth_us, NOW_US) > 0
    if remaining:
        assert gcra.wait_us(tat_us, gcra.increment_us(rule, remaining), depth_us, NOW_US) == 0


@given(rates(), st.integers(0, 10**12), st.integers(1, 10**9))
def test_after_the_wait_it_fits_and_a_microsecond_before_it_does_not(rule: Rule, ahead_us: int, amount: int) -> None:
    tat_us, amount_us, depth_us = NOW_US + ahead_us, gcra.increment_us(rule, amount), gcra.capacity_us(rule)
    wait_us = gcra.wait_us(tat_us, amount_us, depth_us, NOW_US)
    assert gcra.wait_us(tat_us, amount_us, depth_us, NOW_US + wait_us) == 0
    if wait_us:
        assert gcra.wait_us(tat_us, amount_us, depth_us, NOW_US + wait_us - 1) == 1


@given(st.integers(0, 10**9), st.integers(0, 10**9), st.integers(0, 10**9), st.integers(0, 10**9))
def test_given_back_is_what_has_not_drained_and_no_more_than_was_too_much(
    over_us: int, backlog_us: int, given_before_us: int, given_since_us: int
) -> None:
    mark_us, given_us = NOW_US + backlog_us + given_before_us, given_before_us + given_since_us
    back_us = gcra.given_back(over_us, mark_us, given_us, NOW_US)
    assert back_us == max(min(over_us, backlog_us - given_since_us), 0)


@given(rates(), st.lists(st.tuples(st.integers(0, 10**7), st.floats(0.001, 1.5)), min_size=1, max_size=60))
def test_no_interval_exceeds_the_promise_whatever_comes(rule: Rule, calls: list[tuple[int, float]]) -> None:
    admitted, tat_us, depth_us = [], 0, gcra.capacity_us(rule)
    for now_us, (_, share) in zip(accumulate(gap_us for gap_us, _ in calls), calls, strict=True):
        amount = 1 if rule.dimension == "requests" else max(math.floor(rule.burst * share), 1)
        amount_us = gcra.increment_us(rule, amount)
        if not gcra.wait_us(tat_us, amount_us, depth_us, now_us):
            tat_us = gcra.charged(tat_us, amount_us, now_us)
            admitted.append((now_us, amount))
    assert worst_excess(rule, admitted) <= 0


@given(rates(), st.lists(st.integers(0, 10**7), min_size=1, max_size=60))
def test_what_exact_fractions_admit_is_admitted_but_for_roundings(rule: Rule, gaps_us: list[int]) -> None:
    """A bucket of fractions that holds a few microseconds less never admits what is refused."""
    tat_us, exact_us = 0, Fraction(0)
    depth_us, amount = gcra.capacity_us(rule), 1 if rule.dimension == "requests" else max(rule.burst // 7, 1)
    amount_us, slack_us = gcra.increment_us(rule, amount), len(gaps_us) + 1
    for now_us in accumulate(gaps_us):
        is_admitted = not gcra.wait_us(tat_us, amount_us, depth_us, now_us)
        backlog_us = max(exact_us - now_us, Fraction(0))
        if backlog_us + time_us(rule, amount) <= time_us(rule, rule.burst) - slack_us:
            assert is_admitted
        if is_admitted:
            tat_us = gcra.charged(tat_us, amount_us, now_us)
            exact_us = now_us + backlog_us + time_us(rule, amount)


def test_what_is_no_rate_has_no_pace() -> None:
    with pytest.raises(ValueError, match="is not a rate"):
        gcra.pace(Rule("t/budget/month/2026-11", "budget", "team", "month", 5))


def test_the_measure_of_intervals_finds_a_violation_wherever_it_is() -> None:
    rule = Rule("rate", "requests", "key", "minute", 60, 2)
    evenly = [(second * 1_000_000, 1) for second in range(20)]
    assert worst_excess(rule, evenly) <= 0
    assert worst_excess(rule, sorted([*evenly, (9_500_000, 1)])) == 0
    assert worst_excess(rule, sorted([*evenly, (9_500_000, 1), (9_600_000, 1)])) > 0
