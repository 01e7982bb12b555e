"""Which figures are taken, from whom, how often and in what order: nginx, gateway, nginx, gateway …"""

import asyncio
import gc
import os
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from statistics import mean
from types import MappingProxyType

from bench import machine, measures
from bench.measures import Pace, Target
from bench.processes import (
    MEASURED_CORE,
    OTHER_CORE,
    Proxy,
    Upstream,
    running_valkey,
    start_gateway,
    start_nginx,
    start_upstream,
)
from bench.results import Limit, Results, Row, Share
from bench.stalls import described, stalls_ms
from bench.traffic import Call, plain_call, plain_calls_with_new_heads
from bench.window import Window

PARTS = ("plain", "limits", "stream", "tls", "latency", "memory", "start")
_PLAIN_LIMIT = Limit("ratio", 5.0)
_REDIS_LIMIT = Limit("ratio", 7.0)
_MUCH = 1_000_000_000
LIMITS = {
    "each_key": {"requests_per_minute": _MUCH, "tokens_per_minute": _MUCH, "parallel": 100_000},
    "each_team": {"requests_per_minute": _MUCH, "tokens_per_minute": _MUCH},
}
"""Five, none of which refuses anybody."""
_CHUNK_LIMIT = Limit("ratio", 2.0)
_LARGE_LIMIT = Limit("ratio", 4.0)
_LARGE_BODY_BYTES = 10_000_000
CONNECTIONS = 64
_IDLE_STREAMS = (500, 2000)
_STALLS_S = 5.0

_CHAT = Pace("chat", 200, 100, asks_usage=False)
_PACES = {
    "chat chunk, usage added by the gateway": _CHAT,
    "chat chunk, usage asked by the client": Pace("chat", 200, 100, asks_usage=True),
    "responses chunk": Pace("responses", 200, 100, asks_usage=False),
    "chat chunk, few: 100 streams at 50/s": Pace("chat", 100, 50, asks_usage=False),
}


@dataclass(frozen=True, slots=True)
class Plan:
    """`rounds` of `window_s` each; `serve` is the command that starts the gateway.

    With `null` a second nginx takes the gateway's place: then every ratio
    should be 1, and how far it is off is what this machine cannot tell apart.
    """

    rounds: int
    window_s: float
    parts: tuple[str, ...]
    serve: str
    null: bool


