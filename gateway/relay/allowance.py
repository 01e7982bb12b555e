"""How much a call may use: asked before it goes upstream, settled when it has ended, however it ended.

Knows how a call's size and what is left of its usage become amounts. Which rules bind it, and how they are counted,
is the business of `gateway.limits`; what usage costs, that of `gateway.metering`.
"""

import asyncio
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping
from time import perf_counter
from typing import NamedTuple

import msgspec

from gateway.call import CallRecord, Principal, Usage
from gateway.errors import InternalError, ModelUnpriced
from gateway.limits.answers import limit_headers, refusal
from gateway.limits.limiter import Limiter
from gateway.limits.plan import Ask, Planner, actual
from gateway.limits.rules import Charge, Decision, Demand, Rule
from gateway.limits.spend import Spend
from gateway.limits.tally import Tally
from gateway.limits.waiting import WaitingRoom
from gateway.metering.cost import estimated_microusd
from gateway.metering.estimate import prompt_bytes
from gateway.metering.late import PREFIX
from gateway.metering.meter import NEVER_SENT, Meter, costs_as_before
from gateway.metering.prices import Price
from gateway.relay.live import ENDPOINT, LiveCall
from gateway.terms import Quota

_MOST_DUE = 10_000
"""Responses in the background of which it is remembered what they reserved; the oldest make room."""


class Asked(msgspec.Struct, gc=False):
    """What one call was estimated to take, and what was granted to it."""

    model: str
    prompt_bytes: int
    answers: int
    input_tokens: int
    output_tokens: int
    has_budgets: bool
    """What it will cost matters."""
    demand: Demand | None = None
    cost_microusd: int = 0
    """As estimated; 0 also where nothing is to be paid, or nobody knows a price."""
    is_taken: bool = False
    """Upstream was asked for something else before the call itself is sent, so it is paid for though it never is."""
    is_unread: bool = False
    """It is a form that streams: its model is not known before it is sent, and did not matter when it came."""
    held_bytes: int = 0
    """What its client's connection keeps of it in memory while it waits, at most, besides the body that is held."""
    times: int = 1
    """How often it has asked."""
    waits_for: Demand | None = None
    """What it waits for in line, by the limits of `quota`."""
    quota: Quota | None = None
    given_back: Demand | None = None
    """What it was admitted to before it had to ask again."""


class _Due(NamedTuple):
    """What a call has reserved that has ended, and has yet to tell what it used."""

    asked: Asked
    demand: Demand
    quota: Quota
    since_s: float
    """Unix time."""


