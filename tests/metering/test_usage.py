import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.call import Usage
from gateway.metering.usage import UsageScanner, usage_of_reply

CHAT = {
    "prompt_tokens": 19,
    "completion_tokens": 10,
    "total_tokens": 29,
    "prompt_tokens_details": {"cached_tokens": 5, "audio_tokens": 1, "cache_write_tokens": 2},
    "completion_tokens_details": {
        "reasoning_tokens": 3,
        "audio_tokens": 4,
        "accepted_prediction_tokens": 6,
        "rejected_prediction_tokens": 7,
    },
}
RESPONSES = {
    "input_tokens": 36,
    "input_tokens_details": {"cached_tokens": 8},
    "output_tokens": 87,
    "output_tokens_details": {"reasoning_tokens": 64},
    "total_tokens": 123,
}
TRANSCRIPTION = {
    "type": "tokens",
    "input_tokens": 14,
    "input_token_details": {"text_tokens": 0, "audio_tokens": 14},
    "output_tokens": 45,
    "total_tokens": 59,
}
IMAGES = {
    "input_tokens": 50,
    "input_tokens_details": {"text_tokens": 10, "image_tokens": 40},
    "output_tokens": 4160,
    "output_tokens_details": {"text_tokens": 0, "image_tokens": 4160},
    "total_tokens": 4210,
}
OF_OTHERS = {
    "prompt_tokens": 9,
    "completion_tokens": 7,
    "total_tokens": 16,
    "prompt_tokens_details": None,
    "prompt_cache_hit_tokens": 6,
    "reasoning_tokens": 5,
}
OF_NEW_API = {
    "prompt_tokens": 1000,
    "completion_tokens": 500,
    "total_tokens": 1500,
    "prompt_tokens_details": {"cached_tokens": 800},
    "completion_tokens_details": {"reasoning_tokens": 100},
    "input_tokens": 0,
    "output_tokens": 0,
    "input_tokens_details": None,
}
OF_TRANSCRIPTION = Usage(14, 45, 59, audio_input_tokens=14)
OF_CHAT = Usage(19, 10, 29, 5, 3, 1, 4, 6, 7, 2)
OF_RESPONSES = Usage(36, 87, 123, 8, 64)


def event(document: object, name: str = "") -> bytes:
    head = f"event: {name}\n" if name else ""
    return f"{head}data: {json.dumps(document, separators=(',', ':'))}\n\n".encode()


def scan(*blocks: bytes) -> Usage | None:
    scanner = UsageScanner()
    for block in blocks:
        scanner.feed(block)
    return scanner.usage


CHUNK = event({"choices": [{"delta": {"content": 'he said "usage":{"total_tokens":9}'}}], "usage": None})
LAST = event({"choices": [], "usage": CHAT})
DONE = b"data: [DONE]\n\n"


@pytest.mark.parametrize(
    "blocks", [[CHUNK, LAST, DONE], [CHUNK + LAST + DONE], [LAST, CHUNK, DONE], [LAST.replace(b"\n", b"\r\n")]]
)
def test_usage_of_a_chat_stream_is_that_of_its_last_chunk_that_has_one(blocks: list[bytes]) -> None:
    assert scan(*blocks) == OF_CHAT


@pytest.mark.parametrize(
    ("end", "usage", "expected"),
    [
        ("transcript.text.done", TRANSCRIPTION, OF_TRANSCRIPTION),
        ("speech.audio.done", {"input_tokens": 3, "output_tokens": 9, "total_tokens": 12}, Usage(3, 9, 12)),
        ("image_generation.completed", IMAGES, Usage(50, 4160, 4210, image_input_tokens=40, image_output_tokens=4160)),
        ("image_edit.completed", IMAGES, Usage(50, 4160, 4210, image_input_tokens=40, image_output_tokens=4160)),
    ],
)
def test_usage_of_a_stream_of_sound_or_images_is_that_of_its_last_event(
    end: str, usage: object, expected: Usage
) -> None:
    assert (
        scan(event({"type": "part", "b64_json": "AA=="}, "part"), event({"type": end, "usage": usage}, end)) == expected
    )


