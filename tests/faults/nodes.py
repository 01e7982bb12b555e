"""Gateways that share one store, each a process of its own, and clients that call them all the time.

Knows the admin API's paths, and what of a client's calls tells when a change was in force. Which change that was, and
what it should do, is the tests' business.
"""

import asyncio
import contextlib
import itertools
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import URL

from tests.faults.face import CHAT, Answer, ask, connected, request
from tests.faults.process import ROOT, GatewayProcess, serving
from tests.support.wire import reply

ADMIN_SECRET = "an-admin-key-of-the-tests-0123"
MODEL = "openai/gpt-5.2"
IN_FORCE_S = 1.0
"""How long after the admin's reply a change may take to be in force everywhere."""
_SETTLES_S = 10.0

_ANSWER = {
    "id": "chatcmpl-1",
    "object": "chat.completion",
    "created": 1,
    "model": MODEL,
    "choices": [{"index": 0, "message": {"role": "assistant", "content": "Hello."}, "finish_reason": "stop"}],
    "usage": {"prompt_tokens": 5, "completion_tokens": 2, "total_tokens": 7},
}
UPSTREAM_REPLY = reply(200, [(b"Content-Type", b"application/json")], json.dumps(_ANSWER).encode())

_names = itertools.count()


def url_text(url: URL) -> str:
    """A database's URL as a person writes it."""
    return url.set(drivername=url.get_backend_name()).render_as_string(hide_password=False)


def environment_for(store: URL, redis_url: str | None = None, **more: str) -> dict[str, str]:
    """The settings of a node on `store`, as environment variables; it logs no calls, which are many."""
    shared = {"GATEWAY_DATABASE_URL": url_text(store), "GATEWAY_ADMIN_KEY": ADMIN_SECRET, "GATEWAY_LOG_CALLS": "off"}
    shared |= more
    return shared if redis_url is None else {**shared, "GATEWAY_REDIS_URL": redis_url}


@contextlib.asynccontextmanager
async def nodes(
    store: URL, *, count: int = 2, redis_url: str | None = None, **more: str
) -> AsyncIterator[list[GatewayProcess]]:
    """So many gateways on one store."""
    async with contextlib.AsyncExitStack() as stack:
        environment = environment_for(store, redis_url, **more)
        running = [await stack.enter_async_context(node(environment)) for _ in range(count)]
        try:
            yield running
        finally:
            for each in running:
                print(each.output.decode())


def node(environment: dict[str, str]) -> AbstractAsyncContextManager[GatewayProcess]:
    """One gateway."""
    return serving(UPSTREAM_REPLY, arguments=(), directory=ROOT, until_ready=True, **environment)


def call_with(secret: str, model: str = MODEL) -> bytes:
    """A whole request to the chat route; the same bytes for the same arguments."""
    body = json.dumps({"model": model, "messages": [{"role": "user", "content": "Hello!"}]}).encode()
    headers = [("Authorization", f"Bearer {secret}"), ("Content-Type", "application/json")]
    return request("POST", CHAT, body, headers)


async def call(port: int, secret: str) -> Answer:
    """One call with a key, on a connection of its own."""
    return await ask(port, call_with(secret), within_s=15.0)


@dataclass(frozen=True)
class Made:
    """A key that was made for a test."""

    id: str
    team: str
    name: str
    secret: str


class Admin:
    """Administers through one node."""

    def __init__(self, port: int, secret: str = ADMIN_SECRET) -> None:
        self._port = port
        self._headers = [("Authorization", f"Bearer {secret}"), ("Content-Type", "application/json")]

    async def ask(self, method: str, path: str, body: object = None) -> Answer:
        """The reply, whatever it is."""
        data = b"" if body is None else json.dumps(body).encode()
        return await ask(self._port, request(method, f"/admin/v1{path}", data, self._headers), within_s=15.0)

    async def do(self, method: str, path: str, body: object = None) -> Any:
        """The object that comes back; anything but success is a failure of the test."""
        answer = await self.ask(method, path, body)
        assert 200 <= answer.status < 300, answer.body
        return json.loads(answer.body)

    async def make_key(self, **members: Any) -> Made:
        """A key in a team of its own, both with names that no other has."""
        number = next(_names)
        team, name = f"team-{number}", f"key-{number}"
        await self.do("POST", "/teams", {"name": team})
        made = await self.do("POST", "/keys", {"team": team, "name": name, **members})
        return Made(made["id"], team, name, made["secret"])


