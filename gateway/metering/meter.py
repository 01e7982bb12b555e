"""What one call used and what that costs, said once, when it has ended: limits, ledger and metrics take it from here.

Pure but for what it learns of models. Knows which ends of a call mean that it used something, and what stands in for
usage that upstream has not reported. How usage is read is `gateway.metering.usage`'s business.
"""

from typing import Protocol

from msgspec import structs

from gateway.call import Dialect, Outcome, Principal, Reply, Route, Usage, UsageSource
from gateway.metering.cost import cost_microusd, is_priced, output_microusd
from gateway.metering.delivered import Sample
from gateway.metering.estimate import BYTES_PER_TOKEN, Estimator, prompt_bytes
from gateway.metering.prices import Price

NEVER_SENT = frozenset(("connect", "pool", "timeout_connect"))
"""What kept a call from reaching upstream at all."""
_UNMETERED = frozenset(("batches",))
"""Routes that make models work and never say how much."""

_NOT_BY_TEXT = frozenset(("audio", "images"))
"""Groups of routes whose requests tell next to nothing of the price."""
_TOO_FEW = 4
"""A cut stream that told of so many times less output than it delivered told it early."""


class Prices(Protocol):
    """What models cost now."""

    def price_of(self, model: str) -> Price | None:
        """The price of `model`, None if it is unpriced."""


class Estimated(Protocol):
    """What was known of a call's size before it was made."""

    prompt_bytes: int
    answers: int
    """As many as it asked for."""


class Ended(Protocol):
    """What is known of a call that has ended."""

    principal: Principal | None
    route: Route | None
    model: str | None
    outcome: Outcome | None
    upstream_error: str | None
    sent_at: float | None
    first_write_at: float | None
    """When its client got the first of upstream's reply; None: nothing of it, or an error in its place."""
    sent_bytes: int
    streamed: bool
    usage: Usage | None
    """As upstream reported it."""
    cost_microusd: int | None
    """Of `usage`, if `is_costed`: then it was computed already."""
    is_costed: bool
    is_free: bool
    """Upstream refused it, or never got all of it."""
    is_background: bool
    """Its answer is made after its reply."""
    body: bytes
    """The request's, where that was held."""
    sample: Sample | None
    """Of its stream's events, if it is one that is measured."""

    @property
    def late(self) -> object:
        """Usage of a response in the background, which has a record of its own; None: its reply tells of none."""

    @property
    def due_id(self) -> str | None:
        """The response that it makes in the background; None: nobody will be told how that ends."""

    @property
    def asked(self) -> Estimated | None:
        """What was reserved for it, if limits bind it."""


Measured = tuple[Usage | None, UsageSource, int | None]
"""Usage, where it is from, and micro-dollars, as in `CallRecord`."""

NOTHING: Measured = (None, "none", 0)
_DUE: Measured = (None, "due", 0)
UNKNOWN: Measured = (None, "unknown", None)


class Meter:
    """Measures calls by `prices`; what calls report teaches `estimator`."""

    def __init__(self, prices: Prices, estimator: Estimator) -> None:
        self.prices = prices
        self.estimator = estimator

    def measure(self, call: Ended) -> Measured:
        """What `call` used. Asked once of each call; never raises."""
        usage = call.usage
        if usage is not None and call.late is None and not (call.streamed and _is_of_the_beginning(call, usage)):
            asked = call.asked
            if (asked is not None or call.streamed) and usage.total_tokens:
                self._learn(call, usage)
            cost = call.cost_microusd if call.is_costed else self.cost_of(call.model, usage)
            if asked is not None and cost and costs_as_before(call.route):
                self.estimator.learn_cost(_team_id(call), call.model or "", cost, asked.answers)
            return usage, "reported", cost
        route = call.route
        if route is None or call.sent_at is None or call.is_free or call.upstream_error in NEVER_SENT:
            return NOTHING
        if route.reply is not Reply.USAGE:
            return UNKNOWN if route.method == "POST" and route.pattern in _UNMETERED else NOTHING
        if call.is_background:
            return UNKNOWN if call.due_id is None else _DUE
        return UNKNOWN if call.outcome == "done" and usage is None else self._estimated(call, route)

    def cost_of(self, model: str | None, usage: Usage) -> int | None:
        """Micro-dollars; None for a model that has no price for such usage."""
        price = None if model is None else self.prices.price_of(model)
        return cost_microusd(price, usage) if price is not None and is_priced(price, usage) else None

    def output_cost_of(self, model: str | None, usage: Usage) -> int:
        """The micro-dollars among them that are for output, by the prices of now; 0 without a price."""
        price = None if model is None else self.prices.price_of(model)
        return 0 if price is None else output_microusd(price, usage)

    def _learn(self, call: Ended, usage: Usage) -> None:
        """Where something is made of it: of calls that limits bind, and of streams, which are cut at times."""
        asked, principal = call.asked, call.principal
        team_id = "" if principal is None else principal.team_id
        size, answers = (prompt_bytes(call.body), 1) if asked is None else (asked.prompt_bytes, asked.answers)
        self.estimator.learn(team_id, call.model or "", size, usage, answers)

    def _estimated(self, call: Ended, route: Route) -> Measured:
        """One that was cut, or told early: prompt by its size, unless that was told; answer by what was delivered."""
        if not call.body or not (answers_in_text(route) or route.group == "embeddings"):
            return UNKNOWN
        usage = call.usage
        if usage is None or not usage.input_tokens:
            input_tokens, _ = self.estimator.estimate(_team_id(call), call.model or "", _prompt_bytes(call), 0)
            usage = Usage(input_tokens, 0, input_tokens)
        output_tokens = _delivered(call) if answers_in_text(route) else 0
        usage = structs.replace(usage, output_tokens=output_tokens, total_tokens=usage.input_tokens + output_tokens)
        return usage, "estimated", self.cost_of(call.model, usage)


def costs_as_before(route: Route | None) -> bool:
    """Whether a route's calls are paid by time, or by tokens of which the request tells next to nothing."""
    return route is not None and route.group in _NOT_BY_TEXT


def answers_in_text(route: Route) -> bool:
    """Whether the tokens of a route's answers are those of text."""
    return route.dialect is not Dialect.OTHER or route.group == "responses"


def _is_of_the_beginning(call: Ended, usage: Usage) -> bool:
    """Whether a stream told `usage` before its output: of a complete one it has none, of a cut one hardly any."""
    if call.outcome == "done" and usage.output_tokens:
        return False
    return usage.output_tokens * _TOO_FEW < _delivered(call)


def _team_id(call: Ended) -> str:
    return "" if call.principal is None else call.principal.team_id


def _prompt_bytes(call: Ended) -> int:
    return prompt_bytes(call.body) if call.asked is None else call.asked.prompt_bytes


def _delivered(call: Ended) -> int:
    if call.first_write_at is None:
        return 0
    if call.streamed:
        return 0 if call.sample is None else call.sample.tokens(call.sent_bytes)
    return int(call.sent_bytes / BYTES_PER_TOKEN)
