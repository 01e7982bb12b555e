"""How long a call has to wait, as far as anybody can tell: read from how its rules stand.

Pure. Knows what brings room back: time alone (rates), other calls that end (slots), or nothing worth waiting for
(budgets). Who waits, and whose turn it is, is the waiting room's business.
"""

from collections.abc import Iterable, Mapping

from gateway.limits import gcra
from gateway.limits.counters import NEVER_US
from gateway.limits.rules import Decision, Demand, Rule, Standing

Waits = Mapping[Rule, int]
"""The rules that refuse a call, shadows left out, each with the microseconds until it would not."""


def waits(demand: Demand, standings: Iterable[Standing]) -> Waits:
    """What refuses `demand` where its rules stand like that; empty: nothing does."""
    amounts = {charge.rule.id: charge.amount for charge in (*demand.charges, *demand.endpoint)}
    found = {
        standing.rule: _wait_us(standing, amounts[standing.rule.id])
        for standing in standings
        if not standing.rule.shadow and standing.rule.id in amounts
    }
    return {rule: wait_us for rule, wait_us in found.items() if wait_us}


def waits_of(demand: Demand, refusal: Decision) -> Waits:
    """What refuses `demand`, as its refusal tells: the rule that binds, and all others told that have no room."""
    found = dict(waits(demand, refusal.standings))
    if refusal.binding is not None:
        found[refusal.binding] = refusal.retry_after_us or NEVER_US
    return found


def is_in_vain(refused: Waits, left_us: int) -> bool:
    """Whether a call that these rules refuse cannot be admitted within `left_us`, even if nobody else came.

    A rate gains by time alone, and so says when; a slot may come free at any moment. What is given back to a rate by
    calls that settle for less is a gift that nobody can wait for.
    """
    return left_us <= 0 or any(
        rule.dimension == "budget" or (rule.dimension != "parallel" and wait_us > left_us)
        for rule, wait_us in refused.items()
    )


def lacks_slots_alone(demand: Demand, decision: Decision) -> bool:
    """Whether a call that was refused would have been admitted but for limits on calls at once."""
    if decision.binding is None or decision.binding.dimension != "parallel":
        return False
    return all(rule.dimension == "parallel" for rule in waits_of(demand, decision))


def refusal(demand: Demand, standings: Iterable[Standing]) -> Decision | None:
    """What a limiter whose rules stand like that would say to `demand`; None: it would be admitted."""
    told = tuple(standings)
    refused = waits(demand, told)
    if not refused:
        return None
    longest = max(refused, key=lambda rule: refused[rule])
    if longest.whose != "endpoint":
        first = {charge.rule.id for charge in demand.charges}
        told = tuple(each for each in told if each.rule.id in first)
    return Decision(False, told, longest, 0 if refused[longest] == NEVER_US else refused[longest])


def _wait_us(standing: Standing, amount: int) -> int:
    rule = standing.rule
    if rule.dimension in {"requests", "tokens"}:
        # What drains in `reset_us` is all that a bucket is: its backlog.
        return gcra.wait_us(standing.reset_us, gcra.increment_us(rule, amount), gcra.capacity_us(rule), 0)
    if amount <= standing.remaining:
        return 0
    return gcra.PARALLEL_RETRY_US if rule.dimension == "parallel" else standing.reset_us or NEVER_US
