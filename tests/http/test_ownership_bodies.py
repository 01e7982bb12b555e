"""What a body names must be the caller's, however it is spelled."""

import json
from collections.abc import Callable, Iterator
from typing import Any

import httpx2
import openai
import pytest

from tests.http.teams import (
    ADA,
    BOB,
    EVE,
    KEYS,
    MODEL,
    World,
    a_conversation,
    a_file,
    a_response,
    a_vector_store,
    asked,
    is_refused,
    text,
    two_teams,
)
from tests.support.gateway import running_gateway
from tests.support.wire import WireUpstream, reply


@pytest.fixture(scope="module")
def shared() -> Iterator[World]:
    """Teams share what their keys make."""
    with two_teams() as world:
        yield world


Fill = Callable[[World, str], tuple[str, dict[str, Any]]]


def responses(**body: Any) -> tuple[str, dict[str, Any]]:
    return "responses", {"model": MODEL, "input": text(), **body}


def content(part: dict[str, Any]) -> list[dict[str, Any]]:
    return [{"role": "user", "content": [part]}]


def an_item(world: World, key: str) -> str:
    """The id of an item of an answer."""
    answer = world.ask(key, "POST", "responses", json={"model": MODEL, "input": text()})
    return str(answer.json()["output"][-1]["id"])


BODIES: dict[str, Fill] = {
    "previous_response_id": lambda world, key: responses(previous_response_id=a_response(world, key)),
    "conversation": lambda world, key: responses(conversation=a_conversation(world, key)),
    "conversation.id": lambda world, key: responses(conversation={"id": a_conversation(world, key)}),
    "input_file": lambda world, key: responses(input=content({"type": "input_file", "file_id": a_file(world, key)})),
    "input_image": lambda world, key: responses(input=content({"type": "input_image", "file_id": a_file(world, key)})),
    "item_reference": lambda world, key: responses(input=[{"type": "item_reference", "id": an_item(world, key)}]),
    "vector_store_ids": lambda world, key: responses(
        tools=[{"type": "file_search", "vector_store_ids": [a_vector_store(world, key)]}]
    ),
    "file_ids of a container": lambda world, key: responses(
        tools=[{"type": "code_interpreter", "container": {"type": "auto", "file_ids": [a_file(world, key)]}}]
    ),
    "input_tokens": lambda world, key: (
        "responses/input_tokens",
        {"model": MODEL, "input": "a", "previous_response_id": a_response(world, key)},
    ),
    "compact": lambda world, key: (
        "responses/compact",
        {"model": MODEL, "input": "a", "previous_response_id": a_response(world, key)},
    ),
    "file of a message": lambda world, key: (
        "chat/completions",
        {"model": MODEL, "messages": content({"type": "file", "file": {"file_id": a_file(world, key)}})},
    ),
    "input_file_id": lambda world, key: (
        "batches",
        {"input_file_id": a_file(world, key), "endpoint": "/v1/responses", "completion_window": "24h"},
    ),
    "file_ids": lambda world, key: ("vector_stores", {"file_ids": [a_file(world, key), a_file(world, key)]}),
}


@pytest.mark.parametrize("fill", BODIES.values(), ids=BODIES)
def test_what_a_body_names_must_be_the_callers(shared: World, fill: Fill) -> None:
    path, body = fill(shared, ADA)
    before = shared.seen()
    foreign = shared.ask(EVE, "POST", path, json=body)
    assert is_refused(foreign)
    assert shared.seen() == before
    assert shared.ask(BOB, "POST", path, json=body).status_code == 200
    assert shared.seen() == before + (2 if path == "batches" else 1), "the file of a batch is looked through"


def lines_of(*bodies: Any) -> bytes:
    requests = [{"custom_id": str(n), "url": "/v1/responses", "body": body} for n, body in enumerate(bodies)]
    return b"\n".join(json.dumps(request).encode() for request in requests)


