"""How much of an answer a cut stream had delivered: exact for its first events, and near for long ones."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.call import Dialect
from gateway.metering.delivered import SAMPLE_BYTES, Sample


def chat(**delta: object) -> bytes:
    return event({"id": "chatcmpl-1", "object": "chat.completion.chunk", "choices": [{"index": 0, "delta": delta}]})


def event(document: object) -> bytes:
    return f"data: {json.dumps(document)}\n\n".encode()


def counted(*blocks: bytes, dialect: Dialect = Dialect.CHAT) -> int:
    """Of a stream whose blocks are these, as the relay asks."""
    sample = Sample(dialect)
    for block in blocks:
        if sample.is_open:
            sample.feed(block)
    return sample.tokens(sum(map(len, blocks)))


def said(text: str = "fourfour") -> bytes:
    return event({"type": "response.output_text.delta", "delta": text, "item_id": "msg_1", "output_index": 0})


def begun(echo: int) -> bytes:
    """What a responses stream begins with: all of the request, twice, of which instructions have `echo` bytes."""
    response = {"id": "resp_1", "instructions": "x" * echo, "text": {"format": {"type": "text"}}, "output": []}
    events = [event({"type": f"response.{name}", "response": response}) for name in ("created", "in_progress")]
    return b"".join(events)


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
    dialect = Dialect.RESPONSES if any(b'"type"' in block for block in blocks) else Dialect.CHAT
    assert counted(*blocks, dialect=dialect) == tokens


def test_a_token_an_event_is_counted_where_events_are_smaller_than_tokens() -> None:
    assert counted(*[chat(content="a")] * 20) == 20
    assert counted(*[chat(content="four and more")] * 4) == 13


def cut_into(size: int, events: list[bytes]) -> list[bytes]:
    """Blocks of so many events."""
    return [b"".join(events[at : at + size]) for at in range(0, len(events), size)]


@pytest.mark.parametrize("echo", [0, 2_000, 5_000, 20_000, 200_000])
@pytest.mark.parametrize("size", [1, 10, 100, 5_002])
def test_what_a_stream_of_responses_begins_with_is_no_part_of_the_answer(echo: int, size: int) -> None:
    events = [begun(echo), *[said()] * 5_000]
    assert counted(*cut_into(size, events), dialect=Dialect.RESPONSES) == pytest.approx(10_000, rel=0.01)
    assert counted(*cut_into(size, events[:31]), dialect=Dialect.RESPONSES) == 60


@pytest.mark.parametrize("echo", [0, 2_000, 9_000, 20_000, 200_000])
@pytest.mark.parametrize("size", [1, 10, 5_001])
@pytest.mark.parametrize("ends", [b"\n\n", b"\r\n\r\n"])
def test_a_large_first_event_of_a_chat_is_not_taken_for_one_like_the_others(echo: int, size: int, ends: bytes) -> None:
    first = {"choices": [{"delta": {"role": "assistant"}}], "prompt_filter_results": "x" * echo}
    events = [each.replace(b"\n\n", ends) for each in (event(first), *[chat(content="fourfour")] * 5_000)]
    assert counted(*cut_into(size, events)) == pytest.approx(10_000, rel=0.02)


def test_large_events_with_text_are_counted_by_what_they_say() -> None:
    call = chat(tool_calls=[{"index": 0, "function": {"arguments": "four" * 1_500}}])
    assert counted(call) == counted(event({"type": "ping", "pad": "x" * 9_000}), call) == 1_500
    assert counted(*[call] * 100) == pytest.approx(150_000, rel=0.01)


@pytest.mark.parametrize("size", [50_000, 60_000, 100_000, 1_000_000])
@pytest.mark.parametrize("ends", [b"\n\n", b"\r\n\r\n", b"\r\r"])
def test_text_in_events_too_large_to_be_held_is_counted(size: int, ends: bytes) -> None:
    argument = {"type": "response.function_call_arguments.delta", "delta": "x" * size}
    for large, dialect in ((chat(content="x" * size), Dialect.CHAT), (event(argument), Dialect.RESPONSES)):
        part = large.replace(b"\n\n", ends)
        assert counted(part, dialect=dialect) == size / 4
        assert counted(*[part] * 20, dialect=dialect) == pytest.approx(20 * size / 4, rel=0.01)
        assert counted(part * 20, dialect=dialect) == pytest.approx(20 * size / 4, rel=0.01)


@pytest.mark.parametrize("later", [10, 5_000])
@pytest.mark.parametrize("size", [1, 10])
def test_events_after_one_too_large_to_be_held_are_not_taken_to_be_like_it(later: int, size: int) -> None:
    events = [chat(content="x" * 60_000), *[chat(content="fourfour")] * later]
    assert counted(*cut_into(size, events)) == pytest.approx(15_000 + 2 * later, rel=0.02)


def test_what_is_held_of_a_stream_is_bounded() -> None:
    for text in ("four", "four" * 1_000, "four" * 10_000, "four" * 100_000):
        sample = Sample(Dialect.CHAT)
        fed = 0
        while sample.is_open:
            sample.feed(chat(content=text) * 3)
            fed += 1
        assert sample.held_bytes <= 64 * 1024
        assert fed < 200


def test_streams_without_text_are_not_looked_at() -> None:
    assert not Sample(Dialect.OTHER).is_open


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
    for dialect in Dialect:
        sample = Sample(dialect)
        for block in [*blocks, b'"delta"' * SAMPLE_BYTES]:
            sample.feed(block)
        assert sample.tokens(sent_bytes) >= 0