def test_a_later_usage_replaces_an_earlier_one() -> None:
    growing = [event({"choices": [{}], "usage": {"prompt_tokens": 1, "completion_tokens": n}}) for n in range(3)]
    assert scan(*growing) == Usage(1, 2, 3)


@pytest.mark.parametrize("end", ["response.completed", "response.incomplete", "response.failed"])
def test_usage_of_a_responses_stream_is_that_of_its_terminal_event(end: str) -> None:
    created = event({"type": "response.created", "response": {"usage": None}}, "response.created")
    delta = event({"type": "response.output_text.delta", "delta": '"usage":{"input_tokens":1}'})
    assert scan(created, delta, event({"type": end, "response": {"id": "r", "usage": RESPONSES}}, end)) == OF_RESPONSES


@pytest.mark.parametrize(
    "block",
    [
        CHUNK,
        DONE,
        b"",
        event({"choices": [{"usage": CHAT}]}),
        event({"response": {"usage": RESPONSES}, "type": "response.in_progress"}),
        event({"type": "response.output_text.done", "text": json.dumps({"usage": CHAT})}),
        event({"type": "response.completed", "response": {"output": [{"usage": RESPONSES}], "usage": None}}),
        event([{"usage": CHAT}]),
        b': {"usage":{"total_tokens":1}}\n\n',
        b'data: {"usage":{"total_tokens":1}\n\n',
        b'data: {"usage":{"total_tokens":1},"a":' + b"[" * 100_000,
    ],
)
def test_what_is_not_in_its_place_is_no_usage(block: bytes) -> None:
    assert scan(block) is None
    assert scan(LAST, block) == OF_CHAT


def test_usage_in_json_of_several_lines_is_found() -> None:
    assert scan(b'data: {"choices":[],\ndata: "usage":{"prompt_tokens":1}}\n\n') == Usage(1, 0, 1)


def test_usage_spelled_with_spaces_is_found() -> None:
    chunks = [{"choices": [{}], "usage": None}, {"choices": [], "usage": CHAT}]
    assert scan(*(f"data: {json.dumps(chunk, indent=None)}\n\n".encode() for chunk in chunks)) == OF_CHAT


@pytest.mark.parametrize(
    ("reply", "usage"),
    [
        ({"object": "chat.completion", "usage": CHAT}, OF_CHAT),
        ({"object": "response", "usage": RESPONSES}, OF_RESPONSES),
        ({"object": "list", "data": [], "usage": {"prompt_tokens": 8, "total_tokens": 8}}, Usage(8, 0, 8)),
        ({"text": "Hi", "usage": TRANSCRIPTION}, OF_TRANSCRIPTION),
        (
            {"created": 1, "data": [], "usage": IMAGES},
            Usage(50, 4160, 4210, image_input_tokens=40, image_output_tokens=4160),
        ),
        ({"usage": OF_OTHERS}, Usage(9, 7, 16, cached_tokens=6, reasoning_tokens=5)),
        ({"object": "list", "data": [{"usage": CHAT}]}, None),
        ({"error": {"message": "no"}}, None),
        ({"response": {"usage": RESPONSES}, "type": "response.completed"}, None),
        ([], None),
        (None, None),
    ],
)
def test_usage_of_a_plain_reply_is_its_top_level_member(reply: object, usage: Usage | None) -> None:
    assert usage_of_reply(json.dumps(reply, indent=2).encode()) == usage


