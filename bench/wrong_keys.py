"""What valid calls notice of somebody who tries keys out: `python -m bench.wrong_keys`.

Valid calls come at a steady rate, alone; with wrong keys beside them; and with as many valid calls of another client
beside them. A second client costs something wherever it sends its requests: so there is one too whose requests an nginx
on the gateway's core refuses, which does no more than that. The gateway has core 0, the clients and upstream share
core 1. All take turns, so that a slow minute of the machine is shared by all.
"""

import argparse
import asyncio
import os
import random
import re
import statistics
import subprocess
import sys
import tempfile
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import count, repeat
from pathlib import Path
from typing import cast

import uvloop

from bench.alarm import Alarm, now_ns
from bench.load import OpenLoop
from bench.machine import cpu_ns
from bench.processes import OTHER_CORE, Proxy, start_gateway, start_nginx, start_upstream
from bench.traffic import CLIENT_KEY, plain_call
from gateway.access.keys import new_secret

KINDS = ("nothing", "elsewhere", "wrong", "unknown", "valid")
_CONNECTIONS = 64
_VALID_RATE_HZ = 500
_STATUS = {
    "elsewhere": b"HTTP/1.1 401 ",
    "wrong": b"HTTP/1.1 401 ",
    "unknown": b"HTTP/1.1 401 ",
    "valid": b"HTTP/1.1 200 ",
}


def _requests(kind: str) -> Iterator[bytes]:
    """`wrong`: a bad checksum; `unknown`: a good one, of a key that nobody has; `valid`: a call like any other.

    `elsewhere`: what nginx refuses whatever the key is.
    """
    request = plain_call().request
    if kind == "elsewhere":
        return repeat(request.replace(b"/v1/chat/completions", b"/refused", 1))
    if kind == "valid":
        return repeat(request)
    right = new_secret()
    made = (f"{right[:-6]}{number:06d}" for number in count()) if kind == "wrong" else (new_secret() for _ in count())
    return (request.replace(CLIENT_KEY.encode(), secret.encode()) for secret in made)


class _Caller(asyncio.Protocol):
    """A connection of the other client; the answers must all have one status."""

    def __init__(self, beside: "_Beside") -> None:
        self.transport: asyncio.Transport
        self.wrong: bytes | None = None
        self._beside = beside

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        if data.startswith(self._beside.status):
            self._beside.answered(self)
        else:
            self.wrong = data


class _Beside:
    """The other client: calls at random moments at a mean rate, in a process of its own."""

    def __init__(self, port: int, kind: str, rate_hz: float) -> None:
        self.status = _STATUS[kind]
        self.answers = 0
        self._port, self._gap_ns = port, 1e9 / rate_hz
        self._requests = _requests(kind)
        self._idle: deque[_Caller] = deque()
        self._alarm = Alarm(self._ring)
        self._due_ns = 0.0

    async def run(self, seconds: float) -> int:
        loop = asyncio.get_running_loop()
        pairs = [
            await loop.create_connection(lambda: _Caller(self), "127.0.0.1", self._port) for _ in range(_CONNECTIONS)
        ]
        callers = [caller for _, caller in pairs]
        self._idle.extend(callers)
        self._due_ns = now_ns()
        self._ring()
        await asyncio.sleep(seconds)
        self._alarm.close()
        await asyncio.sleep(0.1)
        for caller in callers:
            caller.transport.abort()
        if wrong := [caller.wrong for caller in callers if caller.wrong]:
            sys.exit(f"another answer than the one that was expected: {wrong[0][:200]!r}")
        return self.answers

    def answered(self, caller: _Caller) -> None:
        self.answers += 1
        self._idle.append(caller)

    def _ring(self) -> None:
        now = now_ns()
        while self._due_ns <= now:
            if self._idle:
                self._idle.popleft().transport.write(next(self._requests))
            self._due_ns += random.expovariate(1.0) * self._gap_ns
        self._alarm.set(int(self._due_ns))


def _latencies_ms(gateway: Proxy, nginx: Proxy, kind: str, rate_hz: float, seconds: float) -> tuple[list[float], int]:
    """Of the valid calls; and how many the other client has made."""
    port = nginx.port if kind == "elsewhere" else gateway.port
    command = [sys.executable, "-m", "bench.wrong_keys", "--beside", kind, str(port), str(rate_hz)]
    other = None
    if kind != "nothing":
        command.append(str(seconds + 1))
        other = subprocess.Popen(command, stdout=subprocess.PIPE)  # noqa: S603 - our own
        assert other.stdout is not None  # noqa: S101 - a pipe was asked for
        other.stdout.readline()
    latencies_ms = uvloop.run(_valid_calls(gateway.port, seconds))
    return latencies_ms, 0 if other is None else int(other.communicate()[0])


