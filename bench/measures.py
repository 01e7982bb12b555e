"""What is measured, one function each: a running proxy in, numbers out.

Knows how to load a proxy and what to read meanwhile. Which proxies, how often
and in what order is the suite's.
"""

import asyncio
import time
from dataclasses import dataclass, replace
from functools import partial

from bench import machine
from bench.load import ClosedLoop, OpenLoop, StreamClient, close_all, open_streams
from bench.processes import Proxy, Upstream
from bench.traffic import Call, StreamKind, idle_stream, paced_stream, plain_call
from bench.window import NothingCarriedError, Window, measure

_WARM_UP_S = 0.5
_END_WITHIN_S = 30
_OPENING_S = (0.4, 4.0)
_LATENCY_CONNECTIONS = 128
_IDLE_SHARE, _IDLE_LOOK_S, _IDLE_LOOKS, _IDLE_WITHIN_S = 0.03, 0.2, 3, 15.0


@dataclass(frozen=True, slots=True)
class Target:
    """Where the load goes, and whose CPU counts: a proxy, or upstream itself (then `proxy` is empty)."""

    port: int
    proxy: list[int]
    upstream: list[int]


@dataclass(frozen=True, slots=True)
class Pace:
    """`streams` at once, each with `rate_hz` events a second, every event its own write."""

    kind: StreamKind
    streams: int
    rate_hz: int
    asks_usage: bool


def target(proxy: Proxy | None, upstream: Upstream) -> Target:
    if proxy is None:
        return Target(upstream.port, [], upstream.pids)
    return Target(proxy.port, proxy.pids, upstream.pids)


async def idle(pids: list[int]) -> None:
    """Return when these processes have nothing to do, or after some seconds."""
    until_s = time.monotonic() + _IDLE_WITHIN_S
    rested = 0
    while rested < _IDLE_LOOKS and time.monotonic() < until_s:
        before_ns = machine.cpu_ns(pids)
        await asyncio.sleep(_IDLE_LOOK_S)
        used = (machine.cpu_ns(pids) - before_ns) / (_IDLE_LOOK_S * 1e9)
        rested = rested + 1 if used < _IDLE_SHARE else 0


async def calls(to: Target, call: Call, connections: int, seconds: float) -> Window:
    """Calls as fast as they are answered."""
    load = ClosedLoop(to.port, call, connections)
    await load.start()
    await asyncio.sleep(_WARM_UP_S)
    try:
        return await measure(seconds, lambda: load.calls, to.proxy, to.upstream)
    finally:
        load.stop()


async def streamed_events(to: Target, pace: Pace, seconds: float) -> Window:
    """Carry paced streams; what is counted is their events.

    The window begins when all streams are open and ends before the first one
    does; then every stream is read to its end and compared. On a busy machine
    opening them takes longer, so there is a second try with longer streams.
    """
    for opening_s in _OPENING_S:
        clients = await _open_paced(to, pace, opening_s + seconds + 2 * _WARM_UP_S)
        window = await measure(seconds, partial(_events, clients), to.proxy, to.upstream)
        ended_early = any(client.finished.done() for client in clients)
        await asyncio.wait_for(asyncio.gather(*(client.finished for client in clients)), _END_WITHIN_S)
        close_all(clients)
        if not ended_early:
            return replace(window, alone=_own_chunk_share(clients))
    raise NothingCarriedError("streams ended before all were open: the machine is too busy to measure on")


async def _open_paced(to: Target, pace: Pace, seconds: float) -> list[StreamClient]:
    stream = paced_stream(pace.kind, int(seconds * pace.rate_hz), pace.rate_hz, asks_usage=pace.asks_usage)
    clients = await open_streams(to.port, stream, pace.streams)
    await asyncio.sleep(_WARM_UP_S)
    return clients


def _events(clients: list[StreamClient]) -> int:
    return sum(client.events for client in clients)


def _own_chunk_share(clients: list[StreamClient]) -> float:
    return sum(client.chunks for client in clients) / _events(clients)


async def latencies_ms(to: Target, rate_hz: float, seconds: float) -> tuple[float, float]:
    """Median and 99th percentile of calls at a rate, from due to answered, in milliseconds."""
    load = OpenLoop(to.port, plain_call(), rate_hz, _LATENCY_CONNECTIONS)
    await load.run(seconds)
    ordered = sorted(load.latencies_ns)
    return ordered[len(ordered) // 2] / 1e6, ordered[len(ordered) * 99 // 100] / 1e6


async def stream_memory_kib(to: Target, counts: tuple[int, ...]) -> list[float]:
    """Growth of resident memory by each open idle stream, in KiB, with each of `counts` streams open."""
    await calls(to, plain_call(), 16, 0.2)
    before = machine.rss_bytes(to.proxy)
    clients: list[StreamClient] = []
    growth = []
    for count in counts:
        clients += await open_streams(to.port, idle_stream(), count - len(clients))
        await asyncio.sleep(_WARM_UP_S)
        growth.append((machine.rss_bytes(to.proxy) - before) / count / 1024)
    close_all(clients)
    return growth