@pytest.mark.parametrize(
    ("odd", "usage"),
    [
        ({"prompt_tokens": 1}, Usage(1, 0, 1)),
        ({"total_tokens": 5}, Usage(5, 0, 5)),
        ({"completion_tokens": 2, "total_tokens": 5}, Usage(3, 2, 5)),
        ({"prompt_tokens": 7, "total_tokens": 5}, Usage(7, 0, 7)),
        ({"prompt_tokens": 10, "total_tokens": 5, "completion_tokens": -1}, None),
        ({"prompt_tokens": 1.0, "completion_tokens": 2.5}, None),
        ({"prompt_tokens": 1.0, "completion_tokens": 2.5, "total_tokens": 4}, Usage(1, 3, 4)),
        ({"prompt_tokens": 1, "completion_tokens": 2, "total_tokens": -1}, Usage(1, 2, 3)),
        ({"prompt_tokens": -1, "completion_tokens": 2}, None),
        ({"prompt_tokens": 2**31, "completion_tokens": 2**31}, Usage(2**31, 2**31, 2**32)),
        ({"prompt_tokens": 2**31 + 1, "completion_tokens": 2}, None),
        ({"prompt_tokens": 8, "completion_tokens": 2**53, "total_tokens": 2**53}, None),
        ({"prompt_tokens": "1", "completion_tokens": True, "total_tokens": "3.0"}, Usage(1, 2, 3)),
        ({"prompt_tokens": 10**30, "completion_tokens": 1}, None),
        ({"prompt_tokens": None, "input_tokens": 4}, Usage(4, 0, 4)),
        ({"prompt_tokens": 4, "prompt_tokens_details": None, "completion_tokens_details": []}, Usage(4, 0, 4)),
        ({"prompt_tokens": 4, "prompt_tokens_details": {"cached_tokens": None}}, Usage(4, 0, 4)),
        ({"prompt_tokens": 4, "prompt_tokens_details": {"cached_tokens": 2, "x": "y"}}, Usage(4, 0, 4, 2)),
        ({"prompt_tokens": 4, "x": "y", "prompt_tokens_details": {"cached_tokens": -1}}, Usage(4, 0, 4)),
        ({"prompt_tokens": {"x": 1}, "prompt_tokens_details": 1, "total_tokens": 1}, None),
        ({"prompt_tokens": 4, "prompt_tokens_details": {"cached_tokens": 2**31 + 1}}, Usage(4, 0, 4)),
        ({"prompt_tokens": "1e3", "completion_tokens": "-1", "input_tokens": "9" * 30}, None),
        ({"prompt_tokens_details": {"cached_tokens": 2}}, None),
        ({}, None),
        ({"prompt_tokens": None, "seconds": 3}, Usage(0, 0, 0, audio_ms=3000)),
        ({"type": "duration", "seconds": "2.5"}, Usage(0, 0, 0, audio_ms=2500)),
        ({"seconds": -1}, None),
        ([1], None),
        ("1", None),
        (0, None),
        (None, None),
    ],
)
def test_odd_usage_counts_what_makes_sense_and_is_never_half(odd: object, usage: Usage | None) -> None:
    assert usage_of_reply(json.dumps({"usage": odd}).encode()) == usage
    assert scan(event({"usage": odd})) == usage