@dataclass(frozen=True)
class Call:
    """When a call was sent and answered, by the monotonic clock, with which status and by which process."""

    sent_at_s: float
    answered_at_s: float
    status: int
    process: str


@dataclass
class Caller:
    """Calls with one key on one connection, again as soon as it is answered, and keeps what came of it."""

    port: int
    secret: str
    calls: list[Call] = field(default_factory=list)

    async def run(self) -> None:
        data = call_with(self.secret)
        async with connected(self.port) as client:
            while True:
                sent_at_s = time.monotonic()
                client.send(data)
                answer = await client.answer(within_s=10.0)
                process = (answer.header("x-gateway-request-id") or "")[:20]
                self.calls.append(Call(sent_at_s, time.monotonic(), answer.status, process))

    async def until(self, status: int, *, within_s: float = _SETTLES_S) -> None:
        """Wait for a call that is answered with `status` and was sent after this moment."""
        now_s = time.monotonic()
        await self._wait(lambda last: last.sent_at_s >= now_s and last.status == status, within_s)

    async def past(self, at_s: float) -> None:
        """Wait until a call is answered that was sent after `at_s`."""
        await self._wait(lambda last: last.sent_at_s > at_s, _SETTLES_S)

    async def _wait(self, holds: Callable[[Call], bool], within_s: float) -> None:
        async with asyncio.timeout(within_s):
            while not (self.calls and holds(self.calls[-1])):  # noqa: ASYNC110 - calls end all the time
                await asyncio.sleep(0.01)


@contextlib.asynccontextmanager
async def calling(ports: Sequence[int], secret: str, *, processes: int) -> AsyncIterator[list[Caller]]:
    """Callers with one key on every port, so many that each of `processes` is called; none may fail, or be cut off."""
    callers: list[Caller] = []
    tasks: list[asyncio.Task[None]] = []
    try:
        async with asyncio.timeout(_SETTLES_S):
            while len(calls_by_process(callers)) < processes:
                new = [Caller(port, secret) for port in ports]
                callers += new
                tasks += [asyncio.create_task(caller.run()) for caller in new]
                await asyncio.gather(*(caller.until(200) for caller in new))
        yield callers
        failed = [task.exception() for task in tasks if task.done()]
        assert not failed, failed
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


@dataclass(frozen=True)
class Moment:
    """A change was asked for, and its admin told that it is made; by the monotonic clock."""

    asked_at_s: float
    told_at_s: float


async def made(change: Awaitable[Any]) -> Moment:
    """When `change` was made."""
    asked_at_s = time.monotonic()
    await change
    return Moment(asked_at_s, time.monotonic())


async def delay_s(callers: Sequence[Caller], moment: Moment, status: int) -> float:
    """How long after the admin was told the last process came to answer with `status`; less than 0 if that was before.

    Fails unless each of them did so within `IN_FORCE_S`, and has done nothing else since.
    """
    for caller in callers:
        await caller.past(moment.told_at_s + IN_FORCE_S)
    return max(_delay_s(calls, moment, status) for calls in calls_by_process(callers).values())


def calls_by_process(callers: Sequence[Caller]) -> dict[str, list[Call]]:
    """The calls in the order of their answers, by the process that gave them."""
    calls = sorted((call for caller in callers for call in caller.calls), key=lambda call: call.answered_at_s)
    by_process: dict[str, list[Call]] = {}
    for each in calls:
        by_process.setdefault(each.process, []).append(each)
    return by_process


def _delay_s(calls: Sequence[Call], moment: Moment, status: int) -> float:
    first = next(call for call in calls if call.status == status and call.answered_at_s > moment.asked_at_s)
    last = max(call.sent_at_s for call in calls if call.status != status)
    assert last < first.answered_at_s, "the old state came back"
    taken_s = first.answered_at_s - moment.told_at_s
    assert last <= moment.told_at_s + IN_FORCE_S, f"it took {taken_s:.3f} s"
    return taken_s