async def _valid_calls(port: int, seconds: float) -> list[float]:
    load = OpenLoop(port, plain_call(), _VALID_RATE_HZ, _CONNECTIONS)
    await load.run(seconds)
    return [latency / 1e6 for latency in load.latencies_ns]


def _quantile(latencies_ms: list[float], share: float) -> float:
    return sorted(latencies_ms)[int(share * len(latencies_ms))]


def _peak_memory_mb(proxy: Proxy) -> float:
    found = re.search(r"VmHWM:\s+(\d+) kB", Path(f"/proc/{proxy.process.pid}/status").read_text(encoding="ascii"))
    return int(found[1]) / 1000 if found else 0.0


@dataclass
class _Found:
    """What one kind of neighbour came to, over all rounds."""

    p50_ms: list[float] = field(default_factory=list)
    p99_ms: list[float] = field(default_factory=list)
    calls: int = 0
    cpu_us: float = 0.0
    peak_memory_mb: float = 0.0

    def add(self, gateway: Proxy, nginx: Proxy, kind: str, rate_hz: float, seconds: float) -> None:
        before_ns = cpu_ns(gateway.pids) + cpu_ns(nginx.pids)
        latencies_ms, calls = _latencies_ms(gateway, nginx, kind, rate_hz, seconds)
        self.cpu_us += (cpu_ns(gateway.pids) + cpu_ns(nginx.pids) - before_ns) / 1000
        self.p50_ms.append(_quantile(latencies_ms, 0.5))
        self.p99_ms.append(_quantile(latencies_ms, 0.99))
        self.calls += calls
        self.peak_memory_mb = _peak_memory_mb(gateway)

    def cells(self, alone: "_Found") -> Iterator[str]:
        yield f"{self.calls:,}"
        yield f"{(self.cpu_us - alone.cpu_us) / self.calls:.1f}" if self.calls else "-"
        yield f"{statistics.median(self.p50_ms):.2f}"
        yield f"{statistics.median(self.p99_ms):.2f}"
        yield f"{min(self.p99_ms):.2f} to {max(self.p99_ms):.2f}"
        yield f"{self.peak_memory_mb:.1f}"


_HEADS = ("beside", "calls", "CPU of each, µs", "valid p50, ms", "valid p99, ms", "its rounds", "peak memory, MB")


def _measure(folder: Path, rounds: int, seconds: float, rate_hz: float) -> None:
    os.environ["GATEWAY_SERVER_STATE_DIR"] = str(folder / "state")
    os.environ["GATEWAY_LOG_CALLS"] = "off"
    os.sched_setaffinity(0, {OTHER_CORE})
    upstream = start_upstream(folder)
    gateway = start_gateway(folder, upstream, tls=False)
    nginx = start_nginx(folder, upstream, tls=False)
    found = {kind: _Found() for kind in KINDS}
    try:
        _latencies_ms(gateway, nginx, "wrong", rate_hz, 1.0)
        for _ in range(rounds):
            for kind in KINDS:
                found[kind].add(gateway, nginx, kind, rate_hz, seconds)
    finally:
        nginx.stop()
        gateway.stop()
        upstream.stop()
    rows = [_HEADS, ["---"] * len(_HEADS), *([kind, *found[kind].cells(found["nothing"])] for kind in KINDS)]
    sys.stdout.writelines(f"| {' | '.join(row)} |\n" for row in rows)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.wrong_keys", description=__doc__)
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--seconds", type=float, default=5.0, help="of each round's part (%(default)s)")
    parser.add_argument("--rate", type=float, default=2000.0, help="wrong keys a second (%(default)s)")
    parser.add_argument("--beside", nargs=4, metavar=("KIND", "PORT", "RATE", "SECONDS"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.beside:
        kind, port, rate_hz, seconds = options.beside
        _be_beside(kind, int(port), float(rate_hz), float(seconds))
        return
    with tempfile.TemporaryDirectory(prefix="gateway-bench-") as folder:
        _measure(Path(folder), options.rounds, options.seconds, options.rate)


def _be_beside(kind: str, port: int, rate_hz: float, seconds: float) -> None:
    async def run() -> int:
        sys.stdout.write("on\n")
        sys.stdout.flush()
        return await _Beside(port, kind, rate_hz).run(seconds)

    sys.stdout.write(f"{uvloop.run(run())}\n")


if __name__ == "__main__":
    main()
