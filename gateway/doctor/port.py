"""The addresses that the gateway listens on: can they be had, and if not, who has them.

Asks a server that is there already one question, GET /healthz, without a key.
"""

import errno
from collections.abc import Iterator
from http.client import HTTPConnection, HTTPException
from ipaddress import ip_address
from socket import gaierror

from gateway.app import bind
from gateway.doctor.findings import Finding, Mark
from gateway.settings import Server, Settings
from gateway.settings.shapes import host_and_port

_BY_OPTION = "choose another with --port or --host"


def examine_ports(settings: Settings, timeout_s: float) -> Iterator[Finding]:
    """Whether the gateway could listen, or does so already. A server that is there gets `timeout_s` to answer."""
    yield _examine(settings, timeout_s, _BY_OPTION)
    for name, section in (("admin", settings.admin), ("metrics", settings.metrics)):
        if section.enabled and section.listen is not None:
            host, port = host_and_port(section.listen)
            server = settings.server.model_copy(update={"host": host, "port": port})
            choice = f"choose another as {name}.listen"
            yield _examine(settings.model_copy(update={"server": server}), timeout_s, choice)


def _examine(settings: Settings, timeout_s: float, choice: str) -> Finding:
    server = settings.server
    try:
        bind(settings).close()
    except OSError as error:
        if error.errno == errno.EADDRINUSE and _is_a_gateway(server, timeout_s):
            return Finding(Mark.GOOD, f"a gateway already runs on {local_url(server.host, server.port)}")
        return cannot_listen(server, error, choice)
    return Finding(Mark.GOOD, f"{server.host}:{server.port} is free" if server.port else "a free port will be taken")


def cannot_listen(server: Server, error: OSError, choice: str = _BY_OPTION) -> Finding:
    """What to say when `server`'s address cannot be had; `choice` says how to name another."""
    # asyncio's and socket's helpers append the address, which stands in the line already.
    reason = (error.strerror or "no such address").partition(" (while")[0]
    # They also raise a plain OSError in place of the one that says that it was the name.
    if isinstance(error.__context__, gaierror):
        cure = "name an address of this machine, such as 127.0.0.1, with --host"
        return Finding(Mark.BAD, f"cannot listen on {server.host}, which does not resolve: {reason}", cure)
    cure = f"{choice}, or stop what listens there (see: ss -ltnp)"
    return Finding(Mark.BAD, f"cannot listen on {server.host}:{server.port}: {reason}", cure)


def local_url(host: str, port: int) -> str:
    """Where a client on this machine reaches a server that listens on `host`: `http://127.0.0.1:8080`."""
    reached = _reached(host)
    return f"http://[{reached}]:{port}" if ":" in reached else f"http://{reached}:{port}"


def _reached(host: str) -> str:
    try:
        address = ip_address(host)
    except ValueError:
        return host
    if not address.is_unspecified:
        return host
    return "::1" if address.version == 6 else "127.0.0.1"


def _is_a_gateway(server: Server, timeout_s: float) -> bool:
    connection = HTTPConnection(_reached(server.host), server.port, timeout=timeout_s)
    try:
        connection.request("GET", "/healthz")
        return connection.getresponse().getheader("x-gateway-request-id") is not None
    except (OSError, HTTPException):
        return False
    finally:
        connection.close()
