"""Several processes on one listening socket.

Knows how to start workers, to replace one that died, to give up when none can start, and to stop all. The work is
sent to each process whole, so that no secret passes through an environment or a file.
"""

import logging
import multiprocessing
import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterable
from multiprocessing.connection import wait
from multiprocessing.process import BaseProcess
from types import FrameType

Work = Callable[[list[socket.socket]], None]
_EARLY_S = 5.0
"""A worker that ends sooner could not start: to import the gateway on a busy machine alone takes a second or two."""
_MAX_EARLY_ENDS = 4
_log = logging.getLogger("gateway")


class Workers:
    """`count` processes that run `work([listener])`; `work` must be picklable.

    One that ends is replaced after `restart_after_s` seconds, so that one that cannot start does not spin.
    """

    def __init__(self, work: Work, listener: socket.socket, count: int, *, restart_after_s: float = 1.0) -> None:
        self._listener = listener
        self._workers = [_Worker(work, listener) for _ in range(count)]
        self._restart_after_s = restart_after_s
        self._stopping = self._is_waiting = False
        self._told, self._tell = socket.socketpair()

    def run(self) -> None:
        """Keep all running until SIGTERM or SIGINT, then until each has drained. Only in the main thread.

        A second signal goes on to each as SIGINT: one that drains is to make an end.
        SystemExit with status 1 when no worker can start.
        """
        for signal_number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(signal_number, self._stop)
        try:
            self._start(self._workers)
            while not self._stopping:
                ready = self._wait([worker.sentinel for worker in self._workers])
                self._replace([worker for worker in self._workers if worker.sentinel in ready])
        finally:
            self._end_all()

    def _start(self, workers: Iterable["_Worker"]) -> None:
        for worker in workers:
            if not self._stopping:
                worker.start()

    def _replace(self, ended: Iterable["_Worker"]) -> None:
        if self._stopping:
            return
        for worker in ended:
            worker.note_end()
        if all(worker.cannot_start for worker in self._workers):
            text = "no worker can start: each of %s ended within %g s at least %s times in a row"
            _log.critical(text, len(self._workers), _EARLY_S, _MAX_EARLY_ENDS)
            raise SystemExit(1)
        self._wait((), self._restart_after_s)
        self._start(ended)

    def _end_all(self) -> None:
        self._listener.close()  # else it would go on listening here, where nobody accepts
        for worker in self._workers:
            worker.terminate()
        self._is_waiting = True
        for worker in self._workers:
            worker.join()

    def _wait(self, sentinels: Iterable[int], limit_s: float | None = None) -> list[object]:
        """Wait for one of `sentinels`, for a signal, or until `limit_s` is over; what is ready by then."""
        return list(wait([self._told, *sentinels], limit_s))

    def _stop(self, _signal: int, _frame: FrameType | None) -> None:
        # A wait goes on when a signal's handler has run, unless what it waits for is there. And only what is there
        # by now could be stopped from here: a worker that is just being started could not.
        if not self._stopping:
            self._stopping = True
            self._tell.send(b"x")
        elif self._is_waiting:
            for worker in self._workers:
                worker.interrupt()


class _Worker:
    """One of the workers, through all its restarts."""

    def __init__(self, work: Work, listener: socket.socket) -> None:
        self._work, self._listener = work, listener
        self._process: BaseProcess | None = None
        self._started_at_s = 0.0
        self._early_ends = 0

    @property
    def process(self) -> BaseProcess:
        if self._process is None:
            raise RuntimeError("not started yet")
        return self._process

    @property
    def sentinel(self) -> int:
        """Ready to be read once the process has ended."""
        return self.process.sentinel

    @property
    def cannot_start(self) -> bool:
        """It has ended early so many times in a row that another start would do no better."""
        return self._early_ends >= _MAX_EARLY_ENDS and self._is_young()

    def start(self) -> None:
        process = multiprocessing.get_context("spawn").Process(target=_run, args=(self._work, self._listener))
        process.start()
        self._process, self._started_at_s = process, time.monotonic()

    def note_end(self) -> None:
        """Its sentinel is ready: count what that was."""
        self.process.join()  # the sentinel may be a moment ahead of the exit status
        self._early_ends = self._early_ends + 1 if self._is_young() else 0
        _log.error("worker %s ended with status %s", self.process.pid, self.process.exitcode)

    def terminate(self) -> None:
        """Tell it to stop; nothing if it is not there."""
        if self._process is not None and self._process.is_alive():
            self._process.terminate()

    def interrupt(self) -> None:
        """Tell it again; nothing if it is not there."""
        if self._process is not None and self._process.is_alive() and self._process.pid is not None:
            os.kill(self._process.pid, signal.SIGINT)

    def join(self) -> None:
        if self._process is not None:
            self._process.join()

    def _is_young(self) -> bool:
        return time.monotonic() - self._started_at_s < _EARLY_S


def _run(work: Work, listener: socket.socket) -> None:
    threading.Thread(target=_follow_parent, daemon=True).start()
    work([listener])


def _follow_parent() -> None:
    """A worker without its parent would hold the port for ever: stop as if told to."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os.kill(os.getpid(), signal.SIGTERM)
