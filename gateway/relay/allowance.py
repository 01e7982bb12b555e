"""How much a call may use: asked before it goes upstream, settled when it has ended, however it ended.

Knows how a call's size and what is left of its usage become amounts. Which rules bind it, and how they are counted,
is the business of `gateway.limits`; what usage costs, that of `gateway.metering`.
"""

import time

from gateway.call import CallRecord, Principal
from gateway.errors import InternalError
from gateway.limits.answers import limit_headers, refusal
from gateway.limits.limiter import Limiter
from gateway.limits.plan import Ask, Planner, actual
from gateway.limits.rules import Decision, Demand
from gateway.limits.spend import Spend
from gateway.limits.tally import Tally
from gateway.limits.waiting import WaitingRoom
from gateway.metering.cost import cost_microusd, estimated_microusd
from gateway.metering.estimate import Estimator, prompt_bytes
from gateway.metering.prices import PriceList
from gateway.relay.live import LiveCall
from gateway.terms import Quota

ENDPOINT = "upstream"
"""The one endpoint that there is."""

_NEVER_SENT = frozenset(("connect", "pool", "timeout_connect"))
"""What kept a call from reaching upstream at all."""
_BYTES_PER_STREAMED_TOKEN = 150
"""Of an event stream, which says hardly more than a token in an event. For streams whose usage never came."""
_BYTES_PER_TOKEN = 4


class Asked:
    """What one call was estimated to take, and what was granted to it."""

    __slots__ = ("demand", "input_tokens", "model", "output_tokens", "prompt_bytes")

    def __init__(self, model: str, size: int, input_tokens: int, output_tokens: int) -> None:
        self.model = model
        self.prompt_bytes = size
        self.input_tokens = input_tokens
        self.output_tokens = output_tokens
        self.demand: Demand | None = None


class Allowance:
    """Admits calls and settles them. `admit` may wait, `settle` never does."""

    def __init__(  # noqa: PLR0913 - the parts that a call's allowance is made of
        self,
        planner: Planner,
        limiter: Limiter,
        estimator: Estimator,
        prices: PriceList,
        spend: Spend | None = None,
        *,
        max_wait_s: float = 0.0,
    ) -> None:
        """`max_wait_s`: how long calls may wait for their turn where neither key nor team says."""
        self.planner = planner
        self.limiter = limiter
        self.tally = Tally()
        self.room = WaitingRoom(limiter)
        self._max_wait_s = max_wait_s
        self._estimator = estimator
        self._prices = prices
        self._spend = spend

    def ask(self, principal: Principal, model: str, body: bytes, max_tokens: int | None) -> Asked | None:
        """What a call with this body may take. None: nothing limits it.

        `max_tokens`: 0 where it has no output, None where it does not say.
        """
        if principal.quota is None or not self.planner.binds(principal.quota, ENDPOINT):
            return None
        size = prompt_bytes(body)
        return Asked(model, size, *self._estimator.estimate(model, size, max_tokens))

    async def admit(self, call: LiveCall, asked: Asked) -> float:
        """Reserve what the call asks; the seconds that it waited for its turn.

        Raises `RateLimited`, `BudgetSpent`, `StoreUnavailable`.
        """
        principal = call.principal
        if principal is None or principal.quota is None:
            raise InternalError("The gateway failed on a bug of its own: a call of nobody's was to be limited.")
        price = self._prices.price_of(asked.model)
        cost = 0 if price is None else estimated_microusd(price, asked.input_tokens, asked.output_tokens)
        ask = Ask(asked.model, asked.input_tokens + asked.output_tokens, cost, ENDPOINT)
        demand = self.planner.demand(call.id.decode(), principal.quota, ask, time.time())
        if not demand.charges and not demand.endpoint:
            return 0.0
        waited_s, max_wait_s = 0.0, self._patience_s(principal.quota)
        if max_wait_s > 0:
            decision, waited_s = await self.room.admit(demand, whose=principal.key_id, max_wait_s=max_wait_s)
        else:
            decision = self.limiter.admit_now(demand) or await self.limiter.admit(demand)
        self.tally.note(decision, waited_s)
        if not decision.admitted:
            self._refuse(decision)
        asked.demand = demand
        call.limit_headers = limit_headers(decision.standings)
        if waited_s > 0:
            call.limit_headers.append((b"x-gateway-queue-ms", b"%d" % round(waited_s * 1000)))
        return waited_s

    def _patience_s(self, quota: Quota) -> float:
        for own in (quota.key.max_wait_s, quota.team.max_wait_s):
            if own is not None:
                return own
        return self._max_wait_s

    def _refuse(self, decision: Decision) -> None:
        rule = decision.binding
        if rule is not None and rule.dimension == "budget" and self._spend is not None:
            self._spend.note_refusal(rule)
        raise refusal(decision)

    def settle(self, call: LiveCall, record: CallRecord) -> None:
        """Put what was true in place of what was reserved."""
        asked, call.asked = call.asked, None
        if asked is None or asked.demand is None:
            return
        if record.usage is not None:
            self._estimator.learn(asked.model, asked.prompt_bytes, record.usage)
        if call.sent_at is None or record.upstream_error in _NEVER_SENT:
            self.limiter.cancel(asked.demand)
            self.room.released(asked.demand)
            return
        tokens, cost = self._truth(asked, record)
        if self._spend is not None and cost:  # before the limiter, which may ask for what was spent
            for charge in asked.demand.charges:
                if charge.rule.dimension == "budget":
                    self._spend.note(charge.rule, cost)
        self.limiter.settle(asked.demand, actual(asked.demand, tokens=tokens, cost_microusd=cost))
        self.room.released(asked.demand)

    def _truth(self, asked: Asked, record: CallRecord) -> tuple[int, int]:
        """Tokens and micro-dollars that a call came to, estimated where upstream has not said."""
        price = self._prices.price_of(asked.model)
        if record.usage is not None:
            return record.usage.total_tokens, 0 if price is None else cost_microusd(price, record.usage)
        if record.outcome == "upstream_error":
            return 0, 0  # an error reply is not billed
        output = min(asked.output_tokens, record.sent_bytes // _bytes_per_token(record))
        cost = 0 if price is None else estimated_microusd(price, asked.input_tokens, output)
        return asked.input_tokens + output, cost


def _bytes_per_token(record: CallRecord) -> int:
    return _BYTES_PER_STREAMED_TOKEN if record.streamed else _BYTES_PER_TOKEN