@pytest.mark.parametrize(
    ("told", "usage"),
    [
        ({"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 0}, Usage(10, 5, 15)),
        ({"input_tokens": 10, "output_tokens": 5, "total_tokens": 0}, Usage(10, 5, 15)),
        ({"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 14}, Usage(10, 5, 15)),
        ({"prompt_tokens": "10", "completion_tokens": 5, "total_tokens": "0"}, Usage(10, 5, 15)),
        ({"prompt_tokens": 10, "total_tokens": 0}, Usage(10, 0, 10)),
        ({"completion_tokens": 5, "total_tokens": 0}, Usage(0, 5, 5)),
        ({"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 40}, Usage(10, 5, 40)),
    ],
)
def test_a_total_is_believed_unless_it_is_smaller_than_the_sum_of_its_parts(told: object, usage: Usage) -> None:
    assert usage_of_reply(json.dumps({"usage": told}).encode()) == usage
    assert scan(event({"usage": told})) == usage
    assert scan(event({"type": "response.completed", "response": {"usage": told}})) == usage


@pytest.mark.parametrize(
    ("told", "usage"),
    [
        (
            # As xAI tells it.
            {
                "prompt_tokens": 32,
                "completion_tokens": 9,
                "total_tokens": 135,
                "completion_tokens_details": {"reasoning_tokens": 94},
            },
            Usage(32, 103, 135, reasoning_tokens=94),
        ),
        (
            {"prompt_tokens": 1, "completion_tokens": 0, "total_tokens": 5, "reasoning_tokens": 4},
            Usage(1, 4, 5, reasoning_tokens=4),
        ),
        (
            {"prompt_tokens": 1, "completion_tokens": 9, "total_tokens": 15, "reasoning_tokens": 4},
            Usage(1, 9, 15, reasoning_tokens=4),
        ),
    ],
)
def test_reasoning_that_only_the_total_holds_is_output(told: object, usage: Usage) -> None:
    assert usage_of_reply(json.dumps({"usage": told}).encode()) == usage


@pytest.mark.parametrize("number", [b"1e999", b"9" * 5000, b"-0", b"1E400"])
def test_numbers_of_any_size_are_no_error(number: bytes) -> None:
    usage_of_reply(b'{"usage":{"prompt_tokens":' + number + b"}}")


@pytest.mark.parametrize(
    ("twice", "usage"),
    [
        (OF_NEW_API, Usage(1000, 500, 1500, 800, 100)),
        ({**OF_NEW_API, "input_tokens_details": {"cached_tokens": 0}}, Usage(1000, 500, 1500, 800, 100)),
        ({**OF_NEW_API, "input_tokens": "0"}, Usage(1000, 500, 1500, 800, 100)),
        ({**RESPONSES, "prompt_tokens": 0, "completion_tokens": 0, "prompt_tokens_details": {}}, OF_RESPONSES),
        ({**TRANSCRIPTION, "prompt_tokens": 0, "prompt_tokens_details": {}}, OF_TRANSCRIPTION),
        ({**RESPONSES, "prompt_tokens": 36, "completion_tokens": 87}, OF_RESPONSES),
        ({"input_tokens": 0, "prompt_tokens": 9, "completion_tokens": 0, "output_tokens": 4}, Usage(9, 4, 13)),
        (
            {"input_tokens": 5, "input_tokens_details": None, "prompt_tokens_details": {"cached_tokens": 2}},
            Usage(5, 0, 5, 2),
        ),
        ({"input_tokens": 0, "prompt_tokens": 0, "output_tokens": 0, "completion_tokens": 0}, Usage(0, 0, 0)),
        ({"input_tokens": 0, "output_tokens": 0, "total_tokens": 0}, Usage(0, 0, 0)),
    ],
)
def test_of_a_count_in_both_spellings_the_one_that_is_not_0_counts_with_its_details(
    twice: object, usage: Usage
) -> None:
    assert usage_of_reply(json.dumps({"usage": twice}).encode()) == usage
    assert scan(event({"usage": twice})) == usage


def test_usage_of_a_reply_after_a_byte_order_mark_is_found() -> None:
    assert usage_of_reply(b"\xef\xbb\xbf" + json.dumps({"usage": CHAT}).encode()) == OF_CHAT


@pytest.mark.parametrize("beginning", [b"", b": hello\n\n", b"event: x\n", b"id: 1\n"])
def test_usage_of_an_event_stream_that_is_not_called_one_is_found(beginning: bytes) -> None:
    assert usage_of_reply(beginning + event({"choices": [], "usage": CHAT})) == OF_CHAT
    assert usage_of_reply(b"It said:\n" + beginning + event({"choices": [], "usage": CHAT})) is None


@given(st.binary(max_size=200))
def test_no_bytes_are_an_error(body: bytes) -> None:
    usage_of_reply(body)
    scan(body, b'data: {"usage":' + body + b"}\n\n")


json_values: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from([*CHAT, *RESPONSES]), inner),
    max_leaves=8,
)


@given(json_values)
def test_counts_are_never_negative(odd: object) -> None:
    usage = usage_of_reply(json.dumps({"usage": odd}).encode())
    assert usage is None or min(usage.input_tokens, usage.output_tokens, usage.total_tokens) >= 0
