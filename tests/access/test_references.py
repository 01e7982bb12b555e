"""Which ids a body names."""

import base64
import contextlib
import itertools
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.access.references import MAX_REFERENCES, find
from gateway.errors import BadRequest


def ids(body: Any, *, items: bool = True) -> list[str]:
    data = body if isinstance(body, bytes) else json.dumps(body, ensure_ascii=False).encode()
    return [reference.id for reference in find(data, items=items)]


@pytest.mark.parametrize(
    "body",
    [
        {"input_file_id": "x", "endpoint": "/v1/responses"},
        {"file_id": "x"},
        {"file_ids": ["x"]},
        {"files": [{"file_id": "x", "attributes": {}}]},
        {"messages": [{"role": "user", "content": [{"type": "file", "file": {"file_id": "x"}}]}]},
        {"messages": [{"role": "assistant", "audio": {"id": "x"}}]},
        {"input": [{"role": "user", "content": [{"type": "input_file", "file_id": "x"}]}]},
        {"input": [{"role": "user", "content": [{"type": "input_image", "file_id": "x", "detail": "low"}]}]},
        {"input": [{"type": "function_call_output", "output": [{"type": "input_file", "file_id": "x"}]}]},
        {"input": [{"type": "computer_call_output", "output": {"file_id": "x"}}]},
        {"prompt": {"id": "pmpt_1", "variables": {"a": {"type": "input_file", "file_id": "x"}}}},
        {"tools": [{"type": "file_search", "vector_store_ids": ["x"]}]},
        {"tools": [{"type": "code_interpreter", "container": "x"}]},
        {"tools": [{"type": "code_interpreter", "container": {"type": "auto", "file_ids": ["x"]}}]},
        {"tools": [{"type": "shell", "environment": {"type": "container_reference", "container_id": "x"}}]},
        {"tools": [{"type": "image_generation", "input_image_mask": {"file_id": "x"}}]},
        {"prompt_cache_options": {"comparison_response_id": "x"}},
        {"vector_store_id": "x"},
        {"input": [{"type": "mcp_approval_response", "approval_request_id": "x", "approve": True}]},
        {"input": [{"type": "item_reference", "id": "x"}]},
        {"input": [{"id": "x"}]},
        {"input": [{"type": None, "id": "x"}]},
        {"input": [{"type": "image_generation_call", "id": "x", "result": None}]},
        {"input": [{"type": "reasoning", "id": "x", "summary": []}]},
        {"input": [{"type": "reasoning", "id": "x", "encrypted_content": ""}]},
        {"input": [{"type": "file_search_call", "id": "x", "queries": ["q"], "status": "completed"}]},
        {"input": [{"type": "message", "id": "x", "role": "user", "content": None}]},
        {"input": [{"type": "message", "id": "x", "content": "hi"}]},
        {"input": [{"type": "item_reference", "id": "x", "role": "user", "content": "hi"}]},
        {"input": [{"type": "of_next_year", "id": "x", "content": "hi"}]},
        {"input": [{"type": "item_reference", "id": "x", "encrypted_content": "gAAA"}]},
        {"input": [{"id": "x", "encrypted_content": "gAAA"}]},
        {"input": [{"type": None, "id": "x", "encrypted_content": "gAAA"}]},
        {"input": [{"type": "image_generation_call", "id": "x", "encrypted_content": "gAAA"}]},
        {"input": [{"type": "web_search_call", "id": "x", "status": "completed", "encrypted_content": " "}]},
        {"items": [{"type": "item_reference", "id": "x"}]},
    ],
)
def test_an_id_is_found_wherever_the_api_takes_one(body: dict[str, Any]) -> None:
    assert ids(body) == ["x"]


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"input": "say \"file_id\": \"x\" and {'id': 'x'}"},
        {"input": [{"type": "message", "id": "x", "role": "assistant", "content": [{"type": "output_text"}]}]},
        {"input": [{"id": "x", "role": "user", "content": "hi"}]},
        {"input": [{"type": "function_call", "id": "x", "call_id": "y", "name": "f", "arguments": '{"file_id":"x"}'}]},
        {"input": [{"type": "function_call_output", "id": "x", "call_id": "y", "output": ""}]},
        {"input": [{"type": "reasoning", "id": "x", "encrypted_content": "gAAA", "summary": []}]},
        {"input": [{"type": "compaction", "id": "x", "encrypted_content": "gAAA"}]},
        {"input": [{"type": "compaction_summary", "id": "x", "encrypted_content": "gAAA"}]},
        {"input": [{"type": "item_reference", "id": None}]},
        {"input": ["id", 1, None, ["id"]]},
        {"file_id": None, "file_ids": None, "vector_store_ids": []},
        {"tools": [{"type": "function", "parameters": {"properties": {"file_id": {"type": "string"}}}}]},
        {"tools": [{"type": "code_interpreter", "container": {"type": "auto"}}]},
        {"audio": {"voice": "alloy", "format": "wav"}, "modalities": ["text", "audio"]},
        {"messages": [{"role": "assistant", "tool_calls": [{"id": "call_1", "type": "function"}], "audio": None}]},
        {"container_name": "x", "file_idx": "x", "profile_id": "x", "my_file_id": "x"},
    ],
)
def test_what_brings_its_content_along_or_is_no_id_names_nothing(body: dict[str, Any]) -> None:
    assert ids(body) == []


