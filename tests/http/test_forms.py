"""Forms at the face: read whole where policy depends on their model, streamed as they come where it does not."""

import asyncio
import gzip
import json
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.faults.face import Answer, ask, connected, request
from tests.http.admin_server import Client as Admin
from tests.http.admin_server import made
from tests.http.test_disconnect import _noticed
from tests.http.test_late_bodies import administering, begin
from tests.relay.test_strict_form import CONTENT_TYPES, END, FILE, MODEL, ODD, SOUND, TEXT, TYPE, part
from tests.support.gateway import RunningGateway, running_gateway
from tests.support.wire import Script, WireRequest, WireUpstream, chunk, reply

SPEECH = "/v1/audio/transcriptions"
MAX_BODY_BYTES = 100_000
FORM_TYPE = re.compile(rb"multipart/form-data(?!.* $)", re.IGNORECASE)
"""Others are no forms, and white space at the end is no part of a header."""
JSON = [(b"content-type", b"application/json")]
USAGE = {"input_tokens": 300, "output_tokens": 300, "total_tokens": 600}
OK = reply(200, JSON, json.dumps({"text": "Hi", "usage": USAGE}).encode())
FORM = FILE + TEXT + MODEL + END
OTHER = FORM.replace(b"whisper", b"other")
CURTAILED: dict[str, dict[str, Any]] = {
    "grants": {"grants": {"models": ["whisper*"]}},
    "budget": {"budgets": {"total_microusd": 1_000_000}},
}
PRICES = """
unit: microusd_per_million_tokens
models: {whisper: {looked_up: 2026-11-22, input: 1_000_000, output: 1_000_000}}
"""


@dataclass(frozen=True)
class World:
    """A gateway, the upstream behind it, and who administers it."""

    gateway: RunningGateway
    upstream: WireUpstream
    admin: Admin

    def key(self, name: str = "ada", **members: Any) -> dict[str, Any]:
        return made(self.admin.post("/keys", {"team": "engines", "name": name, **members}))

    async def send(self, key: dict[str, Any], body: bytes, content_type: bytes = TYPE, *more: Any) -> Answer:
        headers = [
            ("Authorization", f"Bearer {key['secret']}"),
            ("Content-Type", content_type.decode("latin-1")),
            *more,
        ]
        return await ask(self.gateway.port, request("POST", SPEECH, body, headers))


@asynccontextmanager
async def running_world(folder: Path, script: Script = OK, **sections: Any) -> AsyncIterator[World]:
    (folder / "prices.yaml").write_text(PRICES)
    sections = {"keys": [], "prices": {"file": str(folder / "prices.yaml")}, **sections}
    async with WireUpstream(script) as upstream:
        with running_gateway(f"{upstream.url}/v1", **sections) as gateway, administering(gateway) as admin:
            made(admin.post("/teams", {"name": "engines"}))
            yield World(gateway, upstream, admin)


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    models = {"aliases": {"fast": "whisper", "whisper-alias": "other"}}
    async with running_world(tmp_path, models=models, server={"max_body_bytes": MAX_BODY_BYTES}) as running:
        yield running


async def test_who_may_use_some_models_sends_forms_of_these_and_of_no_other(world: World) -> None:
    key = world.key(**CURTAILED["grants"])
    served, refused = await world.send(key, FORM), await world.send(key, OTHER)
    assert (served.status, refused.status, refused.error["code"]) == (200, 403, "model_not_allowed")
    assert "'other'" in refused.error["message"]
    assert [each.body for each in world.upstream.requests] == [FORM]
    records = await world.gateway.recorded(2)
    assert [each.model for each in records] == ["whisper", "other"]


async def test_an_alias_in_a_form_is_not_what_it_stands_for(world: World) -> None:
    key = world.key(**CURTAILED["grants"])
    for alias in (b"fast", b"whisper-alias"):
        refused = await world.send(key, FORM.replace(b"whisper", alias))
        assert (refused.status, refused.error["code"]) == (403, "model_not_allowed")
    assert world.upstream.requests == []


async def test_json_on_a_route_of_forms_is_held_to_its_own_model(world: World) -> None:
    key = world.key(**CURTAILED["grants"])
    for name, status in (("whisper", 200), ("other", 403)):
        answer = await world.send(key, json.dumps({"model": name}).encode(), b"application/json")
        assert answer.status == status
    assert len(world.upstream.requests) == 1


