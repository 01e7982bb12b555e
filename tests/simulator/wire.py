"""A client without any courtesy: it tells what bytes came, and how the connection ended."""

import json
import socket
from dataclasses import dataclass
from urllib.parse import urlsplit

TIMEOUT_S = 5.0


@dataclass(frozen=True)
class Heard:
    """A reply off the wire; `ending` is `fin`, `reset` or `silence`."""

    head: bytes
    chunks: tuple[bytes, ...]
    is_whole: bool
    ending: str

    @property
    def body(self) -> bytes:
        return b"".join(self.chunks)


def connect(url: str) -> socket.socket:
    address = urlsplit(url)
    return socket.create_connection((address.hostname or "", address.port or 0), timeout=TIMEOUT_S)


def request(path: str, body: object, simulate: str, *more: str) -> bytes:
    content = json.dumps(body).encode()
    lines = [f"POST /v1/{path} HTTP/1.1", "Host: x", f"Content-Length: {len(content)}", *more]
    return "\r\n".join([*lines, f"x-simulate: {simulate}", "", ""]).encode() + content


def hear(connection: socket.socket, silence_s: float = TIMEOUT_S) -> Heard:
    """Read until the connection ends or nothing came for a while."""
    connection.settimeout(silence_s)
    raw, ending = b"", "fin"
    try:
        while piece := connection.recv(65_536):
            raw += piece
    except ConnectionResetError:
        ending = "reset"
    except TimeoutError:
        ending = "silence"
    head, _, rest = raw.partition(b"\r\n\r\n")
    chunked = b"transfer-encoding: chunked" in head
    chunks, is_whole = _dechunk(rest) if chunked else ((rest,), _is_full(head, rest))
    return Heard(head, chunks, is_whole, ending)


def _dechunk(raw: bytes) -> tuple[tuple[bytes, ...], bool]:
    chunks: list[bytes] = []
    while raw:
        size, _, raw = raw.partition(b"\r\n")
        if int(size, 16) == 0:
            return tuple(chunks), True
        chunks.append(raw[: int(size, 16)])
        raw = raw[int(size, 16) + 2 :]
    return tuple(chunks), False


def _is_full(head: bytes, body: bytes) -> bool:
    return b"content-length: %d\r\n" % len(body) in head + b"\r\n"


def ask(url: str, path: str, body: object, simulate: str, silence_s: float = TIMEOUT_S) -> Heard:
    """One request on a connection of its own, which is asked to close after a whole reply."""
    with connect(url) as connection:
        connection.sendall(request(path, body, simulate, "Connection: close"))
        return hear(connection, silence_s)
