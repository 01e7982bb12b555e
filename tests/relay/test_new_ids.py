"""Which ids a reply names as new."""

import json
from collections.abc import Iterable
from typing import Any

import pytest

from gateway.call import Makes
from gateway.relay.new_ids import NewIds


class Notes:
    """Keeps what was noted."""

    def __init__(self) -> None:
        self.ids: list[str] = []

    def __call__(self, ids: Iterable[str]) -> None:
        self.ids += ids


def in_reply(makes: Makes, body: Any, *, is_stored: bool = True) -> list[str]:
    notes = Notes()
    NewIds(makes, notes, is_stored=is_stored).read(body if isinstance(body, bytes) else json.dumps(body).encode())
    return notes.ids


def in_stream(makes: Makes, *events: Any, is_stored: bool = True) -> list[str]:
    notes = Notes()
    new_ids = NewIds(makes, notes, is_stored=is_stored)
    for event in events:
        new_ids.feed(event if isinstance(event, bytes) else f"data: {json.dumps(event)}\n\n".encode())
    return notes.ids


OUTPUT = [
    {"id": "rs_1", "type": "reasoning"},
    {"id": "msg_1", "type": "message", "content": [{"id": "no", "container_id": "no"}]},
    {"id": "ci_1", "type": "code_interpreter_call", "container_id": "cntr_1"},
    {"id": "sh_1", "type": "shell_call", "environment": {"type": "container_reference", "container_id": "cntr_2"}},
]
RESPONSE = {"id": "resp_1", "output": OUTPUT, "conversation": {"id": "no"}, "tools": [{"container": "no"}]}
ALL = ["resp_1", "rs_1", "msg_1", "cntr_1", "ci_1", "cntr_2", "sh_1"]
UNSTORED = ["cntr_1", "ci_1", "cntr_2", "sh_1"]


@pytest.mark.parametrize(
    ("makes", "body", "ids"),
    [
        (Makes.OBJECT, {"id": "file-1", "output": [{"id": "no"}]}, ["file-1"]),
        (Makes.UPLOADED, {"id": "no", "file": {"id": "file-1"}}, ["file-1"]),
        (Makes.UPLOADED, {"id": "no", "file": None}, []),
        (Makes.BATCH, {"id": "batch_1", "input_file_id": "no", "output_file_id": None}, ["batch_1"]),
        (Makes.BATCH, {"id": "b", "output_file_id": "o", "error_file_id": "e"}, ["b", "o", "e"]),
        (Makes.CHAT, {"id": "c", "choices": [{"message": {"audio": {"id": "a"}}}, {"message": {}}]}, ["c", "a"]),
        (Makes.RESPONSE, RESPONSE, ALL),
    ],
)
def test_the_ids_of_what_a_reply_made_are_found_and_no_others(makes: Makes, body: Any, ids: list[str]) -> None:
    assert in_reply(makes, body) == ids


def test_of_what_upstream_does_not_keep_only_what_cannot_be_sent_back_whole_is_noted() -> None:
    assert in_reply(Makes.RESPONSE, RESPONSE, is_stored=False) == UNSTORED
    spoken = {"id": "c", "choices": [{"message": {"audio": {"id": "a"}}}]}
    assert in_reply(Makes.CHAT, spoken, is_stored=False) == ["a"]


@pytest.mark.parametrize(
    "body",
    [b"", b"{", b"[]", b'"id"', b"{}", {"id": 1}, {"id": {"a": 1}}, {"output": {}}, {"output": [1, "a"]}, b"[" * 9_999],
)
@pytest.mark.parametrize("makes", [makes for makes in Makes if makes is not Makes.NOTHING])
def test_what_is_not_as_expected_names_nothing(makes: Makes, body: Any) -> None:
    assert in_reply(makes, body) == []


def event(kind: str, **members: Any) -> bytes:
    return f"event: {kind}\ndata: {json.dumps({'type': kind, **members})}\n\n".encode()


CREATED = event("response.created", response={"id": "resp_1", "output": []})
ITEMS = [event("response.output_item.added", output_index=at, item=item) for at, item in enumerate(OUTPUT)]
DELTA = event("response.output_text.delta", item_id="no", delta='{"item":{"id":"no"},"response":{"id":"no"}}')


@pytest.mark.parametrize("size", [1, 3, 100])
def test_a_stream_of_a_response_tells_its_ids_as_it_goes(size: int) -> None:
    events = [CREATED, DELTA, *ITEMS, DELTA, event("response.completed", response=RESPONSE)]
    blocks = [b"".join(events[at : at + size]) for at in range(0, len(events), size)]
    found = in_stream(Makes.RESPONSE, *blocks)
    assert list(dict.fromkeys(found)) == ALL
    assert list(dict.fromkeys(in_stream(Makes.RESPONSE, *blocks, is_stored=False))) == UNSTORED


def test_a_stream_that_is_resumed_at_its_end_tells_them_too() -> None:
    assert in_stream(Makes.RESPONSE, event("response.completed", response=RESPONSE)) == ALL


def test_a_stream_of_a_stored_completion_tells_its_id_once_and_each_spoken_answer() -> None:
    chunks = [{"id": "c", "choices": [{"delta": {"content": "hi"}}]}] * 3
    assert in_stream(Makes.CHAT, b": comment\n\n", *chunks) == ["c"]
    spoken = {"id": "c", "choices": [{"delta": {"audio": {"id": "a", "data": "AA=="}}}]}
    assert in_stream(Makes.CHAT, *chunks, spoken, b"data: [DONE]\n\n") == ["c", "c", "a"]
    assert in_stream(Makes.CHAT, *chunks, spoken, is_stored=False) == ["a"]