@dataclass(slots=True)
class Suite:
    """A run: starts what it needs, fills `results`, and stops what it started."""

    plan: Plan
    folder: Path
    results: Results = field(default_factory=lambda: Results(machine.describe()))
    _running: list[Proxy] = field(default_factory=list)

    async def run(self) -> Results:
        os.sched_setaffinity(0, {OTHER_CORE})
        gc.freeze()
        gc.disable()
        upstream = start_upstream(self.folder)
        try:
            await self._measure(upstream)
        finally:
            self._stop_proxies()
            upstream.stop()
        return self.results

    async def _measure(self, upstream: Upstream) -> None:
        steps = {
            "plain": self._plain,
            "limits": self._limits,
            "stream": self._stream,
            "latency": self._latency,
            "tls": self._tls,
        }
        chosen = [step for part, step in steps.items() if part in self.plan.parts]
        if {"memory", "start"} & set(self.plan.parts):
            await self._fresh(upstream)
        if chosen:
            self._start_pair(upstream, tls=False)
        for step in chosen:
            await step(upstream)
        self.results.notes.append("Every reply was, byte for byte, what upstream sent.")

    def _start_pair(self, upstream: Upstream, *, tls: bool) -> tuple[Proxy, Proxy]:
        """Start nginx and the gateway, in place of those that ran before."""
        self._stop_proxies()
        self._running.append(start_nginx(self.folder, upstream, tls=tls))
        self._running.append(self._start_gateway(upstream, tls=tls))
        return self._running[0], self._running[1]

    def _start_gateway(
        self, upstream: Upstream, *, tls: bool, more: Mapping[str, object] = MappingProxyType({})
    ) -> Proxy:
        if self.plan.null:
            return start_nginx(self.folder, upstream, tls=tls, name="second nginx")
        return start_gateway(self.folder, upstream, tls=tls, command=self.plan.serve, more=more)

    def _stop_proxies(self) -> None:
        while self._running:
            self._running.pop().stop()

    async def _plain(self, upstream: Upstream) -> None:
        await self._calls(Row("plain call", "µs CPU", _PLAIN_LIMIT), plain_call(), CONNECTIONS, upstream)
        fresh = plain_calls_with_new_heads()
        await self._calls(Row("plain call, no head like another", "µs CPU"), fresh, CONNECTIONS, upstream)
        large = plain_call(_LARGE_BODY_BYTES)
        await self._calls(Row("call with a 10 MB body", "µs CPU", _LARGE_LIMIT), large, 2, upstream)
        window = await measures.calls(measures.target(None, upstream), plain_call(), CONNECTIONS, self.plan.window_s)
        self._share("plain call, no proxy", [window])

    async def _limits(self, upstream: Upstream) -> None:
        """The same call with five limits: in the process's memory, and in a Valkey on the other core."""
        await self._limited("plain call, five limits in memory", _PLAIN_LIMIT, upstream, {})
        with running_valkey(self.folder) as (url, pid):
            shared = replace(upstream, beside=(pid,))
            await self._limited("plain call, five limits in Redis", _REDIS_LIMIT, shared, {"redis": {"url": url}})
            self._running.pop().stop()
        self._running.append(self._start_gateway(upstream, tls=False))

    async def _limited(self, name: str, limit: Limit, upstream: Upstream, more: Mapping[str, object]) -> None:
        self._running.pop().stop()
        self._running.append(self._start_gateway(upstream, tls=False, more={"limits": LIMITS, **more}))
        await self._calls(Row(name, "µs CPU", limit), plain_call(), CONNECTIONS, upstream)

    async def _stream(self, upstream: Upstream) -> None:
        for name, pace in _PACES.items():
            await self._stream_row(name, pace, upstream)

    async def _calls(self, row: Row, call: Call, connections: int, upstream: Upstream) -> None:
        async def one_round(to: Target) -> Window:
            return await measures.calls(to, call, connections, self.plan.window_s)

        await self._rounds(row, upstream, one_round)

    async def _stream_row(self, name: str, pace: Pace, upstream: Upstream) -> None:
        async def one_round(to: Target) -> Window:
            return await measures.streamed_events(to, pace, self.plan.window_s)

        await self._rounds(Row(name, "µs CPU", _CHUNK_LIMIT), upstream, one_round)

    async def _tls(self, upstream: Upstream) -> None:
        self._start_pair(upstream, tls=True)
        row = Row("plain call, TLS to upstream", "µs CPU", _PLAIN_LIMIT)
        await self._calls(row, plain_call(), CONNECTIONS, upstream)
        await self._stream_row("chat chunk, TLS to upstream", _CHAT, upstream)

    async def _rounds(self, row: Row, upstream: Upstream, one_round: Callable[[Target], Awaitable[Window]]) -> None:
        self.results.rows.append(row)
        windows: dict[str, list[Window]] = {"nginx": [], "gateway": []}
        for _ in range(self.plan.rounds):
            for name, proxy, into in zip(windows, self._running, (row.nginx, row.gateway), strict=True):
                await self._rest()
                window = await one_round(measures.target(proxy, upstream))
                windows[name].append(window)
                into.append(window.us_each)
        for name, found in windows.items():
            self._share(f"{row.name}, {name}", found)

    async def _rest(self) -> None:
        """What one still does when its load has ended, such as to fill its database, is not to slow the next one."""
        await measures.idle([pid for proxy in self._running for pid in proxy.pids])

    def _share(self, what: str, windows: list[Window]) -> None:
        shares = {name: mean(window.shares[name] for window in windows) for name in ("proxy", "driver", "others")}
        alone = min((window.alone for window in windows if window.alone is not None), default=None)
        self.results.shares.append(Share(what, mean(window.rate_hz for window in windows), **shares, alone=alone))

    async def _latency(self, upstream: Upstream) -> None:
        """Direct, nginx and gateway get the same arrivals, at half of what the gateway can carry."""
        peak = await measures.calls(measures.target(self._running[1], upstream), plain_call(), CONNECTIONS, 1.0)
        rate_hz = peak.rate_hz / 2
        p50 = Row(f"latency p50 at {rate_hz:,.0f} calls/s", "ms", Limit("added", 0.3))
        p99 = Row(f"latency p99 at {rate_hz:,.0f} calls/s", "ms", Limit("added", 1.5))
        self.results.rows += [p50, p99]
        for _ in range(self.plan.rounds):
            for name, proxy in zip(("direct", "nginx", "gateway"), (None, *self._running), strict=True):
                await self._rest()
                found = await measures.latencies_ms(measures.target(proxy, upstream), rate_hz, self.plan.window_s)
                getattr(p50, name).append(found[0])
                getattr(p99, name).append(found[1])
        stalls = await asyncio.to_thread(stalls_ms, (MEASURED_CORE, OTHER_CORE), _STALLS_S)
        self.results.notes.append(described(stalls, _STALLS_S))

    async def _fresh(self, upstream: Upstream) -> None:
        """What only a process that has just been started can tell: a new one each round."""
        start = Row("start to ready", "s", Limit("value", 1.0))
        worker = Row("resident memory, started", "MB", Limit("value", 100.0))
        memory = [Row(f"memory a stream, {count} open", "KiB", Limit("value", 100.0)) for count in _IDLE_STREAMS]
        for _ in range(self.plan.rounds):
            for name, proxy in zip(("nginx", "gateway"), self._start_pair(upstream, tls=False), strict=True):
                getattr(start, name).append(proxy.start_s)
                getattr(worker, name).append(machine.rss_bytes(proxy.pids) / 1e6)
                if "memory" in self.plan.parts:
                    found = await measures.stream_memory_kib(measures.target(proxy, upstream), _IDLE_STREAMS)
                    for row, kib in zip(memory, found, strict=True):
                        getattr(row, name).append(kib)
                    await asyncio.sleep(0.2)
        self.results.rows += [start, worker, *(memory if "memory" in self.plan.parts else [])]
