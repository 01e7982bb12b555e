"""A program of three workers that do one odd thing, for tests of `Workers`.

`python -m tests.http.workers_program NAME`: each worker says on stdout what it does; stderr is the parent's log.
"""

import logging
import os
import signal
import socket
import sys
from types import FrameType
from typing import Any

from gateway.http.workers import Workers

LONG_S = 60.0
"""A pause that no test waits for."""


class Waits:
    """Says that it is there, and stays until it is told to stop."""

    def __call__(self, _: list[socket.socket]) -> None:
        signal.signal(signal.SIGTERM, self._leave)
        _say(f"up {os.getpid()}")
        while True:
            signal.pause()

    @staticmethod
    def _leave(_signal: int, _frame: FrameType | None) -> None:
        _say("told to stop")
        sys.exit(0)


class Dies:
    """Ends at once, as one that cannot start does."""

    def __call__(self, _: list[socket.socket]) -> None:
        _say("dying")
        sys.exit(3)


class StopsParent(Waits):
    """The parent is told to stop while it starts the worker `number`, counted from 1."""

    def __init__(self, number: int, stop: signal.Signals) -> None:
        self._left, self._stop = number, stop

    def __getstate__(self) -> dict[str, Any]:
        self._left -= 1  # called in the parent, each time that it is about to send the work to a worker
        if self._left == 0:
            os.kill(os.getpid(), self._stop)
        return self.__dict__


class DiesBesideOne(Dies):
    """One of the workers waits; all the others die at once."""

    def __init__(self) -> None:
        self._starts = 0

    def __getstate__(self) -> dict[str, Any]:
        self._starts += 1
        return self.__dict__

    def __call__(self, sockets: list[socket.socket]) -> None:
        if self._starts == 1:
            Waits()(sockets)
        else:
            super().__call__(sockets)


def _say(text: str) -> None:
    os.write(1, f"{text}\n".encode())


def _program(name: str, *arguments: str) -> tuple[Any, float]:
    """The work, and the pause before a worker is replaced, in seconds."""
    match name:
        case "waits":
            return Waits(), 0.0
        case "dies":
            return Dies(), 0.0
        case "dies-and-is-not-replaced":
            return Dies(), LONG_S
        case "dies-beside-one":
            return DiesBesideOne(), 0.0
        case "stops-parent":
            number, stop = arguments
            return StopsParent(int(number), signal.Signals[stop]), 0.0
    raise LookupError(name)


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    work, pause_s = _program(*sys.argv[1:])
    with socket.create_server(("127.0.0.1", 0)) as listener:
        Workers(work, listener, 3, restart_after_s=pause_s).run()
