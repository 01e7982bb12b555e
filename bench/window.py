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

    `others_ns`: of all other processes, and what the host of a virtual machine took.
    `alone`: of events, the share that reached the client in an HTTP chunk of its own.
    """

    seconds: float
    count: int
    proxy_ns: int
    upstream_ns: int
    clients_ns: int
    others_ns: int
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
        parts = {"proxy": self.proxy_ns, "driver": self.upstream_ns + self.clients_ns, "others": self.others_ns}
        return {name: used / 1e9 / self.seconds for name, used in parts.items()}


async def measure(seconds: float, count: Callable[[], int], proxy: list[int], upstream: list[int]) -> Window:
    """Let the load that is already running go on for `seconds`; `count` reads how much was carried so far.

    `proxy` and `upstream` are process ids; this process is the clients.
    """
    others_before_ns, stolen_before_ns = machine.cpu_ns_by_process(), machine.stolen_ns()
    before = _read(count, proxy, upstream)
    await asyncio.sleep(seconds)
    after = _read(count, proxy, upstream)
    passed_ns, carried, *used = (late - early for late, early in zip(after, before, strict=True))
    if not carried:
        raise NothingCarriedError(f"nothing was carried within {seconds} s")
    ours = {os.getpid(), *proxy, *upstream}
    others_ns = machine.stolen_ns() - stolen_before_ns
    for pid, used_ns in machine.cpu_ns_by_process().items():
        others_ns += 0 if pid in ours else used_ns - others_before_ns.get(pid, 0)
    proxy_ns, upstream_ns, clients_ns = used
    return Window(passed_ns / 1e9, carried, proxy_ns, upstream_ns, clients_ns, others_ns)


def _read(count: Callable[[], int], proxy: list[int], upstream: list[int]) -> tuple[int, ...]:
    cpu = [machine.cpu_ns(pids) for pids in (proxy, upstream, [os.getpid()])]
    return (time.monotonic_ns(), count(), *cpu)
