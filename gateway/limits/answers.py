"""What a client is told of its limits: the headers of every metered reply, and the refusals.

Pure. Knows OpenAI's header names and the durations in them (Go's: `12ms`, `1s`, `6m0s`), and that clients read the end
of a refusal's message: `Please try again in 6.57s.` Of several limits the tightest is told.
"""

from collections.abc import Iterable
from datetime import UTC, datetime

from gateway.errors import BudgetSpent, GatewayError, RateLimited
from gateway.limits.rules import Decision, Dimension, Rule, Standing

RawHeaders = list[tuple[bytes, bytes]]

_MOST_RETRY_AFTER_S = 60
"""Clients take a longer time for a mistake, and choose one of their own."""
_LEAST_PARALLEL_US = 1_000_000
"""Nobody knows when a slot becomes free; sooner than that it is hardly worth asking."""
_TOLD: dict[Dimension, tuple[bytes, bytes, bytes]] = {
    "requests": (b"x-ratelimit-limit-requests", b"x-ratelimit-remaining-requests", b"x-ratelimit-reset-requests"),
    "tokens": (b"x-ratelimit-limit-tokens", b"x-ratelimit-remaining-tokens", b"x-ratelimit-reset-tokens"),
}


def limit_headers(standings: Iterable[Standing]) -> RawHeaders:
    """`x-ratelimit-{limit,remaining,reset}-{requests,tokens}` of the tightest limits among `standings`."""
    headers: RawHeaders = []
    tightest: dict[Dimension, Standing] = {}
    for standing in standings:
        rule = standing.rule
        if rule.dimension in _TOLD and not rule.shadow:
            other = tightest.get(rule.dimension)
            if other is None or (standing.remaining, -standing.reset_us) < (other.remaining, -other.reset_us):
                tightest[rule.dimension] = standing
    for dimension, standing in tightest.items():
        limit, remaining, reset = _TOLD[dimension]
        headers += (
            (limit, b"%d" % standing.rule.limit),
            (remaining, b"%d" % standing.remaining),
            (reset, duration(standing.reset_us)),
        )
    return headers


def refusal(decision: Decision) -> GatewayError:
    """The error for a decision that is a refusal."""
    rule = decision.binding
    if rule is None:
        raise ValueError("the call was admitted")
    told = limit_headers(decision.standings)
    if rule.dimension == "budget":
        return BudgetSpent(_budget_message(rule), headers=told, detail=rule.id)
    wait_us = decision.retry_after_us
    if rule.dimension == "parallel":
        wait_us = max(wait_us, _LEAST_PARALLEL_US)
    return RateLimited(
        f"Rate limit reached: {_described(rule)}. Please try again in {seconds(wait_us)}s.",
        type_="tokens" if rule.dimension == "tokens" else "requests",
        headers=(*retry_headers(wait_us), *told),
        detail=rule.id,
    )


def retry_headers(wait_us: int) -> RawHeaders:
    """`retry-after` in whole seconds, 1 to 60, and `retry-after-ms`; both rounded up."""
    whole_s = min(max(-(-wait_us // 1_000_000), 1), _MOST_RETRY_AFTER_S)
    return [(b"retry-after", b"%d" % whole_s), (b"retry-after-ms", b"%d" % -(-wait_us // 1000))]


def seconds(time_us: int) -> str:
    """`6.57`: seconds to the hundredth, rounded up."""
    hundredths = -(-time_us // 10_000)
    whole, part = divmod(hundredths, 100)
    return f"{whole}.{part:02d}".rstrip("0").rstrip(".")


def duration(time_us: int) -> bytes:
    """`time_us` as Go prints durations, rounded up to milliseconds: `0s`, `12ms`, `1.5s`, `6m0s`, `1h0m0s`."""
    total_ms = -(-time_us // 1000)
    if 0 < total_ms < 1000:
        return b"%dms" % total_ms
    minutes, rest_ms = divmod(total_ms, 60_000)
    whole_s, ms = divmod(rest_ms, 1000)
    text = b"%ds" % whole_s if not ms else (b"%d.%03d" % (whole_s, ms)).rstrip(b"0") + b"s"
    if not minutes:
        return text
    hours, minutes = divmod(minutes, 60)
    return b"%dh%dm%b" % (hours, minutes, text) if hours else b"%dm%b" % (minutes, text)


def _described(rule: Rule) -> str:
    whose = {"key": "this key", "team": "its team", "model": "its team for this model", "endpoint": "all keys together"}
    if rule.dimension == "parallel":
        return f"{whose[rule.whose]} may have {rule.limit} calls in flight at once"
    return f"{whose[rule.whose]} may use {rule.limit} {rule.dimension} a {rule.period}"


def _budget_message(rule: Rule) -> str:
    whose = "team's" if rule.whose == "team" else "key's"
    spent = f"This {whose} budget of ${rule.limit / 1_000_000:.2f}"
    if rule.resets_at_s is None:
        return f"{spent} is spent. Ask whoever runs this gateway to raise it."
    resets_at = datetime.fromtimestamp(rule.resets_at_s, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    return f"{spent} a {rule.period} is spent. It starts anew at {resets_at}; ask whoever runs this gateway for more."
