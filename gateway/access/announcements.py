"""Tell other nodes over Redis, and hear from them, that something has changed.

Knows one channel and numbers of revisions, and that Redis may be away at any time: nobody waits for it, nothing is kept
for it, and what it loses is found by polling the database.
"""

import asyncio
import contextlib
import logging
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from gateway.store import redis_address

if TYPE_CHECKING:
    from redis.asyncio import Redis
    from redis.asyncio.client import PubSub

_log = logging.getLogger(__name__)

CHANNEL = "gateway:changes"
_FIRST_WAIT_S, _LONGEST_WAIT_S = 0.1, 5.0
_COMMAND_TIMEOUT_S = 1.0


class Announcements:
    """Calls `on_revision` with each number that another node, or this one, announces. Runs from `start` to `close`.

    A connection that says nothing for `quiet_s` seconds has to answer a ping, within as many.
    """

    def __init__(self, url: str, on_revision: Callable[[int], None], *, quiet_s: float = 5.0) -> None:
        self._redis = _client(url)
        self._on_revision = on_revision
        self._quiet_s = quiet_s
        self._newest: int | None = None
        self._has_news = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []
        self._is_heard: bool | None = None

    def __repr__(self) -> str:
        return f"Announcements(is_heard={self._is_heard})"

    @property
    def is_heard(self) -> bool:
        """Whether the channel is being listened to."""
        return bool(self._is_heard)

    def start(self) -> None:
        """Connect in the background; neither this nor anything else here raises if Redis is away."""
        loop = asyncio.get_running_loop()
        self._tasks = [loop.create_task(self._listen_forever()), loop.create_task(self._announce_forever())]

    async def close(self) -> None:
        """Stop; what was not announced yet is not."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        with contextlib.suppress(*_failures()):
            await self._redis.aclose()

    def announce(self, revision: int) -> None:
        """Tell it soon. Of several that wait only the newest is told: it stands for those before it."""
        self._newest = revision
        self._has_news.set()

    async def _announce_forever(self) -> None:
        while True:
            await self._has_news.wait()
            self._has_news.clear()
            with contextlib.suppress(*_failures()):
                await self._redis.publish(CHANNEL, str(self._newest))

    async def _listen_forever(self) -> None:
        wait_s = _FIRST_WAIT_S
        while True:
            try:
                async with self._redis.pubsub() as pubsub:
                    await pubsub.subscribe(CHANNEL)
                    await self._listen(pubsub)
            except _failures() as error:
                if self._is_heard:
                    wait_s = _FIRST_WAIT_S
                self._set_heard(False, error)
            await asyncio.sleep(wait_s)
            wait_s = min(wait_s * 2, _LONGEST_WAIT_S)

    async def _listen(self, pubsub: "PubSub") -> None:
        """Until the connection breaks, or is silent through a ping: a peer that vanished closes nothing."""
        is_answered = False
        while True:
            message = await pubsub.get_message(timeout=self._quiet_s)
            if message is not None:
                self._set_heard(True)
                self._take(message)
                is_answered = True
            elif is_answered:
                await pubsub.ping()
                is_answered = False
            else:
                raise TimeoutError("no answer to a ping")

    def _take(self, message: dict[str, Any]) -> None:
        if message["type"] == "message":
            with contextlib.suppress(ValueError):
                self._on_revision(int(message["data"]))

    def _set_heard(self, is_heard: bool, error: Exception | None = None) -> None:
        if is_heard == self._is_heard:
            return
        if not is_heard:
            # The name of the failure alone: its text may hold parts of the URL.
            name = type(error).__name__
            _log.warning("Redis is away (%s): changes of keys are noticed by polling the database.", name)
        elif self._is_heard is not None:
            _log.info("Redis is back: changes of keys are announced over it again.")
        self._is_heard = is_heard


def _client(url: str) -> "Redis":
    return redis_address.client(url, _COMMAND_TIMEOUT_S)


def _failures() -> tuple[type[Exception], ...]:
    from redis.exceptions import RedisError  # noqa: PLC0415

    return (RedisError, OSError, TimeoutError)
