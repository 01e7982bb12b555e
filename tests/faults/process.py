"""The gateway as a process of its own, as `python -m gateway serve` starts it; all that it writes is kept."""

import asyncio
import json
import os
import re
import signal
import sys
from asyncio.subprocess import PIPE, STDOUT, Process
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from tests.faults.face import ask, request
from tests.support.gateway import KEY, UPSTREAM_KEY
from tests.support.stores import fresh_sqlite_url
from tests.support.wire import Script, WireUpstream

ROOT = Path(__file__).parents[2]
START_S = 20.0


class GatewayProcess:
    """One process; `output` is what it has written to its terminal by now. `port` is 0 until it has said where."""

    def __init__(self, process: Process) -> None:
        self.pid = process.pid
        self.port = 0
        self.output = b""
        self._process = process
        self._ready = asyncio.Event()
        self._reading = asyncio.create_task(self._read())

    async def _read(self) -> None:
        assert self._process.stdout is not None
        while piece := await self._process.stdout.read(4096):
            self.output += piece
            if not self.port and (said := re.search(rb"http://127\.0\.0\.1:(\d+)/v1", self.output)):
                self.port = int(said[1])
                self._ready.set()
        self._ready.set()

    async def spoken(self) -> None:
        """Wait until it has said where it listens, which it does before it starts a worker."""
        await asyncio.wait_for(self._ready.wait(), START_S)

    async def ready(self) -> None:
        """Wait until a call is answered; the socket listens before a worker accepts."""
        await self.spoken()
        assert self._process.returncode is None, self.output
        await ask(self.port, request("GET", "/readyz"), within_s=START_S)

    def terminate(self) -> None:
        """SIGTERM."""
        self._process.terminate()

    def stand_still(self, for_s: float) -> None:
        """SIGSTOP once it waits for its sockets, and SIGCONT after `for_s` seconds; nothing of it runs meanwhile."""
        while b") S " not in Path(f"/proc/{self.pid}/stat").read_bytes():
            pass  # stopped at work it would wait for its sockets next, and look at the clock after that
        os.kill(self.pid, signal.SIGSTOP)
        os.waitid(os.P_PID, self.pid, os.WSTOPPED)
        asyncio.get_running_loop().call_later(for_s, os.kill, self.pid, signal.SIGCONT)

    async def status(self) -> int:
        """The exit status, once it has ended by itself and all of its output is there."""
        async with asyncio.timeout(10):
            status = await self._process.wait()
            await self._reading
        return status

    async def close(self) -> None:
        """Kill it if it is still there."""
        if self._process.returncode is None:
            self._process.kill()
        await self._process.wait()
        await self._reading


@asynccontextmanager
async def serving(
    *scripts: Script,
    arguments: tuple[str, ...] = (),
    directory: Path = ROOT,
    until_ready: bool = True,
    **environment: str,
) -> AsyncIterator[GatewayProcess]:
    """A gateway in front of a wire upstream; `directory` is its working directory and its TMPDIR.

    `until_ready`: it answers by then; else it has just said where it is going to.
    """
    async with WireUpstream(*scripts) as upstream, _state_folder() as state_dir:
        own = {"GATEWAY_SERVER_STATE_DIR": state_dir, **environment}
        running = await _start(f"{upstream.url}/v1", arguments, directory, own)
        try:
            await (running.ready() if until_ready else running.spoken())
            yield running
        finally:
            await running.close()


@asynccontextmanager
async def _state_folder() -> AsyncIterator[str]:
    with TemporaryDirectory(prefix="gateway-state-") as folder:
        fresh_sqlite_url(Path(folder))
        yield folder


async def _start(
    base_url: str, arguments: tuple[str, ...], directory: Path, environment: dict[str, str]
) -> GatewayProcess:
    settings = {
        "PATH": os.environ["PATH"],
        "PYTHONPATH": str(ROOT),
        "TMPDIR": str(directory),
        "GMI_BASE_URL": base_url,
        "GMI_API_KEY": UPSTREAM_KEY,
        "GATEWAY_KEYS": json.dumps([{"name": "ada", "team": "engines", "secret": KEY}]),
        **environment,
    }
    command = (sys.executable, "-u", "-m", "gateway", "serve", "--port", "0", *arguments)
    process = await asyncio.create_subprocess_exec(*command, cwd=directory, env=settings, stdout=PIPE, stderr=STDOUT)
    return GatewayProcess(process)
