"""Several processes on one listening socket.

Knows how to start workers, to replace one that died, and to stop all. The work is sent to each process whole, so that
no secret passes through an environment or a file.
"""

import logging
import multiprocessing
import os
import signal
import socket
import threading
import time
from collections.abc import Callable
from multiprocessing.connection import wait
from multiprocessing.process import BaseProcess
from types import FrameType

Work = Callable[[list[socket.socket]], None]
_RESTART_AFTER_S = 1.0
_log = logging.getLogger("gateway")


class Workers:
    """`count` processes that run `work([listener])`; `work` must be picklable."""

    def __init__(self, work: Work, listener: socket.socket, count: int) -> None:
        self._work, self._listener = work, listener
        self._context = multiprocessing.get_context("spawn")
        self._count = count
        self._processes: list[BaseProcess] = []
        self._stopping = False

    def run(self) -> None:
        """Keep them all running until SIGTERM or SIGINT, then until each has drained."""
        for signal_number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(signal_number, self._stop)
        self._processes = [self._start() for _ in range(self._count)]
        while not self._stopping:
            wait([process.sentinel for process in self._processes])
            if not self._stopping:
                self._replace_dead()
        for process in self._processes:
            process.join()

    def _start(self) -> BaseProcess:
        process = self._context.Process(target=_run, args=(self._work, self._listener))
        process.start()
        return process

    def _replace_dead(self) -> None:
        time.sleep(_RESTART_AFTER_S)  # a worker that cannot start must not be started in a tight loop
        for index, process in enumerate(self._processes):
            if not process.is_alive() and not self._stopping:
                _log.error("worker %s ended with status %s; starting another", process.pid, process.exitcode)
                self._processes[index] = self._start()

    def _stop(self, _signal: int, _frame: FrameType | None) -> None:
        self._stopping = True
        for process in self._processes:
            if process.is_alive():
                process.terminate()


def _run(work: Work, listener: socket.socket) -> None:
    threading.Thread(target=_follow_parent, daemon=True).start()
    work([listener])


def _follow_parent() -> None:
    """A worker without its parent would hold the port for ever: stop as if told to."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os.kill(os.getpid(), signal.SIGTERM)
