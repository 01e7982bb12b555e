"""What a call is admitted to, while the limits of its key change."""

import asyncio
from datetime import date

import msgspec

from gateway.call import Principal
from gateway.http.routes import MAKES_RESPONSES
from gateway.limits.memory import MemoryLimiter
from gateway.limits.plan import Planner, Policy
from gateway.metering.estimate import Estimator
from gateway.metering.meter import Meter
from gateway.metering.prices import Price, PriceList, Rates
from gateway.relay.allowance import Allowance, Asked
from gateway.relay.live import LiveCall
from gateway.terms import Budgets, Limits, Quota
from tests.relay.test_settlement import Wire

PRICE = Price(Rates(*[1_000_000] * 9), date(2026, 11, 22))
WITHOUT = Quota("team_engines", "key_ada", key=Limits(parallel=1, max_wait_s=60))
WITH = msgspec.structs.replace(WITHOUT, key_budgets=Budgets(total_microusd=1_000_000))


def by(quota: Quota) -> Principal:
    return Principal("ada", "engines", "key_ada", "team_engines", quota=quota)


def begun(allowance: Allowance, name: str, quota: Quota) -> tuple[LiveCall, Asked]:
    call = LiveCall(name.encode(), "POST", Wire(name, []))
    call.principal, call.model, call.route = by(quota), "m", MAKES_RESPONSES
    call.asked = allowance.ask(call.principal, "m", b"{}", 10)
    assert call.asked is not None
    return call, call.asked


async def test_a_call_that_had_its_turn_before_its_budget_was_removed_is_admitted_by_what_it_had() -> None:
    meter = Meter(PriceList({"m": PRICE}), Estimator())
    allowance = Allowance(Planner(Policy()), MemoryLimiter(), meter, refuses_unpriced=True)
    (first, runs), (call, asked) = (begun(allowance, name, WITH) for name in ("one", "two"))
    await allowance.admit(first, runs)
    admitted = asyncio.create_task(allowance.admit(call, asked))
    await asyncio.sleep(0)
    assert runs.demand is not None
    assert allowance.room.waiting == 1
    allowance.limiter.cancel(runs.demand)
    allowance.room.released(runs.demand)  # its turn has come, and it has yet to hear of it
    allowance.change(call, by(WITHOUT))
    assert await admitted > 0
    assert asked.demand is not None
    charged = {charge.rule.dimension: charge.amount for charge in asked.demand.charges}
    assert charged["budget"] == asked.cost_microusd > 0
    assert allowance.is_outdated(by(WITHOUT), asked), "it asks anew, by what its key has now"