@pytest.mark.parametrize("kind", CURTAILED)
async def test_a_form_whose_model_may_be_read_in_two_ways_is_refused_and_upstream_never_asked(
    world: World, kind: str
) -> None:
    key = world.key(**CURTAILED[kind])
    answers = {name: await world.send(key, body) for name, body in ODD.items() if body}
    answers |= {str(each): await world.send(key, FORM, each) for each in CONTENT_TYPES if FORM_TYPE.match(each)}
    for name, answer in answers.items():
        assert (answer.status, answer.error["type"], answer.error["param"]) == (
            400,
            "invalid_request_error",
            "model",
        ), name
        assert "exactly one field `model`" in answer.error["message"], name
    assert world.upstream.requests == []


async def test_a_form_that_a_budget_has_no_room_for_is_refused_before_it_is_sent(world: World) -> None:
    key = world.key(budgets={"total_microusd": 900})
    refused = await world.send(key, FORM)
    assert (refused.status, refused.error["code"]) == (429, "insufficient_quota")
    assert world.upstream.requests == []


async def test_a_form_is_reserved_for_and_settled_with_what_it_cost(world: World) -> None:
    key = world.key(budgets={"total_microusd": 2500})
    left: list[int] = []

    def remaining() -> int:
        return int(world.admin.get("/limits", key=key["id"]).json()["data"][0]["remaining"])

    async def look(_: asyncio.StreamReader, writer: asyncio.StreamWriter, __: WireRequest) -> None:
        left.append(await asyncio.to_thread(remaining))
        writer.write(OK)

    world.upstream.scripts = [look]
    assert (await world.send(key, FORM)).status == 200
    await world.gateway.recorded(1)
    size = len(SOUND) + len("Na\u00efve names".encode()) + len("whisper")
    assert left == [2500 - (size // 4 + 1) - 1001], "1,000 tokens of output, and the bytes of text and sound"
    assert remaining() == 2500 - 600
    assert (await world.gateway.recorded(1))[0].cost_microusd == 600


async def test_a_limit_of_a_model_binds_forms_that_name_it(world: World) -> None:
    limits = {"model_limits": {"whisper": {"requests_per_day": 1}}}
    assert world.admin.patch("/teams/engines", limits).status_code == 200
    key = world.key()
    statuses = [(await world.send(key, form)).status for form in (FORM, FORM, OTHER, OTHER)]
    assert statuses == [200, 429, 200, 200]
    assert (await world.send(key, FILE + END)).status == 400


@pytest.mark.parametrize("kind", CURTAILED)
@pytest.mark.parametrize("how", ["length", "chunked", "gzip"])
async def test_a_form_that_passes_goes_upstream_byte_for_byte(world: World, kind: str, how: str) -> None:
    key = world.key(**CURTAILED[kind])
    headers = [("Authorization", f"Bearer {key['secret']}"), ("Content-Type", TYPE.decode()), ("X-Odd", "a  b")]
    if how == "chunked":
        framed = b"".join(chunk(FORM[at : at + 700]) for at in range(0, len(FORM), 700)) + b"0\r\n\r\n"
        data = request("POST", SPEECH, framed, [*headers, ("Transfer-Encoding", "chunked")], length=False)
    elif how == "gzip":
        data = request("POST", SPEECH, gzip.compress(FORM), [*headers, ("Content-Encoding", "gzip")])
    else:
        data = request("POST", SPEECH, FORM, headers)
    assert (await ask(world.gateway.port, data)).status == 200
    (seen,) = world.upstream.requests
    assert seen.body == FORM
    assert (seen.header(b"content-type"), seen.header(b"x-odd")) == (TYPE, b"a  b")
    assert (seen.header(b"content-encoding"), seen.header(b"content-length")) == (None, b"%d" % len(FORM))


@pytest.mark.parametrize("kind", CURTAILED)
async def test_a_form_over_the_cap_of_held_bodies_is_413_and_says_why(world: World, kind: str) -> None:
    key = world.key(**CURTAILED[kind])
    form = part("file", bytes(MAX_BODY_BYTES), '; filename="a.wav"') + MODEL + END
    refused = await world.send(key, form)
    assert (refused.status, refused.error["code"]) == (413, "request_too_large")
    for words in (f"{MAX_BODY_BYTES} bytes", "depends on the model", "read whole", "server.max_body_bytes"):
        assert words in refused.error["message"]
    assert world.upstream.requests == []
    assert (await world.send(world.key("free"), form)).status == 200, "what nothing depends on is not held"


@pytest.mark.parametrize("limits", [{}, {"requests_per_minute": 60, "tokens_per_minute": 100_000}])
async def test_a_form_on_which_nothing_depends_streams_through(world: World, limits: dict[str, int]) -> None:
    key, first, whole = world.key(limits=limits), asyncio.Event(), b""

    async def read(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, _: WireRequest) -> None:
        nonlocal whole
        whole = await reader.readexactly(len(FILE))
        first.set()
        whole += await reader.readexactly(len(MODEL + END))
        writer.write(OK)

    world.upstream.scripts, world.upstream._body_first = [read], False
    headers = [("Authorization", f"Bearer {key['secret']}"), ("Content-Type", TYPE.decode())]
    async with connected(world.gateway.port) as client:
        size = len(FILE + MODEL + END)
        client.send(request("POST", SPEECH, headers=[*headers, ("Content-Length", str(size))]) + FILE)
        async with asyncio.timeout(5):
            await first.wait()
        client.send(MODEL + END)
        assert (await client.answer()).status == 200
    assert whole == FILE + MODEL + END
    assert (await world.gateway.recorded(1))[0].model == "whisper"


@pytest.mark.parametrize("odd", ["no model", "two models", "preamble", "no quotes"])
async def test_nor_is_its_model_asked_for(world: World, odd: str) -> None:
    body = ODD.get(odd, b"\r\n" + MODEL + END)
    assert (await world.send(world.key(), body)).status == 200
    assert world.upstream.requests[0].body == body


async def test_a_budget_that_is_only_tried_out_changes_nothing(tmp_path: Path) -> None:
    async with running_world(tmp_path, limits={"shadow": ["budget"]}) as world:
        assert (await world.send(world.key(budgets={"total_microusd": 1}), ODD["two models"])).status == 200


LATE: dict[str, tuple[dict[str, Any], int]] = {
    "narrowed": ({"grants": {"models": ["other"]}}, 403),
    "no budget left": ({"budgets": {"total_microusd": 900}}, 429),
    "nothing": ({"tags": {"a": "b"}}, 200),
}


@pytest.mark.parametrize("change", LATE)
async def test_a_form_that_is_read_has_the_grants_and_limits_of_when_it_was_there(world: World, change: str) -> None:
    key = world.key(**CURTAILED["grants"])
    changed, status = LATE[change]
    async with connected(world.gateway.port) as client:
        await begin(client, "POST", SPEECH, key, FORM, ("Content-Type", TYPE.decode()))
        await asyncio.to_thread(world.admin.patch, f"/keys/{key['id']}", changed)
        client.send(FORM)
        assert (await client.answer()).status == status
    assert len(world.upstream.requests) == (status == 200)


async def test_a_form_that_streams_ends_where_its_key_is_narrowed_meanwhile(world: World) -> None:
    key = world.key()
    async with connected(world.gateway.port) as client:
        await begin(client, "POST", SPEECH, key, FORM, ("Content-Type", TYPE.decode()))
        await asyncio.to_thread(world.admin.patch, f"/keys/{key['id']}", CURTAILED["grants"])
        client.send(FORM)
        refused = await client.answer()
    assert (refused.status, refused.error["code"]) == (403, "model_not_allowed")
    assert not any(each.body for each in world.upstream.requests)


async def test_a_client_that_leaves_before_its_form_was_read_has_cost_nothing(world: World) -> None:
    key = world.key(**CURTAILED["budget"])
    async with connected(world.gateway.port) as client:
        await begin(client, "POST", SPEECH, key, FORM, ("Content-Type", TYPE.decode()))
        client.send(FORM[:100])
    (record,) = await world.gateway.recorded(1)
    assert (record.outcome, record.cost_microusd) == ("client_left", 0)
    assert world.upstream.requests == []


async def test_a_form_that_does_not_come_in_time_is_408(tmp_path: Path) -> None:
    async with running_world(tmp_path, server={"request_timeout_s": 0.2}) as world:
        key = world.key(**CURTAILED["budget"])
        headers = [("Authorization", f"Bearer {key['secret']}"), ("Content-Type", TYPE.decode())]
        async with connected(world.gateway.port) as client:
            client.send(request("POST", SPEECH, FORM[:100], [*headers, ("Content-Length", "1000")], length=False))
            late = await client.answer()
    assert (late.status, late.error["code"]) == (408, "request_timeout")
    assert world.upstream.requests == []


async def test_a_form_that_was_read_is_counted_though_its_client_left_where_calls_are_drained(tmp_path: Path) -> None:
    left = asyncio.Event()

    async def answer(_: asyncio.StreamReader, writer: asyncio.StreamWriter, __: WireRequest) -> None:
        await left.wait()
        writer.write(OK)

    async with running_world(tmp_path, answer, upstream={"on_client_disconnect": "drain"}) as world:
        key = world.key(**CURTAILED["budget"])
        headers = [("Authorization", f"Bearer {key['secret']}"), ("Content-Type", TYPE.decode())]
        async with connected(world.gateway.port) as client:
            client.send(request("POST", SPEECH, FORM, headers))
            await world.upstream.received(1)
        await _noticed(world.gateway)
        left.set()
        (record,) = await world.gateway.recorded(1)
    assert (record.outcome, record.cost_microusd) == ("client_left", 600)
