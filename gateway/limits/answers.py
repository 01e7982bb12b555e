"""What a client is told of its limits: the headers of every metered reply, and the refusals.

Pure. Knows OpenAI's header names and the durations in them (Go's: `12ms`, `1s`, `6m0s`), and that clients read the end
of a refusal's message: `Please try again in 6.57s.` Of several limits the tightest is told.
"""

from collections.abc import Sequence
from datetime import UTC, datetime
from decimal import ROUND_CEILING, ROUND_FLOOR, Decimal

from gateway.errors import BudgetSpent, GatewayError, RateLimited, StoreUnavailable
from gateway.limits.rules import Decision, Demand, Dimension, Rule, Rules, Standing

RawHeaders = list[tuple[bytes, bytes]]

_MOST_RETRY_AFTER_S = 60
"""Clients take a longer time for a mistake, and choose one of their own."""
_LEAST_PARALLEL_US = 1_000_000
"""Nobody knows when a slot becomes free; sooner than that it is hardly worth asking."""
_TOLD: dict[Dimension, tuple[bytes, bytes, bytes]] = {
    "requests": (b"x-ratelimit-limit-requests", b"x-ratelimit-remaining-requests", b"x-ratelimit-reset-requests"),
    "tokens": (b"x-ratelimit-limit-tokens", b"x-ratelimit-remaining-tokens", b"x-ratelimit-reset-tokens"),
}


def limit_headers(standings: Sequence[Standing], rules: Rules | None = None) -> RawHeaders:
    """`x-ratelimit-{limit,remaining,reset}-{requests,tokens}` of the tightest limits among `standings`.

    `rules`, where they are known, are those of the standings.
    """
    if rules is None or len(rules.all) != len(standings):
        rules = Rules([standing.rule for standing in standings])
    headers: RawHeaders = []
    for dimension, first, others in rules.told:
        tightest = standings[first]
        for number in others:
            standing = standings[number]
            if standing.remaining < tightest.remaining or (
                standing.remaining == tightest.remaining and standing.reset_us > tightest.reset_us
            ):
                tightest = standing
        limit, remaining, reset = _TOLD[dimension]
        headers += (
            (limit, b"%d" % tightest.rule.limit),
            (remaining, b"%d" % tightest.remaining),
            (reset, duration(tightest.reset_us)),
        )
    return headers


def refusal(decision: Decision, demand: Demand | None = None) -> GatewayError:
    """The error for a decision that is a refusal; with what was asked, it says how much that was of a budget."""
    rule = decision.binding
    if rule is None:
        raise ValueError("the call was admitted")
    told = limit_headers(decision.standings)
    if rule.dimension == "budget":
        return BudgetSpent(_budget_message(rule, decision, demand), headers=told, detail=rule.id)
    wait_us = decision.retry_after_us
    if rule.dimension == "parallel":
        wait_us = max(wait_us, _LEAST_PARALLEL_US)
    return RateLimited(
        f"Rate limit reached: {_described(rule)}. Please try again in {seconds(wait_us)}s.",
        type_="tokens" if rule.dimension == "tokens" else "requests",
        headers=(*retry_headers(wait_us), *told),
        detail=rule.id,
    )


def unavailable() -> StoreUnavailable:
    """To a call, where limits are closed while Redis is away."""
    return StoreUnavailable(
        "The gateway cannot check limits now. Please try again in a second.", detail="Redis is away"
    )


def unseen() -> StoreUnavailable:
    """To whoever wants to see limits or to reset them then."""
    return StoreUnavailable(
        "Redis is away, so limits can be neither seen nor reset. gmi-gateway doctor says why.", detail="Redis is away"
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


def dollars(microusd: int) -> str:
    """Micro-dollars as dollars, exactly: `$5.00`, `$0.0021`."""
    amount = Decimal(microusd) / 1_000_000
    return f"${amount:,.2f}" if amount == round(amount, 2) else f"${amount.normalize():,f}"


def _described(rule: Rule) -> str:
    whose = {
        "key": "this key",
        "team": "this key's team",
        "model": "this key's team with this model",
        "endpoint": "all keys together",
    }
    if rule.dimension == "parallel":
        return f"{whose[rule.whose]} may have {_counted(rule.limit, 'calls')} in flight at once"
    return f"{whose[rule.whose]} may use {_counted(rule.limit, rule.dimension)} a {rule.period}"


def _counted(number: int, things: str) -> str:
    return f"{number} {things.removesuffix('s') if number == 1 else things}"


def _budget_message(rule: Rule, decision: Decision, demand: Demand | None) -> str:
    budget = f"this {'team' if rule.whose == 'team' else 'key'}'s budget of {dollars(rule.limit)}"
    if rule.period != "total":
        budget += f" a {rule.period}"
    left = next((standing.remaining for standing in decision.standings if standing.rule.id == rule.id), 0)
    needed = 0 if demand is None else next((each.amount for each in demand.charges if each.rule.id == rule.id), 0)
    if left and needed:
        # Rounded apart, so that what is left never reads like enough.
        said = (
            f"{_rounded(left, ROUND_FLOOR)} is left of {budget}, calls under way included, and this call was estimated"
            f" to need up to {_rounded(needed, ROUND_CEILING)}. Fewer answers (n) or shorter ones (max_tokens,"
            " max_output_tokens) make that less."
        )
    else:
        said = f"T{budget[1:]} is spent, calls under way included."
    if rule.resets_at_s is None:
        return f"{said} Ask whoever runs this gateway for more."
    resets_at = datetime.fromtimestamp(rule.resets_at_s, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    return f"{said} It starts anew at {resets_at}; ask whoever runs this gateway for more."


def _rounded(microusd: int, rounding: str) -> str:
    """To the cent, and where it is less than a dollar, to the second digit that is not 0."""
    amount = Decimal(microusd) / 1_000_000
    places = 2 if amount >= 1 else min(1 - amount.adjusted(), 6)
    return dollars(int(amount.quantize(Decimal(1).scaleb(-places), rounding) * 1_000_000))