def batch(world: World, key: str, content: bytes) -> httpx2.Response:
    """The answer to a batch of requests in a file."""
    files = {"file": (text(), content)}
    file_id = world.ask(key, "POST", "files", files=files, data={"purpose": "batch"}).json()["id"]
    body = {"input_file_id": file_id, "endpoint": "/v1/responses", "completion_window": "24h"}
    return world.ask(key, "POST", "batches", json=body)


def batches(world: World) -> int:
    report = world.http.get(f"{world.upstream}/_seen").json()["requests"]
    return sum((each["method"], each["target"]) == ("POST", "/v1/batches") for each in report)


def test_what_the_requests_of_a_batch_name_must_be_the_callers(shared: World) -> None:
    theirs: list[dict[str, Any]] = [
        {"previous_response_id": a_response(shared, ADA)},
        {"conversation": {"id": a_conversation(shared, ADA)}},
        {"input": content({"type": "input_file", "file_id": a_file(shared, ADA)})},
        {"input": [{"type": "item_reference", "id": an_item(shared, ADA)}]},
        {"messages": content({"type": "file", "file": {"file_id": a_file(shared, ADA)}})},
    ]
    harmless = {"model": MODEL, "input": "x" * 100_000, "metadata": {"file_id": "a label"}}
    before = batches(shared)
    for body in theirs:
        assert is_refused(batch(shared, EVE, lines_of(harmless, {"model": MODEL, **body}, harmless)))
    assert batches(shared) == before
    assert batch(shared, BOB, lines_of(harmless, *theirs, {"model": MODEL}) + b"\n\n").status_code == 200
    assert batches(shared) == before + 1


@pytest.mark.parametrize(
    "line",
    [
        b"no JSON",
        b'{"body":{"previous_response_id":"a","previous_response_id":"b"}}',
        b'{"body":{"PREVIOUS_RESPONSE_ID":"a"}}',
        b'{"body":{"file_ids":[1,"a"]}}',
        b'{"body":{}}\r{"body":{"file_id":"a"}}',
        b'{"a":\r{"body":{"file_id":"a"}}\r}',
        b'{"a":\x0b{"body":{"file_id":"a"}}\x0b}',
        '{"a":\u2028{"body":{"file_id":"a"}}\u2028}'.encode(),
        b'["body"]',
    ],
)
def test_a_batch_whose_requests_could_be_read_in_two_ways_is_refused(shared: World, line: bytes) -> None:
    before = batches(shared)
    refusal = batch(shared, EVE, b'\xef\xbb\xbf{"body":{}}\r\n' + line)
    assert refusal.status_code == 400
    assert refusal.json()["error"]["message"].startswith("Line 2 of the batch")
    assert batches(shared) == before
    assert is_refused(batch(shared, EVE, b'{"body":{},"Body":{"file_id":"nobodys"}}'))


@pytest.mark.parametrize("separator", ["\x85", "\u2028", "\u2029"])
def test_what_splits_lines_for_some_may_stand_in_text(shared: World, separator: str) -> None:
    """Quotes are escaped there, so no part of it is an object."""
    request = {"body": {"model": MODEL, "input": f'{separator}{{"file_id":"a"}}{separator}'}}
    line = json.dumps(request, ensure_ascii=False)
    assert batch(shared, EVE, line.encode() + b"\r\n").status_code == 200


async def test_a_batch_whose_file_upstream_keeps_to_itself_is_refused() -> None:
    forbidden = reply(403, [(b"Content-Type", b"application/json")], b'{"error":{"message":"no"}}')
    async with WireUpstream(forbidden) as upstream:
        with running_gateway(f"{upstream.url}/v1", keys=KEYS) as gateway:
            gateway.own("file-1/..", key=ADA)
            body = {"input_file_id": "file-1/..", "endpoint": "/v1/responses", "completion_window": "24h"}
            refusal = await asked(gateway, ADA, "POST", "batches", json=body)
    assert (refusal.status_code, refusal.json()["error"]["param"]) == (400, "input_file_id")
    assert [seen.target for seen in upstream.requests] == [b"/v1/files/file-1%2F../content"]


