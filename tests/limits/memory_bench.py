"""A memory limiter whose time the test holds."""

from gateway.limits.memory import MemoryLimiter, Spent


class MemoryBench:
    """The `Bench` of the memory limiter."""

    def __init__(self, load_spent: Spent | None = None, *, renew_every_s: float = 10.0) -> None:
        self._now_us = 1_795_000_000_123_457
        self.limiter = MemoryLimiter(clock=self.now_us, load_spent=load_spent, renew_every_s=renew_every_s)

    def now_us(self) -> int:
        return self._now_us

    async def advance(self, us: int) -> None:
        self._now_us += us

    async def renew(self) -> None:
        self.limiter.renew()

    async def arrived(self) -> None:
        """Everything arrives at once."""
