"""A corpus of event streams, legal, odd and broken, that must come out as they went in.

Bytes alone; knows nothing of who sends or reads them. None holds anything after its `[DONE]`, since the gateway ends
a chat reply there.
"""

import random

MIB = 1024 * 1024
BOM = b"\xef\xbb\xbf"


def _chat(*contents: bytes) -> bytes:
    chunks = [b'data: {"choices":[{"index":0,"delta":{"content":"%s"}}]}\n\n' % content for content in contents]
    return b"".join(chunks)


def _event(name: bytes, body: bytes) -> bytes:
    return b"event: %s\ndata: %s\n\n" % (name, body)


DONE = b"data: [DONE]\n\n"
CHAT = _chat(b"Hel", b"lo") + DONE
CHAT_WITH_USAGE = (
    b'data: {"choices":[{"delta":{"content":"Hi"}}],"usage":null}\n\n'
    b'data: {"choices":[],"usage":{"prompt_tokens":1,"completion_tokens":2,"total_tokens":3}}\n\n' + DONE
)
RESPONSES = (
    _event(b"response.created", b'{"type":"response.created","sequence_number":0,"response":{"id":"resp_1"}}')
    + _event(b"response.output_text.delta", b'{"type":"response.output_text.delta","sequence_number":1,"delta":"a"}')
    + _event(
        b"response.completed",
        b'{"type":"response.completed","sequence_number":2,"response":{"id":"resp_1",'
        b'"usage":{"input_tokens":1,"output_tokens":2,"total_tokens":3}}}',
    )
)
UNICODE = _chat("naïve 東京 🦄 \u2028\u2029\x85\ufeff".encode(), rb"\u00e9\ud83e\udd84\ud800 \u0000 \/") + DONE

SHORT: dict[str, bytes] = {
    "chat": CHAT,
    "chat with usage": CHAT_WITH_USAGE,
    "responses": RESPONSES,
    "CRLF": CHAT.replace(b"\n", b"\r\n"),
    "CR": CHAT.replace(b"\n", b"\r"),
    "responses in CRLF": RESPONSES.replace(b"\n", b"\r\n"),
    "mixed line ends": _chat(b"a") + _chat(b"b").replace(b"\n", b"\r\n") + _chat(b"c").replace(b"\n", b"\r") + DONE,
    "LF after CR": b"data: 1\r\n\ndata: 2\n\r\ndata: 3\r\r\ndata: 4\n\r" + DONE,
    "unicode": UNICODE,
    "BOM": BOM + CHAT,
    "comments": b": first\n\n" + _chat(b"a") + b":\n\n: within\ndata: {}\n: an event\n\n" + DONE,
    "unknown events": b"event: surprise\ndata: {}\n\nid: 7\n\nretry: 10\n\nevent: ping\n\nx: y\n\nnonsense\n\n" + DONE,
    "odd fields": b'data:{"a":1}\ndata\ndata: \ndata:  {"b" : 1.0e2 }  \nDATA: x\n data: y\n\n' + DONE,
    "odd JSON": b'data: {"usage" : null, "b":1E400,"a":1.0,"a":-0,\t"choices":[ ]}\n\ndata: {broken\n\n' + DONE,
    "empty lines": b"\n\n\r\n\r\r\n\n" + CHAT.replace(b"\n\n", b"\n\n\n\n", 1),
    "an error in band": _chat(b"a") + b'data: {"error":{"message":"No.","type":"x","param":null,"code":null}}\n\n',
    "no [DONE]": _chat(b"a", b"b"),
    "no blank line at the end": CHAT[:-1],
    "no line end at the end": CHAT[:-2],
    "half an event at the end": _chat(b"a") + b'data: {"choices":[{"del',
    "nothing": b"",
    "one newline": b"\n",
    "one CR": b"\r",
    "no event at all": b'{"object":"chat.completion"}',
    "NUL and broken UTF-8": b"data: \x00\xff\xc3\x28\xed\xa0\x80\n\n" + _chat(b"\xe6\x9d") + DONE,
}

LOOKALIKES: dict[str, bytes] = {
    "a comment": _chat(b"a") + b": upstream sends data: [DONE]\n\n" + _chat(b"b") + DONE,
    "a text": b"data: data: [DONE]\n\n" + _chat(b"b") + DONE,
    "a text of two lines": b"data: a\ndata: [DONE]\n\n" + _chat(b"b") + DONE,
    "an unknown field": b"xdata: [DONE]\n\n" + _chat(b"b") + DONE,
    "a text in CRLF": b"data: [DONE] data: [DONE]\r\n\r\n" + _chat(b"b") + DONE,
}
"""Streams with an event whose last bytes are those of the end, and which is not the end."""

_noise = random.Random(2026)
_TOKENS = (b"\n", b"\r", b"\r\n", b"data:", b" ", b":", b'"usage"', b"null", b"{}", b'{"choices":[]', b"[DONE", b"\xff")


def _scrambled(count: int) -> bytes:
    return b"".join(_noise.choices(_TOKENS, k=count))


LONG: dict[str, bytes] = {
    "an event of 1 MiB": _chat(b"a") + _chat(b"x" * MIB) + DONE,
    "an event of 1 MiB in lines": b"data: y\n" * (MIB // 8) + b"\n" + DONE,
    "an event of 9 MiB, more than is held": _chat(b"a") + _chat(b"z" * (9 * MIB)) + DONE,
    "a response of 1 MiB": _event(b"response.completed", b'{"type":"response.completed","pad":"%s"}' % (b"w" * MIB)),
    "a MiB of comments": b": keep-alive\n\n" * (MIB // 14),
    "5000 events": _chat(*(b"%d" % number for number in range(5000))) + DONE,
    **{f"random bytes, {size}": _noise.randbytes(size) for size in (1, 2, 100, 4096, 70_000, MIB)},
    **{f"random tokens, {count}": _scrambled(count) for count in (10, 100, 1000, 30_000)},
}

CORPUS = SHORT | LONG
