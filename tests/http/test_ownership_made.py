"""What a call makes is its team's before the client knows of it."""

import gzip
import json
import re
from collections.abc import Iterator
from typing import Any

import pytest

from gateway.relay import plain
from gateway.store import journal
from tests.http.teams import (
    ADA,
    BOB,
    EVE,
    KEYS,
    MODEL,
    World,
    a_completion,
    a_response,
    asked,
    impatient,
    is_refused,
    text,
    two_teams,
)
from tests.support.gateway import running_gateway
from tests.support.wire import WireUpstream, reply, sse


@pytest.fixture(autouse=True, scope="module")
def _impatient() -> Iterator[None]:
    with impatient():
        yield


@pytest.fixture(scope="module")
def shared() -> Iterator[World]:
    """Teams share what their keys make."""
    with two_teams() as world:
        yield world


def test_a_response_that_is_not_stored_is_nobodys(shared: World) -> None:
    assert is_refused(shared.ask(ADA, "GET", f"responses/{a_response(shared, ADA, store=False)}"))
    assert not is_refused(shared.ask(ADA, "GET", f"responses/{a_response(shared, ADA, store=None)}"))
    assert is_refused(shared.ask(ADA, "GET", f"chat/completions/{a_completion(shared, ADA, store=None)}"))


def test_the_id_of_a_streamed_response_is_known_when_its_first_event_is_there(shared: World) -> None:
    with shared.client(ADA).responses.create(model=MODEL, input=text(), stream=True) as stream:
        first = next(iter(stream))
        assert first.type == "response.created"
        assert not is_refused(shared.ask(BOB, "GET", f"responses/{first.response.id}"))
        assert is_refused(shared.ask(EVE, "GET", f"responses/{first.response.id}"))
        items = [event.item.id for event in stream if event.type == "response.output_item.added"]
    body = {"model": MODEL, "input": [{"type": "item_reference", "id": items[0]}]}
    assert is_refused(shared.ask(EVE, "POST", "responses", json=body))
    assert not is_refused(shared.ask(ADA, "POST", "responses", json=body))


def test_the_id_of_a_streamed_completion_is_known_if_it_is_stored(shared: World) -> None:
    for store in (True, False):
        messages: Any = [{"role": "user", "content": text()}]
        with shared.client(ADA).chat.completions.create(
            model=MODEL, messages=messages, stream=True, store=store
        ) as stream:
            made = next(iter(stream)).id
        assert is_refused(shared.ask(BOB, "GET", f"chat/completions/{made}")) is not store
        assert is_refused(shared.ask(EVE, "GET", f"chat/completions/{made}"))


def test_the_file_that_an_upload_becomes_is_its_teams(shared: World) -> None:
    client = shared.client(ADA)
    upload = client.uploads.create(bytes=3, filename=text(), mime_type="text/plain", purpose="batch")
    part = client.uploads.parts.create(upload.id, data=b"abc")
    done = client.uploads.complete(upload.id, part_ids=[part.id])
    assert done.file is not None
    assert shared.client(BOB).files.content(done.file.id).read() == b"abc"
    assert is_refused(shared.ask(EVE, "GET", f"files/{done.file.id}/content"))


JSON = [(b"Content-Type", b"application/json")]


@pytest.mark.parametrize("path", ["batches/batch_1", "batches"])
async def test_the_files_that_a_batch_writes_are_those_of_who_made_the_batch(path: str) -> None:
    batch = b'{"id":"batch_1","output_file_id":"file-out","error_file_id":"file-err"}'
    body = batch if path != "batches" else b'{"data":[' + batch + b',{"id":"batch_2","output_file_id":"file-2"}]}'
    async with WireUpstream(reply(200, JSON, body), reply(200, JSON, b"{}")) as upstream:
        with running_gateway(f"{upstream.url}/v1", keys=KEYS, access={"share_within_team": True}) as gateway:
            gateway.own("batch_1", key=ADA)
            for name in ("file-out", "file-err"):
                assert is_refused(await asked(gateway, BOB, "GET", f"files/{name}/content"))
            assert (await asked(gateway, BOB, "GET", path)).status_code == 200
            for name in ("file-out", "file-err"):
                assert not is_refused(await asked(gateway, BOB, "GET", f"files/{name}/content"))
                assert is_refused(await asked(gateway, EVE, "GET", f"files/{name}/content"))
                owner = gateway.app.proxy._objects._ownership.owner_of(name)
                assert owner == gateway.app.proxy._objects._ownership.owner_of("batch_1"), "not of who looked at it"
            assert is_refused(await asked(gateway, BOB, "GET", "files/file-2"))


