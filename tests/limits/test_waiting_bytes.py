"""Calls that wait keep their bodies in memory: so many bytes in all, and no more than a tenth of them of one key."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from gateway.limits.rules import Decision
from gateway.limits.waiting import WaitingRoom
from tests.limits.household import SECOND, Household
from tests.limits.line import ran
from tests.limits.memory_bench import MemoryBench

MOST = 1_000
OF_A_KEY = MOST // 10


class Room:
    """A room for `MOST` bytes over a limit of one call at once, which somebody else holds."""

    def __init__(self) -> None:
        self.bench = MemoryBench()
        self.house = Household(self.bench)
        self.slots = self.house.slots(1, whose="team")
        self.room = WaitingRoom(self.bench.limiter, clock=self.bench.now_us, most_bytes=MOST)
        self.tasks: list[asyncio.Task[tuple[Decision, float]]] = []

    async def come(self, key: str, held_bytes: int, max_wait_s: float = 60) -> asyncio.Task[tuple[Decision, float]]:
        demand = self.house.call({self.slots: 1})
        admitting = self.room.admit(demand, whose=key, max_wait_s=max_wait_s, held_bytes=held_bytes)
        self.tasks.append(asyncio.create_task(admitting))
        await ran()
        return self.tasks[-1]

    async def is_let_wait(self, key: str, held_bytes: int) -> bool:
        """Else it was refused at once, with the word that it gets where no place is left."""
        waiting = self.room.waiting
        task = await self.come(key, held_bytes)
        if not task.done():
            return True
        decision, waited_s = task.result()
        assert (decision.admitted, decision.binding, waited_s) == (False, self.slots, 0.0)
        assert decision.retry_after_us == SECOND
        assert self.room.waiting == waiting
        return False


@pytest.fixture
async def room() -> AsyncIterator[Room]:
    room = Room()
    await room.house.admit({room.slots: 1})
    yield room
    for task in room.tasks:
        task.cancel()
    await ran()
    assert room.room.waiting == 0
    assert room.room.held_bytes == 0


async def test_one_key_keeps_no_more_than_a_tenth_of_the_bytes(room: Room) -> None:
    assert await room.is_let_wait("a", OF_A_KEY - 10)
    assert not await room.is_let_wait("a", 11)
    assert await room.is_let_wait("a", 10)
    assert not await room.is_let_wait("a", 1)
    assert await room.is_let_wait("a", 0)
    assert await room.is_let_wait("b", OF_A_KEY)


async def test_a_call_that_is_larger_than_that_never_waits(room: Room) -> None:
    assert not await room.is_let_wait("a", OF_A_KEY + 1)
    assert await room.is_let_wait("a", OF_A_KEY)


async def test_all_together_keep_no_more_than_there_is_room_for(room: Room) -> None:
    for key in "abcdefghij":
        assert await room.is_let_wait(key, OF_A_KEY - 1)
    assert not await room.is_let_wait("k", 11)
    assert await room.is_let_wait("k", 10)
    assert not await room.is_let_wait("l", 1)
    assert room.room.held_bytes == MOST


async def test_whoever_leaves_or_is_served_or_has_waited_long_enough_makes_room(room: Room) -> None:
    first = await room.come("a", 40, max_wait_s=1)
    second = await room.come("a", 40)
    third = await room.come("a", 20)
    assert not await room.is_let_wait("a", 20)
    third.cancel()
    await ran()
    assert await room.is_let_wait("a", 20)
    await room.bench.advance(SECOND)
    room.room.look()
    await ran()
    assert first.done()
    assert not second.done()
    assert room.room.held_bytes == 60
    assert await room.is_let_wait("a", 40)


async def test_a_call_that_fits_comes_in_however_large_it_is() -> None:
    room = Room()
    decision, waited_s = (await room.come("a", 10 * MOST)).result()
    assert (decision.admitted, waited_s) == (True, 0.0)
