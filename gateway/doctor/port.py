"""The addresses that the gateway listens on: can they be had, and if not, does a gateway have them."""

import errno
from collections.abc import Generator, Sequence
from socket import gaierror
from urllib.parse import urlsplit

from gateway.app import bind
from gateway.doctor.findings import Finding, Mark
from gateway.doctor.running import is_running, local_url
from gateway.settings import Server, Settings
from gateway.settings.shapes import host_and_port
from gateway.store.residents import Resident

_BY_OPTION = "choose another with --port or --host"


def examine_ports(settings: Settings, timeout_s: float, ours: Resident | None) -> Generator[Finding, None, bool]:
    """Whether the gateway could listen, or does so already, which is returned too.

    `ours` is the only gateway on the folder of the settings: it is the one meant, wherever it listens. A server that
    is there gets `timeout_s` to answer.
    """
    has_one, finding = _examine(settings, timeout_s, _BY_OPTION) if ours is None else (True, _runs(ours))
    yield finding
    for name, section in (("admin", settings.admin), ("metrics", settings.metrics)):
        if section.enabled and section.listen is not None:
            host, port = host_and_port(section.listen)
            server = settings.server.model_copy(update={"host": host, "port": port})
            choice = f"choose another as {name}.listen"
            yield _examine(settings.model_copy(update={"server": server}), timeout_s, choice)[1]
    return has_one


def _runs(ours: Resident) -> Finding:
    upstream = f"; its upstream is {ours.upstream}" if ours.upstream else ""
    return Finding(Mark.GOOD, f"a gateway runs on this folder at {ours.url} (PID {ours.pid}){upstream}")


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


def cannot_listen(
    server: Server, error: OSError, choice: str = _BY_OPTION, *, on_folder: Sequence[Resident] = ()
) -> Finding:
    """What to say when `server`'s address cannot be had; `choice` says how to name another.

    `on_folder`: the gateways that run on `server`'s folder, one of which may have it.
    """
    if error.errno == errno.EADDRINUSE and (holder := _at(server, on_folder)) is not None:
        text = f"{server.host}:{server.port} is taken by the gateway of this same folder (PID {holder.pid})"
        return Finding(Mark.BAD, f"{text}: it runs already", "to restart it, stop that one first")
    # asyncio's and socket's helpers append the address, which stands in the line already.
    reason = (error.strerror or "no such address").partition(" (while")[0]
    # They also raise a plain OSError in place of the one that says that it was the name.
    if isinstance(error.__context__, gaierror):
        cure = "name an address of this machine, such as 127.0.0.1, with --host"
        return Finding(Mark.BAD, f"cannot listen on {server.host}, which does not resolve: {reason}", cure)
    cure = f"{choice}, or stop what listens there (see: ss -ltnp)"
    return Finding(Mark.BAD, f"cannot listen on {server.host}:{server.port}: {reason}", cure)


def _at(server: Server, residents: Sequence[Resident]) -> Resident | None:
    # Its host may be a name here, and is an address there: a port that two gateways have on two addresses is rare.
    return next((each for each in residents if each.url and urlsplit(each.url).port == server.port), None)