async def test_containers_and_spoken_answers_are_those_of_who_made_them() -> None:
    response = {
        "id": "resp_1",
        "output": [
            {"type": "code_interpreter_call", "id": "ci_1", "container_id": "cntr_1"},
            {"type": "shell_call", "id": "sh_1", "environment": {"container_id": "cntr_2"}},
        ],
    }
    spoken = {"id": "chatcmpl-1", "choices": [{"message": {"audio": {"id": "audio_1", "data": "AA=="}}}]}
    streamed = {"id": "chatcmpl-2", "choices": [{"delta": {"audio": {"id": "audio_2"}}}]}
    added = {"type": "response.output_item.added", "item": {"type": "code_interpreter_call", "container_id": "cntr_3"}}
    async with WireUpstream(
        reply(200, JSON, json.dumps(response).encode()),
        reply(200, JSON, json.dumps(spoken).encode()),
        sse([streamed, "[DONE]"]),
        sse([added]),
        reply(200, JSON, b"{}"),
    ) as upstream:
        with running_gateway(f"{upstream.url}/v1", keys=KEYS) as gateway:
            chat = {"model": "m", "messages": [], "modalities": ["text", "audio"], "audio": {"voice": "alloy"}}
            await asked(gateway, ADA, "POST", "responses", json={"model": "m", "store": False})
            await asked(gateway, ADA, "POST", "chat/completions", json=chat)
            await asked(gateway, ADA, "POST", "chat/completions", json={**chat, "stream": True})
            await asked(gateway, ADA, "POST", "responses", json={"model": "m", "stream": True})
            bodies: list[dict[str, Any]] = [{"tools": [{"container": f"cntr_{number}"}]} for number in (1, 2, 3)]
            bodies += [{"messages": [{"role": "assistant", "audio": {"id": f"audio_{number}"}}]} for number in (1, 2)]
            bodies.append({"input": [{"type": "code_interpreter_call", "id": "ci_1", "container_id": "cntr_1"}]})
            for body in bodies:
                assert is_refused(await asked(gateway, EVE, "POST", "responses", json=body))
                assert (await asked(gateway, BOB, "POST", "responses", json=body)).status_code == 200
            assert is_refused(await asked(gateway, ADA, "GET", "chat/completions/chatcmpl-1")), "it was not stored"


@pytest.mark.parametrize(
    ("path", "kind", "made"),
    [
        ("conversations", b"application/json", b'{"id":"made_1"}'),
        ("responses", b"application/json", b'{"id":"made_1"}'),
        ("responses", b"text/event-stream", b'data: {"type":"response.created","response":{"id":"made_1"}}\n\n'),
    ],
)
async def test_what_a_compressed_reply_names_is_its_teams_too(path: str, kind: bytes, made: bytes) -> None:
    compressed = reply(200, [(b"content-type", kind), (b"content-encoding", b"gzip")], gzip.compress(made))
    async with WireUpstream(compressed) as upstream:
        with running_gateway(f"{upstream.url}/v1", keys=KEYS) as gateway:
            assert (await asked(gateway, ADA, "POST", path, json={"model": "m"})).content == made
            assert not is_refused(await asked(gateway, BOB, "GET", f"{path}/made_1"))
            assert is_refused(await asked(gateway, EVE, "GET", f"{path}/made_1"))


# What cannot be noted does not get out


@pytest.mark.parametrize("body", [b'{"id":', b"[]", b"", b'{"id":7}', b'{"object":"file"}'])
async def test_a_reply_without_an_id_is_passed_on_as_it_came(body: bytes) -> None:
    async with WireUpstream(reply(200, JSON, body)) as upstream:
        with running_gateway(f"{upstream.url}/v1", keys=KEYS) as gateway:
            got = await asked(gateway, ADA, "POST", "files", files={"file": ("a", b"b")})
    assert (got.status_code, got.content) == (200, body)


async def test_a_reply_that_is_too_large_to_be_held_is_passed_on_and_nobodys(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plain, "MAX_HELD_BYTES", 1_000)
    body = json.dumps({"id": "file-1", "filename": "x" * 200_000}).encode()
    async with WireUpstream(reply(200, JSON, body)) as upstream:
        with running_gateway(f"{upstream.url}/v1", keys=KEYS) as gateway:
            got = await asked(gateway, ADA, "POST", "files", files={"file": ("a", b"b")})
            assert is_refused(await asked(gateway, ADA, "GET", "files/file-1"))
    assert got.content == body


