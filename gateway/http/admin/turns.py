"""Whose turn it is to ask the ledger: each key one question at a time, and few at once.

A question may keep the database busy for as long as it is let, and calls need that too. So no key holds up another for
long, and nobody but admins holds up admins.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from weakref import WeakValueDictionary

from gateway.access.records import Actor
from gateway.errors import RETRY_SOON, Overloaded, RateLimited

_AT_ONCE = 2
"""Questions that may keep the database busy, of whose connections calls need some too; one is for admins alone."""


class Turns:
    """Use it on one event loop. Nobody waits longer than `timeout_s` for a turn."""

    def __init__(self, timeout_s: float) -> None:
        self._timeout_s = timeout_s
        self._all = asyncio.Semaphore(_AT_ONCE)
        self._of_others = asyncio.Semaphore(_AT_ONCE - 1)
        self._asking: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()
        """By key; there is one while somebody holds it, or waits."""

    @contextlib.asynccontextmanager
    async def of(self, actor: Actor, *, goes_on: bool = False) -> AsyncIterator[None]:
        """It is `actor`'s turn meanwhile. Raises `RateLimited` while the same key asks something else, or `Overloaded`.

        An admin, whose dashboards ask much at once, waits for the key's other question instead; and so does what
        `goes_on`: it was let in before, or is a trifle.
        """
        asker = actor.key_id or actor.name
        mine = self._asking.setdefault(asker, asyncio.Lock())
        if mine.locked() and not goes_on and actor.role != "admin":
            raise RateLimited(
                "This key asks the ledger something else. Wait for that, and send one question after the other.",
                type_="requests",
                headers=RETRY_SOON,
            )
        async with contextlib.AsyncExitStack() as held:
            try:
                async with asyncio.timeout(self._timeout_s):
                    await held.enter_async_context(mine)
                    if actor.role != "admin":
                        await held.enter_async_context(self._of_others)
                    await held.enter_async_context(self._all)
            except TimeoutError:
                raise Overloaded(
                    "Too many others ask the ledger. Please try again in a moment.",
                    detail=f"no turn to ask the ledger in {self._timeout_s} s",
                ) from None
            yield
