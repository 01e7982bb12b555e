"""What a body names must be the caller's, however it is spelled."""

from collections.abc import Callable, Iterator
from typing import Any

import openai
import pytest

from tests.http.teams import (
    ADA,
    BOB,
    EVE,
    MODEL,
    World,
    a_conversation,
    a_file,
    a_response,
    a_vector_store,
    is_refused,
    text,
    two_teams,
)


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
    assert shared.seen() == before + 1


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
    odd = shared.ask(EVE, "POST", "images/edits", content=b'{"file_id":"x"}', headers={"Content-Type": "text/plain"})
    assert odd.status_code == 415
    assert shared.seen() == before


def test_one_can_go_on_from_what_one_has_and_send_items_back_as_they_came(shared: World) -> None:
    client = shared.client(ADA)
    first = client.responses.create(model=MODEL, input=text(), reasoning={"effort": "low", "summary": "auto"})
    again = [item.model_dump(exclude_none=True) for item in first.output]
    client.responses.create(model=MODEL, input=[*again, {"role": "user", "content": text()}])  # type: ignore[list-item]
    client.responses.create(model=MODEL, input=text(), previous_response_id=first.id)
    with pytest.raises(openai.NotFoundError, match="not yours"):
        shared.client(EVE).responses.create(model=MODEL, input=text(), previous_response_id=first.id)
