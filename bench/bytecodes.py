"""How many bytecodes of Python the gateway runs for a plain call, and in which functions.

A figure for whoever changes that path: it is the same on a quiet machine and on a busy one, within a few in a hundred.
It says nothing of what C does, so the CPU beside nginx's stays what counts.
"""

import asyncio
import json
import os
import shlex
import signal
import sys
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

from bench.load import ClosedLoop
from bench.processes import OTHER_CORE, Upstream, start_gateway, start_upstream
from bench.report import markdown
from bench.suite import CONNECTIONS, LIMITS
from bench.traffic import plain_call

_WARM_S = 1.0
_COUNTED_S = 3.0
_WRITTEN_WITHIN_S = 10.0
_LOOK_S = 0.05
_ONE_A_CALL = "Settlement.end"
_MOST = 60
_Counts = Mapping[str, float]
"""By function, and in all under the empty name; of one call."""


async def counted(folder: Path) -> str:
    """The table: the functions that run most, without limits and with five in memory."""
    os.sched_setaffinity(0, {OTHER_CORE})
    upstream = start_upstream(folder)
    try:
        plain = await _counts(folder, upstream, {})
        limited = await _counts(folder, upstream, {"limits": LIMITS})
    finally:
        upstream.stop()
    names = sorted({*plain, *limited}, key=lambda name: -limited.get(name, 0.0))
    lines = [[name or "in all", *(f"{each.get(name, 0.0):,.0f}" for each in (plain, limited))] for name in names]
    return markdown(["bytecodes of a plain call", "no limits", "five in memory"], lines[:_MOST]) + "\n"


async def _counts(folder: Path, upstream: Upstream, more: Mapping[str, object]) -> _Counts:
    found = folder / "bytecodes.json"
    command = shlex.join([sys.executable, "-m", "bench.counted", str(found), "gateway", "serve", "--config"])
    proxy = start_gateway(folder, upstream, tls=False, command=f"{command} {{config}}", more=more)
    try:
        load = ClosedLoop(proxy.port, plain_call(), CONNECTIONS)
        await load.start()
        await asyncio.sleep(_WARM_S)
        os.kill(proxy.process.pid, signal.SIGUSR1)
        await asyncio.sleep(_COUNTED_S)
        os.kill(proxy.process.pid, signal.SIGUSR2)
        async with asyncio.timeout(_WRITTEN_WITHIN_S):
            while not found.exists():  # noqa: ASYNC110 - another process makes it
                await asyncio.sleep(_LOOK_S)
        load.stop()
    finally:
        proxy.stop()
    rows = json.loads(found.read_text())
    found.unlink()
    return _of_one_call(rows)


def _of_one_call(rows: list[tuple[str, str, int, int]]) -> _Counts:
    calls = next(times for function, _, times, _ in rows if function == _ONE_A_CALL)
    counts: Counter[str] = Counter()
    for function, path, _, bytecodes in rows:
        counts[f"{function} ({'/'.join(Path(path).parts[-2:])})"] += bytecodes
        counts[""] += bytecodes
    return {name: count / calls for name, count in counts.items()}
