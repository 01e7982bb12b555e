"""The addresses that the gateway listens on: can they be had, and if not, does a gateway have them."""

import errno
from collections.abc import Generator
from socket import gaierror

from gateway.app import bind
from gateway.doctor.findings import Finding, Mark
from gateway.doctor.running import is_running, local_url
from gateway.settings import Server, Settings
from gateway.settings.shapes import host_and_port

_BY_OPTION = "choose another with --port or --host"


def examine_ports(settings: Settings, timeout_s: float) -> Generator[Finding, None, bool]:
    """Whether the gateway could listen, or does so already, which is returned too.

    A server that is there gets `timeout_s` to answer.
    """
    has_one, finding = _examine(settings, timeout_s, _BY_OPTION)
    yield finding
    for name, section in (("admin", settings.admin), ("metrics", settings.metrics)):
        if section.enabled and section.listen is not None:
            host, port = host_and_port(section.listen)
            server = settings.server.model_copy(update={"host": host, "port": port})
            choice = f"choose another as {name}.listen"
            yield _examine(settings.model_copy(update={"server": server}), timeout_s, choice)[1]
    return has_one


def _examine(settings: Settings, timeout_s: float, choice: str) -> tuple[bool, Finding]:
    """Whether a gateway is there already, and what to say."""
    server = settings.server
    try:
        bind(settings).close()
    except OSError as error:
        if error.errno == errno.EADDRINUSE and is_running(server, timeout_s):
            return True, Finding(Mark.GOOD, f"a gateway already runs on {local_url(server.host, server.port)}")
        return False, cannot_listen(server, error, choice)
    free = f"{server.host}:{server.port} is free" if server.port else "a free port will be taken"
    return False, Finding(Mark.GOOD, free)


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