async def test_where_nothing_can_be_noted_upstream_is_not_asked_to_make_anything() -> None:
    made = {"model": "m", "input": "a"}
    async with WireUpstream(reply(200, JSON, b"{}")) as upstream:
        with running_gateway(f"{upstream.url}/v1", keys=KEYS) as gateway:
            gateway.own("resp_1", key=ADA)
            journal = gateway.app.proxy._objects._ownership._journal
            journal._max_bytes, written_bytes = 0, journal.written_bytes
            for path, what in (
                ("responses", {"json": made}),
                ("responses", {"json": {**made, "stream": True}}),
                ("files", {"files": {"file": ("a", b"b")}, "data": {"purpose": "batch"}}),
                ("chat/completions", {"json": {"model": "m", "messages": [], "store": True}}),
            ):
                refused = await asked(gateway, ADA, "POST", path, **what)
                assert (refused.status_code, refused.json()["error"]["code"]) == (503, "store_unavailable")
            assert upstream.requests == []
            assert (await asked(gateway, ADA, "POST", "responses", json={**made, "store": False})).status_code == 200
            assert (await asked(gateway, ADA, "GET", "responses/resp_1")).status_code == 200
            assert journal.written_bytes == written_bytes


async def test_an_id_that_cannot_be_noted_does_not_reach_the_client(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(journal, "ROOM_BYTES", -1)  # as where the room went while upstream was at work
    created = {"type": "response.created", "response": {"id": "resp_2"}}
    late = {"type": "response.output_item.added", "item": {"id": "msg_1", "type": "message"}}
    async with WireUpstream(
        reply(200, JSON, b'{"id":"resp_1"}'), sse([created]), sse([{"type": "x"}, late]), reply(200, JSON, b"{}")
    ) as upstream:
        with running_gateway(f"{upstream.url}/v1", keys=KEYS) as gateway:
            gateway.app.proxy._objects._ownership._journal._max_bytes = 0
            body = {"model": "m", "input": "a"}
            for whole in (body, {**body, "stream": True}):
                got = await asked(gateway, ADA, "POST", "responses", json=whole)
                assert (got.status_code, got.json()["error"]["code"]) == (503, "store_unavailable")
                assert "resp_" not in got.text
            cut = await asked(gateway, ADA, "POST", "responses", json={**body, "stream": True})
            assert cut.status_code in (200, 503)
            assert "store_unavailable" in cut.text
            assert "msg_1" not in cut.text
            chat = await asked(gateway, ADA, "POST", "chat/completions", json={"model": "m", "messages": []})
            assert chat.status_code == 200, "what stores nothing goes on"


def test_equal_questions_of_two_teams_have_answers_of_their_own(shared: World) -> None:
    question = {"model": MODEL, "input": text()}
    ada, eve = (shared.make(key, "responses", question) for key in (ADA, EVE))
    assert shared.ask(ADA, "GET", f"responses/{ada}").status_code == 200
    assert shared.ask(EVE, "GET", f"responses/{eve}").status_code == 200
    assert is_refused(shared.ask(EVE, "GET", f"responses/{ada}"))


# Names for upstream's caches


def cache_keys(world: World, key: str, **headers: str) -> str:
    body = {"model": MODEL, "input": text(), "prompt_cache_key": "ours"}
    return str(world.ask(key, "POST", "responses", json=body, headers=headers).json()["prompt_cache_key"])


def test_prompt_cache_keys_of_two_teams_are_kept_apart_upstream(shared: World) -> None:
    ada, bob, eve = (cache_keys(shared, key) for key in (ADA, BOB, EVE))
    assert ada == bob != eve
    assert re.fullmatch(r"gw-[0-9a-f]{40}", ada)


async def test_nothing_but_the_prompt_cache_key_changes_in_a_body() -> None:
    body = b'{ "model":"m",\n"prompt_cache_key" : "o\\u0075rs" , "input":[1.0],"\\u00e9":null}'
    async with WireUpstream(reply(200, JSON, b"{}")) as upstream:
        with running_gateway(f"{upstream.url}/v1", keys=KEYS) as gateway:
            await asked(gateway, ADA, "POST", "responses", content=body)
        with running_gateway(f"{upstream.url}/v1", keys=KEYS, access={"namespace_keys": False}) as gateway:
            await asked(gateway, ADA, "POST", "responses", content=body)
    changed, same = (seen.body for seen in upstream.requests)
    assert same == body
    assert re.sub(rb"gw-[0-9a-f]{40}", rb"o\\u0075rs", changed) == body
    assert changed != body
