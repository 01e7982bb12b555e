"""A Redis limiter whose time, which is Redis's, the test holds."""

import re
from typing import Any

from gateway.limits.connection import opened
from gateway.limits.memory import Spent
from gateway.limits.patience import Patience
from gateway.limits.redis import RedisLimiter
from gateway.limits.redis_options import OnFailure, Timing
from gateway.limits.server import Argument, Script, Server


class Clock:
    """Unix microseconds that stand still, but for `us`."""

    def __init__(self, us: int = 1_795_000_000_123_457) -> None:
        self.us = us

    def __call__(self) -> int:
        return self.us


class ClockedServer:
    """A server whose scripts read `clock` in place of the server's own: the same text but for that one call."""

    def __init__(self, url: str, clock: Clock) -> None:
        self._server: Server = opened(url)
        self._clock = clock
        self.is_cluster = self._server.is_cluster

    async def run(self, script: Script, keys: list[str], *arguments: Argument, patience: Patience) -> Any:
        text, count = re.subn(rb"redis\.call\('TIME'\)", self._time(), script.text)
        assert count == 1
        return await self._server.run(Script(text), keys, *arguments, patience=patience)

    async def close(self) -> None:
        await self._server.close()

    def _time(self) -> bytes:
        return b"{'%d', '%d'}" % divmod(self._clock.us, 1_000_000)


class RedisBench:
    """The `Bench` of the Redis limiter. It remembers refusals by the same clock."""

    def __init__(
        self,
        url: str,
        load_spent: Spent | None = None,
        *,
        clock: Clock | None = None,
        most_remembered: int = 100,
        on_failure: OnFailure = "local",
    ) -> None:
        self.clock = clock or Clock()
        self.server = ClockedServer(url, self.clock)
        # A test machine may be busy for longer than a call should wait.
        timing = Timing(budget_s=5, most_remembered=most_remembered, clock=self.clock)
        self.limiter = RedisLimiter(self.server, on_failure=on_failure, load_spent=load_spent, timing=timing)

    async def die(self) -> None:
        """It does nothing more, and tells nobody, as after SIGKILL."""
        for task in self.limiter._tasks:
            task.cancel()
        await self.server.close()

    def now_us(self) -> int:
        return self.clock.us

    async def advance(self, us: int) -> None:
        await self.arrived()
        self.clock.us += us

    async def renew(self) -> None:
        await self.limiter.renew()

    async def arrived(self) -> None:
        await self.limiter.flush()
