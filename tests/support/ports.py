"""Ports that are named before anything listens on them, and that nobody else comes to take meanwhile."""

import contextlib
import itertools
import os
import random
import socket
from collections.abc import Iterator

_FIRST, _SHARE, _SHARES = 12_000, 6_000, 3
"""Of a range that the system gives to nobody by itself, and whose ports plus 10,000 are ports too (clusters)."""


def _ports() -> Iterator[int]:
    share = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw")) % _SHARES
    ports = range(_FIRST + share * _SHARE, _FIRST + (share + 1) * _SHARE)
    return itertools.cycle(random.SystemRandom().sample(ports, len(ports)))


_candidates = _ports()


def free_port() -> int:
    """One that no process of this run had before, so that a server can be stopped and find it free again."""
    while True:
        port = next(_candidates)
        with contextlib.suppress(OSError), socket.socket() as probe, socket.socket() as bus:
            probe.bind(("127.0.0.1", port))
            bus.bind(("127.0.0.1", port + 10_000))
            return port
