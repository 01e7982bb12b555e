"""How much of an answer a cut stream had delivered: exact for its first events, and near for long ones."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.metering.delivered import SAMPLE_BYTES, delivered_tokens


def chat(**delta: object) -> bytes:
    return event({"id": "chatcmpl-1", "object": "chat.completion.chunk", "choices": [{"index": 0, "delta": delta}]})


def event(document: object) -> bytes:
    return f"data: {json.dumps(document)}\n\n".encode()


def counted(*blocks: bytes) -> int:
    return delivered_tokens(blocks, sum(map(len, blocks)))


@pytest.mark.parametrize(
    ("blocks", "tokens"),
    [
        ([], 0),
        ([b": hi\n\n"], 0),
        ([chat(role="assistant", content="")], 0),
        ([chat(content="Hi")], 1),
        ([chat(content="A"), chat(content="B"), chat(content="C")], 3),
        ([chat(content="A") + chat(content="B"), chat(content="C")], 3),
        ([chat(content="four" * 10)], 10),
        ([chat(content="東京都")], 3),
        ([chat(reasoning_content="four" * 2), chat(reasoning="four" * 2), chat(refusal="four")], 5),
        ([chat(tool_calls=[{"index": 0, "id": "call_1234567890", "function": {"name": "f", "arguments": "{}"}}])], 1),
        ([chat(audio={"id": "audio_1", "data": "A" * 4000, "transcript": "fourfour"})], 2),
        ([event({"object": "text_completion", "choices": [{"text": "fourfour", "index": 0}]})], 2),
        ([event({"type": "response.created", "response": {"instructions": "x" * 400}})], 0),
        ([event({"type": "response.output_text.delta", "delta": "fourfour", "obfuscation": "x" * 99})], 2),
        ([event({"type": "response.function_call_arguments.delta", "delta": "fourfour"})], 2),
        ([event({"type": "response.output_text.done", "text": "fourfour"})], 0),
        ([event({"type": "response.audio.delta", "delta": "A" * 4000})], 0),
        ([b"data: [DONE]\n\n", b'data: {"choices": 1}\n\n', b"data: [1]\n\n", b"data: {\n\n"], 0),
        ([b'data: {"choices":\ndata: [{"delta":{"content":"Hi"}}]}\n\n'], 1),
    ],
)
def test_only_what_the_model_has_said_is_counted(blocks: list[bytes], tokens: int) -> None:
    assert counted(*blocks) == tokens


def test_a_token_an_event_is_counted_where_events_are_smaller_than_tokens() -> None:
    assert counted(*[chat(content="a")] * 20) == 20
    assert counted(*[chat(content="four and more")] * 4) == 13


@pytest.mark.parametrize("head", [b"", event({"type": "response.created", "response": {"x": "y" * 5000}})])
def test_the_rest_of_a_long_stream_is_like_the_last_events_that_were_kept(head: bytes) -> None:
    events = [head, *[event({"type": "response.output_text.delta", "delta": "fourfour"})] * 5000]
    kept: list[bytes] = []
    for each in events:
        if sum(map(len, kept)) < SAMPLE_BYTES:
            kept.append(each)
    assert len(kept) < 200
    assert delivered_tokens(kept, sum(map(len, events))) == pytest.approx(10_000, rel=0.01)


documents: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["choices", "delta", "text", "type", "content", "tool_calls"]), inner)
    ),
    max_leaves=10,
)


@given(st.lists(documents.map(event) | st.binary(max_size=50), max_size=5), st.integers(0, 10**9))
def test_no_stream_is_an_error(blocks: list[bytes], sent_bytes: int) -> None:
    assert delivered_tokens(blocks, sent_bytes) >= 0


def test_nothing_but_what_was_taken_out_is_no_error() -> None:
    assert delivered_tokens([b"x" * SAMPLE_BYTES, b"", b""], 10**6) == 0
