"""Settling calls that have ended: together, each once, before their clients have the last of their replies."""

import asyncio
from collections.abc import Sequence

import pytest

from gateway.call import CallRecord, Principal, Recorded, Usage
from gateway.http.routes import MAKES_RESPONSES
from gateway.limits.memory import MemoryLimiter
from gateway.limits.plan import Planner, Policy
from gateway.metering.estimate import Estimator
from gateway.metering.meter import Meter
from gateway.metering.prices import load_prices
from gateway.relay.allowance import Allowance
from gateway.relay.live import LiveCall
from gateway.relay.settlement import FEW_CALLS, Settlement, each
from gateway.terms import Budgets, Limits, Quota

MODEL = "openai/gpt-5.2"
ADA = Principal("ada", "engines", "key_ada", "team_engines", quota=Quota("team_engines", "key_ada"))


class Wire:
    """A client's connection; `told` grows by its name when the end of its reply is let go."""

    holds_end = True

    def __init__(self, name: str, told: list[str]) -> None:
        self.name = name
        self.told = told

    def respond_now(self, status: int, headers: list[tuple[bytes, bytes]], body: bytes, length: bytes | None) -> bool:
        raise AssertionError((status, headers, body, length))

    def write_now(self, piece: bytes) -> bool:
        raise AssertionError(piece)

    def let_go(self) -> None:
        self.told.append(self.name)

    def abort(self) -> None:
        raise AssertionError


class World:
    """A settlement that is watched, with so many calls under way, and a limit of one call at a time."""

    def __init__(self, open_calls: int = FEW_CALLS) -> None:
        planner = Planner(Policy(key=Limits(parallel=1), key_budgets=Budgets(day_microusd=100)))
        self.now_s = 0.0
        meter = Meter(load_prices(None), Estimator())
        self.allowance = Allowance(planner, MemoryLimiter(), meter, now=lambda: self.now_s)
        self.settlement = Settlement(
            self.allowance, MAKES_RESPONSES, [LiveCall(b"", "POST", Wire("", []))] * open_calls
        )
        self.told: list[str] = []
        """The ids of each batch of records, and the names of replies that were let go, in their order."""
        self.settlement.add_observer(self._observe)

    def _observe(self, recorded: Sequence[Recorded]) -> None:
        self.told.append(" ".join(record.id for record, _ in recorded))

    def call(self, name: str) -> LiveCall:
        call = LiveCall(name.encode(), "POST", Wire(f"reply {name}", self.told))
        call.principal, call.model, call.route, call.status = ADA, MODEL, MAKES_RESPONSES, 200
        call.usage, call.sent_at, call.on_end = Usage(1, 1, 2), call.started_at, self.settlement.end
        return call


async def one_turn() -> None:
    await asyncio.sleep(0)


async def test_calls_that_end_in_one_turn_are_told_together_and_then_answered() -> None:
    world = World()
    for name in ("a", "b"):
        world.call(name).end("done")
    assert (world.settlement.is_behind, world.told) == (True, [])
    await one_turn()
    assert world.told == ["a b", "reply a", "reply b"]
    assert world.settlement.is_behind is False
    world.call("c").end("done")
    await one_turn()
    assert world.told[3:] == ["c", "reply c"]


async def test_with_few_calls_under_way_each_is_settled_at_once() -> None:
    world = World(FEW_CALLS - 1)
    world.call("a").end("done")
    assert (world.settlement.is_behind, world.told) == (False, ["a", "reply a"])


async def test_a_call_is_settled_once_however_often_it_ends() -> None:
    world = World()
    call = world.call("a")
    call.end("done")
    call.end("failed")
    await one_turn()
    await one_turn()
    assert world.told == ["a", "reply a"]


async def test_what_a_call_held_is_free_when_its_client_has_the_last_of_its_reply() -> None:
    world = World()
    call = world.call("a")
    asked = call.asked = world.allowance.ask(ADA, MODEL, b"{}", 1)
    assert asked is not None
    await world.allowance.admit(call, asked)
    call.end("done")
    await one_turn()
    assert world.told == ["a", "reply a"]
    await world.allowance.admit(world.call("b"), asked)


async def test_a_bug_with_one_call_keeps_neither_its_reply_nor_the_others_back(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    world = World()
    measure = world.allowance.meter.measure
    odd = world.call("odd")

    def fail_for_one(call: LiveCall) -> object:
        return measure(call) if call is not odd else 1 // 0

    monkeypatch.setattr(world.allowance.meter, "measure", fail_for_one)
    for call in (odd, world.call("b")):
        call.end("done")
    await one_turn()
    assert world.told == ["odd b", "reply odd", "reply b"]
    assert "call odd could not be measured" in caplog.text


async def test_a_reply_that_cannot_be_let_go_keeps_no_other_back(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    world = World()
    odd = world.call("odd")
    monkeypatch.setattr(odd.wire, "let_go", lambda: 1 // 0)
    for call in (odd, world.call("b")):
        call.end("done")
    await one_turn()
    assert world.told == ["odd b", "reply b"]
    assert "the end of the reply to call odd could not be sent" in caplog.text


async def test_one_record_that_an_observer_fails_on_keeps_it_from_no_other(caplog: pytest.LogCaptureFixture) -> None:
    world, seen = World(), list[str]()

    def fail_for_one(record: CallRecord, detail: str) -> None:
        seen.append(record.id)
        assert record.id != "odd", detail

    world.settlement.add_observer(each(fail_for_one))
    for name in ("odd", "b"):
        world.call(name).end("done")
    await one_turn()
    assert seen == ["odd", "b"]
    assert "call odd could not be told of" in caplog.text


async def test_an_observer_that_fails_keeps_nothing_from_the_next_one(caplog: pytest.LogCaptureFixture) -> None:
    world = World()

    def fail(recorded: Sequence[Recorded]) -> None:
        raise ZeroDivisionError(recorded)

    world.settlement._observers = (fail, *world.settlement._observers)
    world.call("a").end("done")
    await one_turn()
    assert world.told == ["a", "reply a"]
    assert "1 calls could not be told of" in caplog.text


async def test_a_call_that_was_granted_something_of_the_day_before_asks_for_that_of_today() -> None:
    world = World()
    call = world.call("a")
    asked = call.asked = world.allowance.ask(ADA, MODEL, b"{}", 1)
    assert asked is not None
    await world.allowance.admit(call, asked)
    granted = asked.demand
    assert not world.allowance.is_outdated(ADA, asked)
    world.now_s += 86_400
    assert world.allowance.is_outdated(ADA, asked)
    world.allowance.ask_again(call, ADA, asked)
    await world.allowance.admit(call, asked)  # what the day before had of parallel calls is given back
    assert not world.allowance.is_outdated(ADA, asked)
    assert granted is not None
    assert asked.demand is not None
    assert asked.demand.call_id != granted.call_id
