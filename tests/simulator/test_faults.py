"""Faults on demand, seen from the wire."""

import base64
import gzip
import zlib
from pathlib import Path

import openai
import pytest
import requests
from openai import OpenAI

from gateway.simulator import faults
from tests.simulator.conftest import MODEL
from tests.simulator.wire import Heard, ask
from tests.support.patience import Stopwatch

CHAT = "chat/completions"
STREAM = {"model": MODEL, "messages": [{"role": "user", "content": "Hello!"}], "stream": True}
PLAIN = {**STREAM, "stream": False}
RESPONSE = {"model": MODEL, "input": "Hello!", "stream": True, "store": False}


def untouched(url: str, path: str, body: object) -> bytes:
    return ask(url, path, body, "").body


def events(heard: Heard) -> list[bytes]:
    return heard.body.split(b"\n\n")[:-1]


@pytest.mark.parametrize("body", [STREAM, PLAIN])
@pytest.mark.parametrize("at", [0, 1, 100, 333])
def test_a_cut_sends_exactly_so_many_bytes_and_then_fin(url: str, body: dict[str, object], at: int) -> None:
    heard = ask(url, CHAT, body, f"cut={at}")
    assert (heard.body, heard.is_whole, heard.ending) == (untouched(url, CHAT, body)[:at], False, "fin")


@pytest.mark.parametrize("body", [STREAM, PLAIN])
@pytest.mark.parametrize("at", [0, 1, 100, 333])
def test_a_reset_sends_exactly_so_many_bytes_and_then_rst(url: str, body: dict[str, object], at: int) -> None:
    heard = ask(url, CHAT, body, f"reset={at}")
    assert (heard.body, heard.is_whole, heard.ending) == (untouched(url, CHAT, body)[:at], False, "reset")


def test_a_cut_after_the_last_byte_still_lacks_the_end_of_the_body(url: str) -> None:
    whole = untouched(url, CHAT, STREAM)
    heard = ask(url, CHAT, STREAM, f"cut={len(whole)}")
    assert (heard.body, heard.is_whole) == (whole, False)


@pytest.mark.parametrize(
    ("simulate", "has_head", "size"),
    [("stall=headers", False, 0), ("stall=first-byte", True, 0), ("stall=300", True, 300)],
)
def test_a_stall_sends_nothing_more_and_keeps_the_connection(
    url: str, simulate: str, *, has_head: bool, size: int
) -> None:
    heard = ask(url, CHAT, STREAM, simulate, silence_s=0.2)
    assert (bool(heard.head), len(heard.body), heard.ending) == (has_head, size, "silence")


@pytest.mark.parametrize("path_and_body", [(CHAT, STREAM), ("responses", RESPONSE)])
def test_chunks_make_a_text_of_so_many_pieces(url: str, path_and_body: tuple[str, object]) -> None:
    heard = ask(url, *path_and_body, "chunks=50; chunk-bytes=20")
    deltas = [event for event in events(heard) if b'"delta":{"content":"' in event or b'.delta"' in event]
    extra = 1 if path_and_body[0] == CHAT else 0  # the role comes with an empty content
    assert len([d for d in deltas if b'"role"' not in d]) == 50
    assert len(deltas) - 50 in (0, extra)