class Allowance:
    """Admits calls and settles them. `admit` may wait, `settle` never does."""

    def __init__(  # noqa: PLR0913 - how much, who counts it, and what it comes to
        self,
        planner: Planner,
        limiter: Limiter,
        meter: Meter,
        spend: Spend | None = None,
        *,
        max_wait_s: float = 0.0,
        refuses_unpriced: bool = False,
        is_shared: bool = False,
        now: Callable[[], float] = time.time,
    ) -> None:
        """`max_wait_s`: how long calls may wait for their turn where neither key nor team says. `refuses_unpriced`:
        budgets refuse what nobody knows the price of. `is_shared`: what one process reserves is kept in common with all
        others, and longer than itself. `now` is Unix time in seconds.
        """
        self.planner = planner
        self.limiter = limiter
        self.tally = Tally()
        self.room = WaitingRoom(limiter)
        self._max_wait_s = max_wait_s
        self._refuses_unpriced = refuses_unpriced
        self._is_shared = is_shared
        self._now = now
        self.meter = meter
        self._spend = spend
        self._due: OrderedDict[str, _Due] = OrderedDict()
        """By response id."""

    def ask(
        self, principal: Principal, model: str, body: bytes, max_tokens: int | None, answers: int = 1
    ) -> Asked | None:
        """What a call with this body may take. None: nothing limits it.

        `max_tokens`: of each of its `answers`; 0 where it has no output, None where it does not say.
        """
        quota = principal.quota
        if quota is None or (bound := self.planner.binds(quota, ENDPOINT)) is None:
            return None
        size = prompt_bytes(body)
        tokens_in, tokens_out = self.meter.estimator.estimate(principal.team_id, model, size, max_tokens, answers)
        return Asked(model, size, answers, tokens_in, tokens_out, bound.has_budgets)

    async def admit(self, call: LiveCall, asked: Asked) -> float:
        """Reserve what the call asks; the seconds that it waited for its turn.

        Raises `RateLimited`, `BudgetSpent`, `ModelUnpriced`, `StoreUnavailable`.
        """
        principal = call.principal
        if principal is None or principal.quota is None:
            raise InternalError("The gateway failed on a bug of its own: a call of nobody's was to be limited.")
        quota = principal.quota
        demand = self._demand(call, asked, principal, quota)
        if not demand.charges and not demand.endpoint:
            self._tell_given_back(asked)
            return 0.0
        if self._refuses_unpriced:
            self._check_priced(call, asked, demand)
        waited_s, max_wait_s = 0.0, self._patience_s(quota)
        if max_wait_s > 0 or self.room.waiting:
            asked.waits_for, asked.quota = demand, quota
            decision, waited_s = await self._in_turn(call, asked, demand, principal.key_id, max_wait_s)
            demand = asked.waits_for
            call.queue_s += waited_s
        else:
            decision = self.limiter.admit_now(demand) or await self.limiter.admit(demand)
        self.tally.note(decision, waited_s)
        if not decision.admitted:
            self._refuse(decision, demand)
        asked.demand = demand
        if waited_s and self._refuses_unpriced and not asked.is_unread:
            self._check_priced(call, asked, demand)
        call.limit_headers = limit_headers(decision.standings, demand.rules)
        return waited_s

    async def _in_turn(
        self, call: LiveCall, asked: Asked, demand: Demand, whose: str, max_wait_s: float
    ) -> tuple[Decision, float]:
        held_bytes, began_at = len(call.body) + asked.held_bytes, perf_counter()
        call.in_line = True
        try:
            # What it has waited before it had to ask again counts.
            left_s, had_turn = max(0.0, max_wait_s - call.queue_s), asked.given_back is not None
            return await self.room.admit(
                demand, whose=whose, max_wait_s=left_s, held_bytes=held_bytes, had_turn=had_turn
            )
        except asyncio.CancelledError:
            call.queue_s += perf_counter() - began_at
            raise
        finally:
            call.in_line = False
            self._tell_given_back(asked)

    def change(self, call: LiveCall, principal: Principal) -> None:
        """Have a call that waits do so by the limits that its key has now; it keeps its place. Have the room look."""
        asked, quota = call.asked, principal.quota
        if asked is None or asked.waits_for is None or quota is None or quota is asked.quota:
            return
        if quota == asked.quota:
            asked.quota = quota
            return
        bound, had = self.planner.binds(quota, ENDPOINT), (asked.has_budgets, asked.cost_microusd)
        asked.has_budgets = bound is not None and bound.has_budgets
        demand = self._demand(call, asked, principal, quota)
        if self.room.change(demand, self._patience_s(quota) - call.queue_s):
            asked.waits_for, asked.quota = demand, quota
        else:  # it may be admitted to what it waited for
            asked.has_budgets, asked.cost_microusd = had

    def _tell_given_back(self, asked: Asked) -> None:
        """To those who wait for it, once the call itself has asked anew."""
        given_back, asked.given_back = asked.given_back, None
        if given_back is not None:
            self.room.released(given_back)

    def _demand(self, call: LiveCall, asked: Asked, principal: Principal, quota: Quota) -> Demand:
        """What it asks by these limits; its cost is estimated too."""
        asked.cost_microusd = cost = self._cost(call, asked, principal) if asked.has_budgets else 0
        ask = Ask(asked.model, asked.input_tokens + asked.output_tokens, cost, ENDPOINT)
        call_id = call.id.decode() if asked.times == 1 else f"{call.id.decode()}-{asked.times}"
        return self.planner.demand(call_id, quota, ask, self._now())

    def _cost(self, call: LiveCall, asked: Asked, principal: Principal) -> int:
        price = self._price(call, asked)
        if price is None:
            return 0
        cost = estimated_microusd(price, asked.input_tokens, asked.output_tokens)
        if costs_as_before(call.route):
            cost = max(cost, self.meter.estimator.cost_microusd(principal.team_id, asked.model, asked.answers))
        return cost

    def _price(self, call: LiveCall, asked: Asked) -> Price | None:
        """Where its cost matters."""
        is_paid = call.route is None or not call.route.is_free
        return self.meter.prices.price_of(asked.model) if asked.has_budgets and is_paid else None

    def _check_priced(self, call: LiveCall, asked: Asked, demand: Demand) -> None:
        """Raises `ModelUnpriced` where a budget binds a call without a price. Asked where that is to be refused."""
        is_free = call.route is not None and call.route.is_free
        if not is_free and self._price(call, asked) is None:
            _check_no_budget(demand, asked.model)

    def _patience_s(self, quota: Quota) -> float:
        """How long a call of this key's may wait."""
        own_s = quota.team.max_wait_s if quota.key.max_wait_s is None else quota.key.max_wait_s
        return self._max_wait_s if own_s is None else own_s

    def is_outdated(self, principal: Principal, asked: Asked) -> bool:
        """Whether it must be asked again: other limits bind it now, since its key was changed or a day has begun."""
        quota, had = principal.quota, asked.demand
        if had is None or quota is None:
            return True
        has = self.planner.demand(had.call_id, quota, Ask(asked.model, 0, endpoint=ENDPOINT), self._now())
        return _rules(has) != _rules(had)

    def ask_again(self, call: LiveCall, principal: Principal, asked: Asked) -> None:
        """Give back what was granted, and have `call.asked` say what is to be asked for now."""
        if asked.demand is not None:
            self.limiter.cancel(asked.demand)
            asked.given_back = asked.demand
        bound = None if principal.quota is None else self.planner.binds(principal.quota, ENDPOINT)
        call.limit_headers = []
        if bound is None:
            call.asked = None
            self._tell_given_back(asked)
        else:
            asked.demand, asked.has_budgets, asked.times = None, bound.has_budgets, asked.times + 1

    def _refuse(self, decision: Decision, demand: Demand) -> None:
        rule = decision.binding
        if rule is not None and rule.dimension == "budget" and self._spend is not None:
            self._spend.note_refusal(rule)
        raise refusal(decision, demand)

    def settle(self, call: LiveCall, record: CallRecord) -> None:
        """Put what was true in place of what was reserved."""
        asked, call.asked = call.asked, None
        if asked is None or (demand := asked.demand) is None:
            return
        if (call.sent_at is None and not asked.is_taken) or record.upstream_error in NEVER_SENT:
            self.limiter.cancel(demand)
            self.room.released(demand)
            return
        if record.usage_source == "due":
            self._remember_due(call, asked)
            tokens = cost = None  # it is told late
        else:
            tokens, cost = _amounts(record, asked)
        if self._spend is not None and cost and demand.rules is not None:
            for rule in demand.rules.budgets:  # before the limiter, which may ask for what was spent
                self._spend.note(rule, cost)
        self.limiter.settle(demand, actual(demand, tokens=tokens, cost_microusd=cost))
        self.room.released(demand)

    def note_late(self, record: CallRecord) -> None:
        """Charge what a call has used that was settled before that was known. Call it once for each record.

        What it had reserved stands, so the difference is charged, also of what another process has reserved, or one
        before, if limits are shared. Where that is not known, all of it is charged: limits may count such calls for
        more than they used, and never for less. What nobody will ever know costs what was reserved. Of a key that is
        not the one which asked, only the team is known then.
        """
        due = self._due.pop(record.id.removeprefix(PREFIX), None)
        principal, usage = record.principal, record.usage
        if principal is None:
            return
        quota = principal.quota
        is_own = quota is not None and quota.key_id == principal.key_id
        if due is not None:
            if usage is not None:
                self._learn_late(principal, due.asked, usage)
            quota, is_own = quota if is_own else due.quota, True
        if quota is None:
            return
        model = record.model if due is None else due.asked.model
        cost, tokens = record.cost_microusd, None if usage is None else usage.total_tokens
        if cost is None and (model is None or self.meter.prices.price_of(model) is None):
            cost = 0
        demand = self.planner.demand(record.id, quota, Ask(model, tokens or 0, cost or 0, ENDPOINT), self._now())
        reserved = self._reserved(record, due)
        used = {**reserved, **actual(demand, tokens=tokens, cost_microusd=cost)}
        mine = tuple([charge for charge in demand.charges if is_own or charge.rule.whose != "key"])
        if self._spend is not None:  # first, as above
            for charge in mine:
                if charge.rule.dimension == "budget" and (spent := used.get(charge.rule.id)):
                    self._spend.note(charge.rule, spent)
        counted = reserved if due is not None or self._is_shared else {}
        own, endpoint = [_beyond(charges, counted, used) for charges in (mine, demand.endpoint)]
        self.limiter.charge(Demand(record.id, quota.team_id, own, endpoint))

    def _reserved(self, record: CallRecord, due: _Due | None) -> Mapping[str, int]:
        """What a call whose usage is `record` had reserved, by rule id. Of a budget that was reset since, nothing."""
        kept = None if record.due is None else record.due.reserved
        if due is None:
            return kept or {}
        return {
            rule.id: amount
            for rule, amount in ((charge.rule, charge.amount) for charge in (*due.demand.charges, *due.demand.endpoint))
            if (kept is None or rule.id in kept)
            and (self._spend is None or not self._spend.was_reset_since(rule.id, due.since_s))
        }

    def _remember_due(self, call: LiveCall, asked: Asked) -> None:
        principal, made = call.principal, call.new_ids
        if asked.demand is None or principal is None or principal.quota is None or made is None:
            return
        if made.response_id is not None:
            self._due[made.response_id] = _Due(asked, asked.demand, principal.quota, self._now())
            if len(self._due) > _MOST_DUE:
                self._due.popitem(last=False)

    def _learn_late(self, principal: Principal, asked: Asked, usage: Usage) -> None:
        if usage.total_tokens:
            self.meter.estimator.learn(principal.team_id, asked.model, asked.prompt_bytes, usage, asked.answers)


