"""After any mixture of ends, cancellations, broken connections, flushes of scripts, resets and killed gateways the
books are right: what a budget has left is what the ledger says, and nobody holds a slot."""

import asyncio
import random
from dataclasses import dataclass, field

import pytest

from gateway.limits.breaker import Breaker
from gateway.limits.redis_keys import hash_key
from gateway.limits.rules import Demand, Rule
from tests.limits.household import SECOND, Household, ask, new_id
from tests.limits.redis_bench import Clock, RedisBench
from tests.limits.servers import Server

LIMIT = 1_000_000


@dataclass
class Books:
    """What was spent by calls that lived to tell it."""

    clock: Clock
    url: str
    spent: int = 0
    under_way: list[tuple[RedisBench, Demand]] = field(default_factory=list)
    gateways: list[RedisBench] = field(default_factory=list)

    def open_gateway(self) -> RedisBench:
        self.gateways.append(RedisBench(self.url, clock=self.clock))
        return self.gateways[-1]

    async def kill(self, gateway: RedisBench) -> None:
        """Its calls end with it; what ended a moment ago has been told (it takes milliseconds)."""
        await gateway.arrived()
        self.gateways.remove(gateway)
        self.under_way = [(where, demand) for where, demand in self.under_way if where is not gateway]
        await gateway.die()

    async def reset(self, gateway: RedisBench, rules: list[Rule]) -> None:
        """Of a budget or two: nothing is spent then, and what calls under way take is spent after it."""
        for each in self.gateways:
            await each.arrived()
        await gateway.limiter.reset(rules)
        self.spent = 0


@pytest.mark.parametrize("seed", range(3))
async def test_whatever_happens_budgets_agree_with_the_ledger_and_no_slot_is_held(seed: int, is_long: bool) -> None:
    dice, server = random.Random(seed), Server()
    server.start()
    books = Books(Clock(), server.url)
    house = Household(books.open_gateway())
    rules = [
        house.slots(500),
        house.slots(500, whose="endpoint"),
        house.budget(LIMIT),
        house.budget(LIMIT, whose="team"),
    ]
    for _ in range(2_000 if is_long else 250):
        await _step(dice, books, server, rules)
    for gateway, demand in books.under_way:
        _end(dice, books, gateway, demand, rules)
    last = books.open_gateway()
    for gateway in books.gateways:
        await gateway.arrived()
    await last.advance(121 * SECOND)
    await last.limiter._sweeper.sweep_one(house.team)
    told = [standing.remaining for standing in await last.limiter.standings(rules)]
    assert told == [500, 500, LIMIT - books.spent, LIMIT - books.spent]
    assert server.command("HLEN", hash_key(house.team)) == 3  # the clock and two budgets
    for gateway in books.gateways:
        await gateway.limiter.close()
    server.close()


async def _step(dice: random.Random, books: Books, server: Server, rules: list[Rule]) -> None:
    gateway = dice.choice(books.gateways)
    under_way = books.under_way
    match dice.choices(["call", "crowd", "end", "time", "server", "gateways", "reset"], [30, 5, 30, 5, 6, 5, 1])[0]:
        case "call":
            await _call(dice, books, gateway, rules)
        case "crowd":
            await asyncio.gather(*(_call(dice, books, gateway, rules) for _ in range(20)))
        case "end" if under_way:
            _end(dice, books, *under_way.pop(dice.randrange(len(under_way))), rules)
        case "time":
            books.clock.us += dice.randrange(9 * SECOND)
            for each in books.gateways:
                await each.renew()
        case "server":
            server.command(*dice.choice([("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes"), ("SCRIPT", "FLUSH")]))
        case "reset":
            await books.reset(gateway, rules[2:])
        case "gateways" if len(books.gateways) == 4:
            await books.kill(gateway)
        case "gateways":
            books.open_gateway()


async def _call(dice: random.Random, books: Books, gateway: RedisBench, rules: list[Rule]) -> None:
    amounts = dict(zip(rules, (1, 1, cost := dice.randrange(1, 100), cost), strict=True))
    house_call = Household(gateway).call(
        {rule: amount for rule, amount in amounts.items() if rule.whose != "endpoint"},
        {rule: amount for rule, amount in amounts.items() if rule.whose == "endpoint"},
        call_id=f"call_{new_id()}",
    )
    task = asyncio.ensure_future(ask(gateway.limiter, house_call))
    if dice.random() < 0.2:
        # The client leaves before it is known whether it was admitted.
        await asyncio.sleep(dice.random() / 2_000)
        if task.cancel():
            await asyncio.gather(task, return_exceptions=True)
            if not task.cancelled():
                gateway.limiter.cancel(house_call)
            return
    if (await task).admitted:
        books.under_way.append((gateway, house_call))


def _end(dice: random.Random, books: Books, gateway: RedisBench, demand: Demand, rules: list[Rule]) -> None:
    if dice.random() < 0.3:
        gateway.limiter.cancel(demand)
        return
    cost = dice.randrange(300)
    books.spent += cost
    gateway.limiter.settle(demand, {rules[2].id: cost, rules[3].id: cost})


def test_a_breaker_opens_after_failures_in_a_row_and_closes_with_a_success() -> None:
    breaker = Breaker(3)
    assert [breaker.failed(), breaker.failed()] == [False, False]
    assert not breaker.succeeded()
    assert [breaker.failed(), breaker.failed(), breaker.failed(), breaker.failed()] == [False, False, True, False]
    assert breaker.is_open
    assert breaker.succeeded()
    assert not breaker.is_open
