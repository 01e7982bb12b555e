"""A key is looked at again when its request's body has come, unless the body came with the head, and while it waits."""

import asyncio
import contextlib
import json
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import pytest

from tests.faults.face import CHAT, Client, ask, connected, request
from tests.http.admin_server import Client as Admin
from tests.http.admin_server import made
from tests.http.test_admin_in_force import ENDS
from tests.http.test_drain import ends_when
from tests.support.gateway import RunningGateway, running_gateway
from tests.support.wire import Stall, WireUpstream, reply

OK = reply(200, [(b"content-type", b"application/json")], b'{"id": "x"}')
BODY = json.dumps({"model": "m", "messages": [{"role": "user", "content": "Hi"}]}).encode()
FORM = b'--b\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\nx\r\n--b--\r\n'
JSON = ("Content-Type", "application/json")

Setting = tuple[RunningGateway, WireUpstream, Admin]


@pytest.fixture
async def setting() -> AsyncIterator[Setting]:
    async with WireUpstream(*[OK] * 3) as upstream:
        with running_gateway(f"{upstream.url}/v1", keys=[]) as gateway, administering(gateway) as admin:
            made(admin.post("/teams", {"name": "engines"}))
            yield gateway, upstream, admin


@contextlib.contextmanager
def administering(gateway: RunningGateway) -> Iterator[Admin]:
    admin = Admin(gateway.url, gateway.admin_secret)
    try:
        yield admin
    finally:
        admin.close()


def a_key(admin: Admin, **members: Any) -> dict[str, Any]:
    return made(admin.post("/keys", {"team": "engines", "name": "ada", **members}))


