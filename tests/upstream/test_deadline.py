"""Waiting ends after a second look, whatever is said of it meanwhile."""

import asyncio

import pytest

from gateway.upstream.deadline import SECOND_LOOK_S, Deadline


async def _say_again_and_again(deadline: Deadline, at_s: float) -> None:
    loop = asyncio.get_running_loop()
    async with deadline:
        while loop.time() < at_s + 100 * SECOND_LOOK_S:
            deadline.reschedule(at_s)
            await asyncio.sleep(SECOND_LOOK_S / 4)


async def test_a_time_that_is_over_cannot_be_put_off_by_saying_it_again_and_again() -> None:
    at_s = asyncio.get_running_loop().time() + SECOND_LOOK_S
    deadline = Deadline(at_s)
    with pytest.raises(TimeoutError):
        await _say_again_and_again(deadline, at_s)
    assert deadline.expired()


async def test_a_later_time_holds_though_the_one_before_was_over() -> None:
    loop = asyncio.get_running_loop()
    async with Deadline(loop.time()) as deadline:
        await asyncio.sleep(0)
        deadline.reschedule(loop.time() + 60)
        await asyncio.sleep(3 * SECOND_LOOK_S)
    assert not deadline.expired()
