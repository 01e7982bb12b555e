"""Comments that keep an idle event stream open through proxies that drop silent connections.

A comment is the only thing that every client takes between two events; it goes out only there.
"""

import asyncio
from collections.abc import Callable, Coroutine

COMMENT = b": keep-alive\n\n"


class KeepAlive:
    """Calls `send_comment` whenever nothing was sent for `interval_s` seconds, until closed.

    One timer a stream, which looks at the clock when it fires: a piece that passes costs one assignment.
    """

    __slots__ = ("_handle", "_interval_s", "_loop", "_send_comment", "_task", "last_sent_s")

    def __init__(self, interval_s: float, send_comment: Callable[[], Coroutine[None, None, None]]) -> None:
        self._interval_s = interval_s
        self._send_comment = send_comment
        self._loop = asyncio.get_running_loop()
        self._task: asyncio.Task[None] | None = None
        self.last_sent_s = self._loop.time()
        self._handle = self._loop.call_later(interval_s, self._look)

    def sent(self) -> None:
        self.last_sent_s = self._loop.time()

    def close(self) -> None:
        self._handle.cancel()
        if self._task is not None:
            self._task.cancel()

    def _look(self) -> None:
        now_s = self._loop.time()
        due_s = self.last_sent_s + self._interval_s
        if now_s >= due_s and (self._task is None or self._task.done()):
            self._task = asyncio.ensure_future(self._send_comment())
            self.last_sent_s = now_s
            due_s = now_s + self._interval_s
        self._handle = self._loop.call_later(max(due_s - now_s, 0.001), self._look)
