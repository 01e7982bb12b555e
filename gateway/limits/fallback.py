"""This node's share of the limits, in its own memory, for the time in which Redis is away.

Knows how many nodes there were, and what each limit is divided by. Slots of calls that this node admitted before keep
counting; what of a budget was left is shared as it was last seen. Nobody's share is less than one request.
"""

from collections.abc import Iterable, Mapping

import msgspec

from gateway.limits.memory import MemoryLimiter
from gateway.limits.rules import Charge, Decision, Demand, Rule, Standing

_MOST_SHARES = 20_000


class LocalShare:
    """Used from `enter` to `leave`; its buckets outlive that, so that a flapping Redis gives nobody a second burst."""

    def __init__(self) -> None:
        self._memory = MemoryLimiter()
        self._shares: dict[int, tuple[Rule, Rule]] = {}
        self._demands: dict[str, tuple[Demand, Mapping[str, str]]] = {}
        """By call id what it holds here, and from each rule's id to that of its share."""
        self._spent: Mapping[str, int] = {}
        self._times = 0
        self._nodes = 1
        self.is_entered = False

    def __repr__(self) -> str:
        return f"LocalShare(entered={self.is_entered}, nodes={self._nodes}, {self._memory})"

    def enter(self, held: Iterable[Demand], spent: Mapping[str, int], nodes: int) -> None:
        """Redis is away. `held`: calls under way; `spent`: micro-dollars by rule id, as last seen."""
        if self.is_entered:
            return
        self.is_entered = True
        self._times += 1
        self._nodes = max(nodes, 1)
        self._spent = spent
        self._shares.clear()
        for demand in held:
            self._occupy(demand)

    def leave(self) -> None:
        """Redis is back: it has the slots again."""
        self.is_entered = False
        for demand, _ in self._demands.values():
            self._memory.settle(demand, {})
        self._demands.clear()

    def admit(self, demand: Demand) -> Decision:
        """Decide by this node's share; standings are told of the share, under the rules that were asked."""
        mine = self._mine(demand)
        decision = self._memory.admit_now(mine)
        if decision is None:
            raise AssertionError("a limiter without a store has nothing to read")
        asked = {charge.rule.id: charge.rule for charge in (*demand.charges, *demand.endpoint)}
        back = {
            share.rule.id: rule for share, rule in zip((*mine.charges, *mine.endpoint), asked.values(), strict=True)
        }
        if decision.admitted:
            self._demands[demand.call_id] = (mine, {rule.id: share_id for share_id, rule in back.items()})
        return Decision(
            decision.admitted,
            tuple([Standing(back[told.rule.id], told.remaining, told.reset_us) for told in decision.standings]),
            None if decision.binding is None else back[decision.binding.id],
            decision.retry_after_us,
            tuple([back[rule.id] for rule in decision.exceeded]),
        )

    def end(self, call_id: str, actual: Mapping[str, int] | None) -> None:
        """A call has ended; None: it never went upstream."""
        known = self._demands.pop(call_id, None)
        if known is None:
            return
        demand, shares = known
        if actual is None:
            self._memory.cancel(demand)
        else:
            self._memory.settle(demand, {shares[id_]: amount for id_, amount in actual.items() if id_ in shares})

    def charge(self, demand: Demand) -> None:
        """As `Limiter.charge`, while Redis is away."""
        if self.is_entered:
            self._memory.charge(self._mine(demand))

    def start(self) -> None:
        """Renew in the background what calls hold here."""
        self._memory.start()

    async def close(self) -> None:
        """Stop that."""
        await self._memory.close()

    async def reset(self, rules: Iterable[Rule]) -> None:
        """Begin anew with all of these rates, which outlive an absence; each absence divides anew what is left of
        budgets.
        """
        await self._memory.reset([self._share(rule) for rule in rules if rule.dimension in ("requests", "tokens")])

    async def standings(self, rules: Iterable[Rule]) -> list[Standing]:
        """How this node's shares stand, under the rules that were asked for."""
        rules = list(rules)
        told = await self._memory.standings([self._share(rule) for rule in rules])
        return [Standing(rule, own.remaining, own.reset_us) for rule, own in zip(rules, told, strict=True)]

    def _occupy(self, demand: Demand) -> None:
        """A slot for each rule that gave one, without asking whether there is room: shadow rules do not."""
        slots = tuple(
            [
                Charge(msgspec.structs.replace(self._share(charge.rule), shadow=True), charge.amount)
                for charge in (*demand.charges, *demand.endpoint)
                if charge.rule.dimension == "parallel"
            ]
        )
        if slots:
            mine = Demand(demand.call_id, demand.team_id, slots)
            self._memory.admit_now(mine)
            self._demands[demand.call_id] = (mine, {})

    def _mine(self, demand: Demand) -> Demand:
        """The same, asked of this node's shares."""
        return Demand(
            demand.call_id,
            demand.team_id,
            tuple([Charge(self._share(charge.rule), charge.amount) for charge in demand.charges]),
            tuple([Charge(self._share(charge.rule), charge.amount) for charge in demand.endpoint]),
        )

    def _share(self, rule: Rule) -> Rule:
        known = self._shares.get(id(rule))
        if known is None:
            if len(self._shares) >= _MOST_SHARES:
                self._shares.clear()
            # Both are kept: the identity of the rule must not be given to another.
            known = self._shares[id(rule)] = (rule, self._divided(rule))
        return known[1]

    def _divided(self, rule: Rule) -> Rule:
        if rule.dimension == "budget":
            left = max(rule.limit - self._spent.get(rule.id, 0), 0)
            # What is left is divided anew each time; so each time has a counter of its own.
            return msgspec.structs.replace(rule, id=f"{rule.id}#{self._times}", limit=left // self._nodes)
        burst = max(rule.burst // self._nodes, 1) if rule.burst else 0
        return msgspec.structs.replace(rule, limit=max(rule.limit // self._nodes, 1), burst=burst)
