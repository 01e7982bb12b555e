import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.relay.events import data_of, split_events
from gateway.relay.include_usage import UsageRemover

USAGE = {"prompt_tokens": 1, "completion_tokens": 2, "total_tokens": 3}
CHOICE = {"index": 0, "delta": {"content": 'say "usage": null, }\n\ndata: x'}, "finish_reason": None}

scalars = (
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=8)
)
usages = st.sampled_from([None, None, USAGE, {}])
values = st.recursive(
    scalars,
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["usage", "a", '"usage"']), inner, max_size=3)
    ),
    max_leaves=6,
)
chunks = st.lists(
    st.tuples(st.just("usage"), usages)
    | st.tuples(st.just("choices"), st.sampled_from([[], [CHOICE], [{"usage": None}]]))
    | st.tuples(st.sampled_from(["id", "obfuscation", "é", 'x"usage', "usage "]), values),
    max_size=5,
    unique_by=lambda member: member[0],
).map(dict)
styles = st.sampled_from([(",", ":"), (", ", ": "), (" ,", " :"), (",\t", ":\t")])
frames = st.sampled_from(
    [b"data: %b\n\n", b"data:%b\n\n", b"data: %b\r\n\r\n", b"event: x\ndata: %b\nid: 1\n\n", b": hi\rdata: %b\r\r"]
)


def remove(block: bytes) -> bytes:
    return UsageRemover().feed(block)


def event(text: str) -> bytes:
    return f"data: {text}\n\n".encode()


def expected(chunk: dict[str, Any]) -> dict[str, Any] | None:
    """What an upstream that was not asked for usage would have sent."""
    if chunk.get("choices") == [] and isinstance(chunk.get("usage"), dict):
        return None
    return {name: value for name, value in chunk.items() if name != "usage" or value is not None}


@pytest.mark.parametrize(
    ("sent", "seen"),
    [
        ('{"id":"1","choices":[{}],"usage":null}', '{"id":"1","choices":[{}]}'),
        ('{"id":"1","usage":null,"obfuscation":"a,b}"}', '{"id":"1","obfuscation":"a,b}"}'),
        ('{"usage":null,"id":"1"}', '{"id":"1"}'),
        ('{ "usage" : null , "id":"1" }', '{ "id":"1" }'),
        ('{"id": "1", "usage": null}', '{"id": "1"}'),
        ('{"id":"1" ,\t"usage":null }', '{"id":"1"  }'),
        ('{"usage":null}', "{}"),
        ('{"a":1,"usage":null,"b":{"c":[1]},"n":1e5}', '{"a":1,"b":{"c":[1]},"n":1e5}'),
        ('{"a":1,"usage":null,"text":"\\"}"}', '{"a":1,"text":"\\"}"}'),
        ('{"choices":[],"usage":null,"prompt_filter_results":[]}', '{"choices":[],"prompt_filter_results":[]}'),
    ],
)
def test_a_null_usage_goes_with_its_comma_and_nothing_else(sent: str, seen: str) -> None:
    assert remove(event(sent)) == event(seen)


@pytest.mark.parametrize(
    "data",
    [
        '{"choices":[{"usage":null}]}',
        '{"choices":[{"a":1,"usage":null}]}',
        '{"x":{"a":1,"usage":null}}',
        '{"x":"usage","y":null}',
        '{"choices":[{"delta":{"content":"\\"usage\\":null"}}]}',
        '{"choices":[{"delta":{}}],"usage":{"total_tokens":1}}',
        '{"usage":{"total_tokens":1}}',
        '{"choices":[],"usage":0}',
        '{"a\\",\\"usage":null}',
        '{"a":1,"usage":null',
        '{"usage":null,"usage":{}}',
        '{"choices":[],"choices":[{}],"usage":{}}',
        '["usage"]',
        '"usage"',
        "[DONE]",
        "[" * 100_000 + '"usage"',
    ],
)
def test_anything_else_stays_as_it_is(data: str) -> None:
    assert remove(event(data)) == event(data)


@pytest.mark.parametrize("block", [b"", b': {"a":1,"usage":null}\n\n', b'retry: {"a":1,"usage":null}\n\n', b'"usage"'])
def test_what_is_no_data_stays_as_it_is(block: bytes) -> None:
    assert remove(block) == block


def test_a_block_without_usage_is_given_back_uncopied() -> None:
    block = event('{"choices":[]}')
    assert remove(block) is block


@pytest.mark.parametrize("empty", ["[]", "[ ]"])
def test_the_usage_only_chunk_goes_as_a_whole_event(empty: str) -> None:
    last = b'event: x\ndata: {"choices":%b,\ndata: "usage":{"total_tokens":1}}\nid: 1\n\n' % empty.encode()
    rest = b": ping\n\ndata: [DONE]\n\n"
    assert remove(last) == b""
    assert remove(event("{}") + last + rest) == event("{}") + rest


def test_a_null_usage_in_json_of_several_lines_stays() -> None:
    block = b'data: {"a":1,\ndata: "usage":null}\n\n'
    assert remove(block) == block


def test_each_event_of_a_block_is_cleared() -> None:
    sent = [event(f'{{"id":{n},"usage":null}}') for n in range(3)]
    seen = [event(f'{{"id":{n}}}') for n in range(3)]
    assert remove(b": hi\r\n\r\n" + b"".join(sent)) == b": hi\r\n\r\n" + b"".join(seen)


@given(st.lists(st.tuples(chunks, styles, frames), min_size=1, max_size=4))
def test_every_chunk_reads_as_if_usage_had_not_been_asked_for(sent: list[tuple[dict[str, Any], Any, bytes]]) -> None:
    block = b"".join(frame % json.dumps(chunk, separators=style).encode() for chunk, style, frame in sent)
    seen = [json.loads(data_of(one) or b"") for one in split_events(remove(block))]
    assert seen == [want for chunk, _, _ in sent if (want := expected(chunk)) is not None]


@given(chunks, styles, frames)
def test_what_goes_is_one_run_of_bytes_that_begins_or_ends_with_the_member(
    chunk: dict[str, Any], style: Any, frame: bytes
) -> None:
    block = frame % json.dumps(chunk, separators=style).encode()
    seen = remove(block)
    gone = len(block) - len(seen)
    assert any(block[:at] + block[at + gone :] == seen for at in range(len(seen) + 1))
    if seen and gone:
        assert gone <= len(b' ,\t"usage" : null,')


@given(
    st.binary(max_size=60)
    | st.lists(st.sampled_from([b'"usage"', b":null", b",", b"{", b"}", b"\n", b"data:"]), max_size=20).map(b"".join)
)
def test_no_bytes_make_it_fail(block: bytes) -> None:
    assert len(remove(block)) <= len(block)
