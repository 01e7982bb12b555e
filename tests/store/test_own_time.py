"""Time of the database while this process stands still, once and again and again."""

import asyncio
import threading

from gateway.store.own_time import Timer


async def test_a_process_that_is_always_late_is_given_its_time_four_times_and_no_more() -> None:
    over, turns = asyncio.Event(), 0
    Timer(0.01, over.set)
    while not over.is_set() and turns < 9:
        turns += 1
        threading.Event().wait(0.6)  # the whole event loop stands still
        for _ in range(3):
            await asyncio.sleep(0)
    assert turns == 4