def test_what_a_body_below_a_vector_store_names_must_be_the_callers(shared: World) -> None:
    store, theirs, ours = a_vector_store(shared, EVE), a_file(shared, ADA), a_file(shared, EVE)
    before = shared.seen()
    for path, body in (
        ("files", {"file_id": theirs}),
        ("file_batches", {"file_ids": [ours, theirs]}),
        ("file_batches", {"files": [{"file_id": ours}, {"file_id": theirs}]}),
    ):
        assert is_refused(shared.ask(EVE, "POST", f"vector_stores/{store}/{path}", json=body))
    assert shared.seen() == before
    assert shared.ask(EVE, "POST", f"vector_stores/{store}/file_batches", json={"file_ids": [ours]}).status_code == 200


@pytest.mark.parametrize(
    "spelled",
    [
        '"input":[{"content":[{"file_id":"%s"}]}]',
        '"input":[{"content":[{"FILE_ID":"%s"}]}]',
        '"input":[{"content":[{"\\u0066ile_id":"%s"}]}]',
        '"input":[{"content":[{"file_id":"mine","file_id":"%s"}]}]',
        '"input":[{"content":[{"file_id":"%s","file_id":"mine"}]}]',
        '"input":[],"input":[{"content":[{"file_id":"%s"}]}]',
        '"input":[{"type":"item_reference","id":"%s"}],"input":[]',
        '"input":[],"prompt":{"variables":{"a":{"file_id":"%s"}}}',
    ],
)
def test_no_spelling_of_a_body_gets_around_the_check(shared: World, spelled: str) -> None:
    theirs, mine = a_file(shared, ADA), a_file(shared, EVE)
    body = f'{{"model":"{MODEL}",{spelled.replace("mine", mine) % theirs}}}'.encode()
    before = shared.seen()
    assert is_refused(shared.ask(EVE, "POST", "responses", content=body, headers={"Content-Type": "application/json"}))
    assert shared.seen() == before


def test_a_name_of_an_id_may_be_a_users_label(shared: World) -> None:
    body = {
        "model": MODEL,
        "input": text(),
        "metadata": {"file_id": "ours-1"},
        "tools": [{"type": "function", "name": "f", "parameters": {"type": "object", "example": {"file_id": "x"}}}],
    }
    assert shared.ask(EVE, "POST", "responses", json=body).status_code == 200
    body["user"] = {"file_id": "ours-1"}
    assert is_refused(shared.ask(EVE, "POST", "responses", json=body))


def test_a_form_that_is_none_is_read_as_what_it_is(shared: World) -> None:
    theirs = a_file(shared, ADA)
    before = shared.seen()
    assert is_refused(shared.ask(EVE, "POST", "images/edits", json={"images": [{"file_id": theirs}], "prompt": "a"}))
    for odd in ("text/plain", "multipart/form-dataX; application/json", "multipart/form-data, application/json"):
        refusal = shared.ask(EVE, "POST", "images/edits", content=b'{"file_id":"x"}', headers={"Content-Type": odd})
        assert refusal.status_code == 415, odd
    assert shared.seen() == before


def test_one_can_go_on_from_what_one_has_and_send_items_back_as_they_came(shared: World) -> None:
    client = shared.client(ADA)
    first = client.responses.create(model=MODEL, input=text(), reasoning={"effort": "low", "summary": "auto"})
    again = [item.model_dump(exclude_none=True) for item in first.output]
    client.responses.create(model=MODEL, input=[*again, {"role": "user", "content": text()}])  # type: ignore[list-item]
    client.responses.create(model=MODEL, input=text(), previous_response_id=first.id)
    with pytest.raises(openai.NotFoundError, match="not yours"):
        shared.client(EVE).responses.create(model=MODEL, input=text(), previous_response_id=first.id)
