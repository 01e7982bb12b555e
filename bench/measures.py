"""What is measured, one function each: a running proxy in, numbers out.

Knows how to load a proxy and what to read meanwhile. Which proxies, how often
and in what order is the suite's.
"""

import asyncio
from dataclasses import dataclass

from bench import machine
from bench.load import ClosedLoop, OpenLoop, StreamClient, WrongReplyError, close_all, open_streams
from bench.processes import Proxy, Upstream
from bench.traffic import Call, StreamKind, idle_stream, paced_stream, plain_call
from bench.window import Window, measure

_WARM_UP_S = 0.5
_END_WITHIN_S = 30
_LATENCY_CONNECTIONS = 128


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


async def calls(to: Target, call: Call, connections: int, seconds: float) -> Window:
    """Calls as fast as they are answered."""
    load = ClosedLoop(to.port, call, connections)
    await load.start()
    await asyncio.sleep(_WARM_UP_S)
    try:
        return await measure(seconds, lambda: load.calls, to.proxy, to.upstream)
    finally:
        load.stop()


async def streamed_events(to: Target, pace: Pace, seconds: float) -> tuple[Window, float]:
    """Paced streams; also the share of events that reached their client in an HTTP chunk of their own.

    The window begins when all streams are open and ends before the first one
    does; then every stream is read to its end and compared.
    """
    lasts_s = seconds + 2 * _WARM_UP_S + pace.streams * 0.002
    stream = paced_stream(pace.kind, int(lasts_s * pace.rate_hz), pace.rate_hz, asks_usage=pace.asks_usage)
    clients = await open_streams(to.port, stream, pace.streams)
    await asyncio.sleep(_WARM_UP_S)
    window = await measure(seconds, lambda: sum(client.events for client in clients), to.proxy, to.upstream)
    if any(client.finished.done() for client in clients):
        close_all(clients)
        raise WrongReplyError("a stream ended inside the window: the machine is too busy to measure on")
    await asyncio.wait_for(asyncio.gather(*(client.finished for client in clients)), _END_WITHIN_S)
    close_all(clients)
    return window, _own_chunk_share(clients)


def _own_chunk_share(clients: list[StreamClient]) -> float:
    return sum(client.chunks for client in clients) / sum(client.events for client in clients)


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