def _rules(demand: Demand) -> tuple[Rule, ...]:
    return tuple([charge.rule for charge in (*demand.charges, *demand.endpoint)])


def _beyond(charges: tuple[Charge, ...], counted: Mapping[str, int], used: Mapping[str, int]) -> tuple[Charge, ...]:
    """What is left to charge of what was `used`, where so much is `counted` already, both by rule id.

    A rate gives nothing back here: what was reserved of it, time has brought back.
    """
    late = []
    for rule in [charge.rule for charge in charges]:
        over = used.get(rule.id, 0) - counted.get(rule.id, 0)
        if (rule.dimension == "tokens" and over > 0) or (rule.dimension == "budget" and over):
            late.append(Charge(rule, over))
    return tuple(late)


def _amounts(record: CallRecord, asked: Asked) -> tuple[int | None, int | None]:
    """Tokens and micro-dollars to settle with; None where what was reserved stands.

    Where nobody knows the cost, it is what was estimated.
    """
    if record.usage_source == "none":
        return 0, 0
    cost = asked.cost_microusd if record.cost_microusd is None else record.cost_microusd
    return None if record.usage is None else record.usage.total_tokens, cost


def _check_no_budget(demand: Demand, model: str) -> None:
    """Of a call without a price. Raises `ModelUnpriced` where a budget binds it."""
    if any(charge.rule.dimension == "budget" and not charge.rule.shadow for charge in demand.charges):
        named = f"the model '{model}' has no price" if model else "it names no model that has a price"
        raise ModelUnpriced(
            f"A budget binds this call, and {named} here, so nobody knows what it would cost. Use a model with a "
            "price, or ask whoever runs the gateway to add one to its prices (docs/prices.md)."
        )