async def begin(client: Client, method: str, path: str, key: dict[str, Any], body: bytes, *headers: Any) -> None:
    """Send a head; that its body is asked for says that its key was looked at."""
    fields = [("Authorization", f"Bearer {key['secret']}"), ("Expect", "100-continue"), *headers]
    client.send(request(method, path, headers=[*fields, ("Content-Length", str(len(body)))]))
    async with asyncio.timeout(5):
        assert (await client.reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 100 ")


@pytest.mark.parametrize("end", ENDS)
async def test_a_call_whose_key_ended_before_its_body_came_is_refused(setting: Setting, end: str) -> None:
    gateway, upstream, admin = setting
    key = a_key(admin)
    path = "/v1/embeddings" if end == "narrow" else CHAT
    async with connected(gateway.port) as client:
        await begin(client, "POST", path, key, BODY, JSON)
        await asyncio.to_thread(ENDS[end], admin, key)
        client.send(BODY)
        answer = await client.answer()
    assert answer.status == (403 if end == "narrow" else 401)
    assert upstream.requests == []


@pytest.mark.parametrize(("method", "path"), [("GET", "/v1/files"), ("GET", "/v1/models"), ("POST", "/v1/files")])
async def test_so_are_lists_calls_that_need_no_body_and_uploads(setting: Setting, method: str, path: str) -> None:
    gateway, upstream, admin = setting
    key = a_key(admin)
    is_upload = method == "POST"
    headers = [("Content-Type", "multipart/form-data; boundary=b")] if is_upload else []
    async with connected(gateway.port) as client:
        await begin(client, method, path, key, FORM, *headers)
        await asyncio.to_thread(ENDS["revoke"], admin, key)
        client.send(FORM)
        answer = await client.answer()
    assert (answer.status, answer.error["code"]) == (401, "invalid_api_key")
    assert not any(b"filename" in each.body for each in upstream.requests)
    assert len(upstream.requests) <= is_upload


CHANGES: dict[str, tuple[dict[str, Any], int]] = {
    "models": ({"grants": {"models": ["other"]}}, 403),
    "limits": ({"limits": {"tokens_per_minute": 1, "requests_per_day": 1}}, 200),
    "nothing": ({"tags": {"a": "b"}}, 200),
}


@pytest.mark.parametrize("change", CHANGES)
async def test_the_call_has_the_grants_and_limits_of_when_its_body_came(setting: Setting, change: str) -> None:
    gateway, _, admin = setting
    key = a_key(admin)
    changed, status = CHANGES[change]
    async with connected(gateway.port) as client:
        await begin(client, "POST", CHAT, key, BODY, JSON)
        await asyncio.to_thread(admin.patch, f"/keys/{key['id']}", changed)
        client.send(BODY)
        answer = await client.answer()
    assert answer.status == status
    assert answer.header("x-ratelimit-limit-requests") == ("1" if change == "limits" else None)


def counted(gateway: RunningGateway) -> Callable[[], int]:
    """How often a key was looked at from now on."""
    directory, looks = gateway.app.proxy._directory, 0
    remembered = directory.remembered

    def counting(token_digest: bytes) -> Any:
        nonlocal looks
        looks += 1
        return remembered(token_digest)

    directory.remembered = counting  # type: ignore[method-assign]
    return lambda: looks


async def test_a_key_is_looked_at_once_where_the_body_comes_with_the_head(setting: Setting) -> None:
    gateway, _, admin = setting
    headers = [("Authorization", f"Bearer {a_key(admin)['secret']}"), JSON]
    await ask(gateway.port, request("GET", "/v1/models", headers=headers))
    looks = counted(gateway)
    for _ in range(2):  # of heads that came before, too
        assert (await ask(gateway.port, request("POST", CHAT, BODY, headers))).status == 200
    assert looks() == 2


def looked_at(gateway: RunningGateway) -> threading.Event:
    """Set when somebody waits for its turn, and has been looked at."""
    room, event = gateway.app.proxy._allowance.room, threading.Event()
    look = room.on_look
    assert look is not None

    def look_and_tell() -> None:
        look()
        event.set()

    room.on_look = look_and_tell
    return event


@pytest.mark.parametrize("end", ["revoke", "disable", "rotate", "disable the team"])
async def test_a_call_that_waits_for_its_turn_leaves_when_its_key_ends(end: str) -> None:
    async with WireUpstream([Stall()], OK) as upstream:
        with running_gateway(f"{upstream.url}/v1", keys=[]) as gateway, administering(gateway) as admin:
            made(admin.post("/teams", {"name": "engines"}))
            key = a_key(admin, limits={"parallel": 1, "max_wait_s": 60})
            call = request("POST", CHAT, BODY, [("Authorization", f"Bearer {key['secret']}"), JSON])
            looked = looked_at(gateway)
            async with connected(gateway.port) as one, connected(gateway.port) as two:
                one.send(call)
                await upstream.received(1)
                two.send(call)
                assert await asyncio.to_thread(looked.wait, 5)
                await asyncio.to_thread(ENDS[end], admin, key)
                answer = await two.answer()
                assert gateway.ask(lambda: gateway.app.proxy._allowance.room.waiting) == 0
                assert gateway.ask(lambda: len(gateway.app.proxy.open_calls)) == 1, "what runs is finished"
    assert (answer.status, answer.error["code"]) == (401, "invalid_api_key")
    assert len(upstream.requests) == 1


async def test_a_call_that_is_upstream_is_finished_though_its_key_ends_while_others_wait() -> None:
    """Also one that the limits of another model alone might have bound."""
    go = asyncio.Event()
    async with WireUpstream([Stall()], ends_when(go)) as upstream:
        with running_gateway(f"{upstream.url}/v1", keys=[]) as gateway, administering(gateway) as admin:
            made(admin.post("/teams", {"name": "engines", "model_limits": {"other": {"parallel": 1}}}))
            limited = a_key(admin, limits={"parallel": 1, "max_wait_s": 60})
            free = a_key(admin, name="bob")
            call, stream = (
                request("POST", CHAT, BODY, [("Authorization", f"Bearer {key['secret']}"), JSON])
                for key in (limited, free)
            )
            async with connected(gateway.port) as one, connected(gateway.port) as two, connected(gateway.port) as three:
                one.send(call)
                await upstream.received(1)
                three.send(stream)
                await three.head()
                await three.chunk()
                await asyncio.to_thread(ENDS["revoke"], admin, free)
                looked = looked_at(gateway)
                two.send(call)
                assert await asyncio.to_thread(looked.wait, 5)
                looked.clear()
                assert await asyncio.to_thread(looked.wait, 5), "by then, what was looked at has been cut"
                go.set()
                assert await three.chunk() == b"data: [DONE]\n\n"


async def test_a_call_that_waits_goes_on_waiting_when_its_key_is_changed() -> None:
    async with WireUpstream([Stall()], OK) as upstream:
        with running_gateway(f"{upstream.url}/v1", keys=[]) as gateway, administering(gateway) as admin:
            made(admin.post("/teams", {"name": "engines"}))
            key = a_key(admin, limits={"parallel": 1, "max_wait_s": 60})
            call = request("POST", CHAT, BODY, [("Authorization", f"Bearer {key['secret']}"), JSON])
            async with connected(gateway.port) as one, connected(gateway.port) as two:
                one.send(call)
                await upstream.received(1)
                two.send(call)
                assert await asyncio.to_thread(looked_at(gateway).wait, 5)
                await asyncio.to_thread(admin.patch, f"/keys/{key['id']}", {"tags": {"a": "b"}})
                assert await asyncio.to_thread(looked_at(gateway).wait, 5)
                one.leave()
                assert (await two.answer()).status == 200