@pytest.mark.parametrize(
    "key",
    [
        "FILE_ID",
        "File_Id",
        r"\u0066ile_id",
        r"file\u005fid",
        r"file_i\u0064",
        r"FILE_I\u0044",
        r"f\u0131le_id",
        "f\u0131le_id",
        "f\u0130le_id",
        r"file_id\u017f",
        "file_id\u017f",
        "file_ids",
    ],
)
def test_a_key_that_a_generous_reader_takes_for_one_counts_as_one(key: str) -> None:
    assert ids(f'{{"a":[{{"{key}" :\n"x"}}]}}'.encode()) == ["x"]


@pytest.mark.parametrize("key", ["id", "ID", r"\u0069d", r"i\u0044"])
def test_an_earlier_spoken_answer_is_found_under_every_spelling(key: str) -> None:
    assert ids(f'{{"messages":[{{"\\u0061udio":{{"{key}":"x"}}}}]}}'.encode()) == ["x"]


def test_of_duplicate_keys_none_is_missed() -> None:
    assert ids(b'{"file_id":"a","file_id":"b","file_ids":["c","d"],"file_ids":"e"}') == ["a", "b", "c", "d", "e"]
    assert ids(b'{"input":[{"id":"a"}],"input":[{"id":"b"}],"INPUT":[{"id":"c"}]}') == ["a", "b", "c"]
    assert ids(b'{"messages":[{"audio":{"id":"a","id":"b"},"audio":{"id":"c"}}]}') == ["a", "b", "c"]


@pytest.mark.parametrize(
    "item",
    [
        '{"id":"a","id":"b"}',
        '{"id":"a","ID":"b"}',
        '{"type":"message","type":"item_reference","id":"a","role":"user","content":"hi"}',
        '{"Type":"item_reference","id":"a","role":"user","content":"hi"}',
        '{"id":"a","role":"user","content":"hi","content":null}',
        '{"type":"reasoning","id":"a","encrypted_content":"x","Encrypted_Content":null}',
    ],
)
def test_an_item_that_could_be_read_in_two_ways_is_refused(item: str) -> None:
    with pytest.raises(BadRequest, match="twice"):
        ids(f'{{"input":[{item}]}}'.encode())


@pytest.mark.parametrize("value", ['["a", 1]', '["a", {"id": "b"}]', '[["a"]]', '[null, "a"]'])
def test_a_list_of_ids_that_holds_something_else_is_refused(value: str) -> None:
    with pytest.raises(BadRequest, match="file_ids must be"):
        ids(f'{{"file_ids": {value}}}'.encode())


def test_ids_are_decoded_as_upstream_will_read_them() -> None:
    assert ids(rb'{"file_id":"file\u002d\"\\x","file_ids":["\u0061"]}') == ['file-"\\x', "a"]


def test_a_body_that_names_too_much_is_refused() -> None:
    assert len(ids({"file_ids": ["x"] * MAX_REFERENCES})) == MAX_REFERENCES
    with pytest.raises(BadRequest, match="Name fewer"):
        ids({"file_ids": ["x"] * (MAX_REFERENCES + 1)})


def test_items_are_looked_for_only_where_a_route_takes_them() -> None:
    body = {"input": [{"id": "a"}], "file_id": "b"}
    assert ids(body, items=False) == ["b"]
    assert ids(body, items=True) == ["b", "a"]


@pytest.mark.parametrize(
    "body", [b'{"file_id":' * 100_000, b'{"input":[{"id":"' + b"[" * 100_000, b'{"input":[{"id":"\\q"}]}']
)
def test_what_is_no_json_is_at_worst_refused(body: bytes) -> None:
    with contextlib.suppress(BadRequest):
        find(body, items=True)


TEXTS = st.text() | st.sampled_from(['"file_id":"x"', '\\"file_id\\":"x"', "{\"id\":'x'}", "\\", '"', "file_id"])
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | TEXTS,
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(TEXTS.filter(lambda key: "i" not in key.lower()), inner)
    ),
    max_leaves=20,
)


@given(VALUES, TEXTS, st.booleans(), st.sampled_from([(",", ":"), (", ", ": "), ("\n,\t", " :\r")]))
def test_exactly_the_ids_are_found_whatever_surrounds_them(
    other: Any, wanted: str, ascii_only: bool, separators: tuple[str, str]
) -> None:
    body = {"a": other, "b": [{"file_id": wanted, "c": other}], "d": "file_id", "input": [other, {"id": wanted}]}
    data = json.dumps(body, ensure_ascii=ascii_only, separators=separators).encode()
    assert ids(data) == [wanted, wanted]


def test_large_bodies_are_passed_over_at_once() -> None:
    image = base64.b64encode(bytes(range(256)) * 4_000).decode()
    body = {"messages": [{"content": [{"image_url": {"url": image}}, {"file": {"file_id": "x"}}]}]}
    assert ids(body, items=False) == ["x"]


@pytest.mark.parametrize("key", ["file_id", "container_\\u0069d", "vector_store_id", "i\\u0064"])
@pytest.mark.parametrize("far", [65_536, 131_072])
def test_a_large_body_hides_no_id_wherever_it_stands(key: str, far: int) -> None:
    start = b'{"input":[{"a":"'
    for before in range(far - 80, far + 20):
        end = f'","{key}":"x"}}]}}'.encode()
        assert find(start + b"-" * (before - len(start)) + end + b" " * 70_000, items=True), before


def test_every_prefix_of_a_name_is_told_from_the_name() -> None:
    name = "vector_store_ids"
    for cut in itertools.chain(range(1, 12), [len(name) - 3]):
        assert ids({name[:cut]: "x"}) == []