def test_long_texts_have_usage_that_adds_up(client: OpenAI) -> None:
    headers = {"x-simulate": "chunks=500; chunk-bytes=64"}
    made = client.chat.completions.create(
        model=MODEL, messages=[{"role": "user", "content": "Hi"}], extra_headers=headers
    )
    text = made.choices[0].message.content or ""
    assert made.usage is not None
    assert made.usage.completion_tokens == -(-len(text) // 4)


def test_a_delay_comes_before_the_reply_and_chunk_delays_between_pieces(url: str) -> None:
    watch = Stopwatch()
    ask(url, CHAT, STREAM, "chunks=4; delay=0.1; chunk-delay=0.02")
    assert watch.took().is_between(0.1 + 6 * 0.02, 2)


@pytest.mark.parametrize("body", [STREAM, PLAIN])
def test_a_drip_changes_no_byte(url: str, body: dict[str, object]) -> None:
    heard = ask(url, CHAT, body, "drip=7")
    assert heard.body == untouched(url, CHAT, body)
    assert heard.is_whole
    assert all(len(chunk) <= 7 for chunk in heard.chunks) or body is PLAIN


def test_a_status_comes_with_its_error_and_retry_after(client: OpenAI) -> None:
    headers = {"x-simulate": "status=429; retry-after=7; retry-after-ms=250"}
    with pytest.raises(openai.RateLimitError) as refused:
        client.responses.create(model=MODEL, input="Hi", extra_headers=headers)
    assert refused.value.response.headers["retry-after"] == "7"
    assert refused.value.response.headers["retry-after-ms"] == "250"
    assert refused.value.code == "rate_limit_exceeded"


def test_the_key_is_echoed_everywhere_when_asked_for(url: str) -> None:
    headers = {"authorization": "Bearer sk-canary-1", "x-simulate": "echo-key"}
    reply = requests.get(f"{url}/models", headers=headers, timeout=10)
    encoded = base64.b64encode(b"sk-canary-1").decode()
    assert reply.status_code == 401
    assert reply.headers["x-echo-authorization"] == "Bearer sk-canary-1"
    assert reply.headers["x-echo-base64"] == encoded
    assert "sk-canary-1" in reply.text
    assert encoded in reply.text


def test_odd_line_ends_are_crlf(url: str) -> None:
    assert ask(url, CHAT, STREAM, "odd=crlf").body == untouched(url, CHAT, STREAM).replace(b"\n", b"\r\n")


def test_odd_comments_stand_between_events(url: str) -> None:
    heard = ask(url, "responses", RESPONSE, "odd=comments")
    kept = b"".join(event + b"\n\n" for event in events(heard) if not event.startswith(b":"))
    assert kept == untouched(url, "responses", RESPONSE)
    assert heard.body.startswith(b": simulated comment 0\n\n")


@pytest.mark.parametrize(("word", "size"), [("unknown-events", 50), ("big-event", 1024 * 1024)])
@pytest.mark.parametrize("path_and_body", [(CHAT, STREAM), ("responses", RESPONSE)])
def test_odd_events_are_added_after_the_second(
    url: str, word: str, size: int, path_and_body: tuple[str, object]
) -> None:
    plain = untouched(url, *path_and_body).split(b"\n\n")[:-1]
    odd = events(ask(url, *path_and_body, f"odd={word}"))
    assert [*odd[:2], *odd[3:]] == plain
    assert size <= len(odd[2]) <= size + 200


@pytest.mark.parametrize("path_and_body", [(CHAT, STREAM), ("responses", RESPONSE)])
def test_an_odd_end_lacks_the_last_event_alone(url: str, path_and_body: tuple[str, object]) -> None:
    heard = ask(url, *path_and_body, "odd=no-done")
    assert heard.is_whole
    assert events(heard) == untouched(url, *path_and_body).split(b"\n\n")[:-2]


def test_writes_end_within_characters(url: str) -> None:
    heard = ask(url, CHAT, STREAM, "odd=split-utf8")
    assert "🦄" in heard.body.decode()
    with pytest.raises(UnicodeDecodeError):
        [chunk.decode() for chunk in heard.chunks]


def test_gzip_is_the_same_text_compressed(url: str) -> None:
    stream = ask(url, CHAT, STREAM, "odd=gzip")
    assert b"content-encoding: gzip" in stream.head
    assert zlib.decompress(stream.body, wbits=31) == untouched(url, CHAT, STREAM)
    plain = ask(url, CHAT, PLAIN, "odd=gzip")
    assert plain.is_whole
    assert gzip.decompress(plain.body) == untouched(url, CHAT, PLAIN)


def test_oddities_can_be_combined(url: str) -> None:
    heard = ask(url, CHAT, STREAM, "odd=crlf|comments; odd=no-done")
    assert b": simulated comment 0\r\n\r\n" in heard.body
    assert b"[DONE]" not in heard.body


def test_an_in_band_error_ends_the_stream(client: OpenAI) -> None:
    headers = {"x-simulate": "fail=3"}
    stream = client.chat.completions.create(
        model=MODEL, messages=[{"role": "user", "content": "Hi"}], stream=True, extra_headers=headers
    )
    chunks: list[object] = []
    with pytest.raises(openai.APIError):
        chunks.extend(iter(stream))
    assert len(chunks) <= 3
    events = list(client.responses.create(model=MODEL, input="Hi", stream=True, extra_headers=headers))
    assert [event.type for event in events][3:] == ["error"]


@pytest.mark.parametrize(
    "simulate", ["warp=9", "delay=soon", "delay=nan", "cut=-1", "stall=often", "odd=very", "fresh=1", "cut=1;cut=2"]
)
def test_an_unknown_fault_is_refused(url: str, simulate: str) -> None:
    reply = requests.get(f"{url}/models", headers={"x-simulate": simulate}, timeout=10)
    assert reply.status_code == 400
    assert reply.json()["error"]["param"] == "x-simulate"


def test_the_refusal_lists_all_faults() -> None:
    with pytest.raises(faults.UnknownFault) as refused:
        faults.parse("warp=9")
    assert all(word in str(refused.value) for word in faults._LANGUAGE)


def test_every_word_of_the_language_is_documented() -> None:
    page = (Path(__file__).parents[2] / "docs" / "simulator.md").read_text()
    words = [*faults._LANGUAGE, *(f"odd={word}" for word in faults.ODDITIES)]
    assert [word for word in words if f"`{word}" not in page] == []
    assert [word for word in words if f"  {word}" not in str(faults.__doc__)] == []
