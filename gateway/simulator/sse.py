"""Events of the two streaming APIs, spelled as the real ones do.

Knows the bytes of server-sent events; refuses to know what happens in what order.
"""

import hashlib

import msgspec

from gateway.simulator.call import Json

DONE = b"data: [DONE]\n\n"


def data_event(body: Json) -> bytes:
    """An event without a name: chat completions."""
    return b"data: " + msgspec.json.encode(body) + b"\n\n"


def named_event(body: Json) -> bytes:
    """An event that is named by its body's `type`: responses."""
    return b"event: " + str(body["type"]).encode() + b"\ndata: " + msgspec.json.encode(body) + b"\n\n"


def obfuscation(salt: str, number: int, text: str) -> str:
    """Padding that hides the length of `text` from who counts encrypted bytes."""
    wanted = 16 - len(text) % 16
    return hashlib.sha256(f"{salt} {number}".encode()).hexdigest()[:wanted]
