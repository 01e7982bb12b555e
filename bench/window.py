"""One measured window: who used how much CPU while how much was carried."""

import asyncio
import os
import time
from collections.abc import Callable
from dataclasses import dataclass

from bench import machine


class NothingCarriedError(Exception):
    """Load was offered, and nothing came back; whoever offered it knows more."""


@dataclass(frozen=True, slots=True)
class Window:
    """CPU times in nanoseconds over `seconds`; `count` is what was carried (calls, or events).

    `alone`: of events, the share that reached the client in an HTTP chunk of its own.
    """

    seconds: float
    count: int
    proxy_ns: int
    upstream_ns: int
    clients_ns: int
    machine_ns: int
    alone: float | None = None

    @property
    def us_each(self) -> float:
        """CPU of the measured process for one call or event, in microseconds."""
        return self.proxy_ns / self.count / 1000

    @property
    def rate_hz(self) -> float:
        return self.count / self.seconds

    @property
    def shares(self) -> dict[str, float]:
        """Cores used: by the proxy, by upstream and clients together, by everything else on the machine."""
        ours = self.proxy_ns + self.upstream_ns + self.clients_ns
        parts = {"proxy": self.proxy_ns, "driver": self.upstream_ns + self.clients_ns, "others": self.machine_ns - ours}
        return {name: max(0.0, used / 1e9 / self.seconds) for name, used in parts.items()}


async def measure(seconds: float, count: Callable[[], int], proxy: list[int], upstream: list[int]) -> Window:
    """Let the load that is already running go on for `seconds`; `count` reads how much was carried so far.

    `proxy` and `upstream` are process ids; this process is the clients.
    """
    before = _read(count, proxy, upstream)
    await asyncio.sleep(seconds)
    after = _read(count, proxy, upstream)
    passed_ns, carried, *used = (late - early for late, early in zip(after, before, strict=True))
    if not carried:
        raise NothingCarriedError(f"nothing was carried within {seconds} s")
    return Window(passed_ns / 1e9, carried, *used)


def _read(count: Callable[[], int], proxy: list[int], upstream: list[int]) -> tuple[int, ...]:
    cpu = [machine.cpu_ns(pids) for pids in (proxy, upstream, [os.getpid()])]
    return (time.monotonic_ns(), count(), *cpu, machine.busy_ns())
