"""Read one request off ASGI: its head at a glance, its body under a cap."""

import asyncio
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, MutableMapping
from io import BytesIO
from typing import Any

from gateway.access.directory import digest_of
from gateway.errors import BadRequest, RequestTooLarge, UnsupportedMediaType
from gateway.relay.encoding import decode_body
from gateway.relay.tags import HEADER as TAGS
from gateway.relay.tags import NO_TAGS, read_tags

_DECODED_INLINE_BYTES = 4 * 1024
"""A larger compressed body is decoded in a thread: it may hold a thousand times as much, and others must not wait."""

_JSON = re.compile(rb"application/(?:[\w.-]+\+)?json\s*(?:;\s*charset=\"?utf-?8\"?\s*)?", re.IGNORECASE)
_FORM = re.compile(rb"multipart/form-data[ \t]*(?:;|$)", re.IGNORECASE)

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]


class ClientLeft(Exception):
    """The client's connection was gone before its request was complete."""


class Head:
    """The few headers that decide what happens to a request."""

    __slots__ = ("_digest", "_tags", "authorization", "content_encoding", "content_length", "fields", "headers")

    def __init__(self, headers: list[tuple[bytes, bytes]], http_version: str) -> None:
        self.headers = headers
        self.fields = fields = dict(headers)
        if len(fields) < len(headers):
            _refuse_ambiguous(headers)
        if b"transfer-encoding" in fields or b"host" not in fields:
            _check_framing(fields, http_version)
        self.authorization = fields.get(b"authorization")
        self.content_encoding = fields.get(b"content-encoding")
        length = fields.get(b"content-length")
        self.content_length = None if length is None else int(length)
        self._digest: bytes | None = None
        self._tags: Mapping[str, str] | None = None if TAGS in fields else NO_TAGS

    @property
    def digest(self) -> bytes:
        """Of the secret in it, computed once, for a head may come again and again. Raises `MissingKey`."""
        if self._digest is None:
            self._digest = digest_of(self.authorization)
        return self._digest

    @property
    def tags(self) -> Mapping[str, str]:
        """Raises `BadRequest`: ask once it is known whose call it is, so that the refusal is theirs."""
        if self._tags is None:
            _refuse_twice(TAGS, self.headers)
            self._tags = read_tags(self.fields[TAGS])
        return self._tags


def _check_framing(fields: Mapping[bytes, bytes], http_version: str) -> None:
    """What HTTP/1.1 demands of a request and a parser lets pass (RFC 9112, sections 3.2 and 6.1)."""
    if b"host" not in fields and http_version != "1.0":
        raise BadRequest("The Host header is missing; an HTTP/1.1 client sends one.")
    coding = fields.get(b"transfer-encoding")
    if coding is not None and (coding.lower() != b"chunked" or http_version == "1.0"):
        raise BadRequest("Of transfer codings only chunked is understood, in HTTP/1.1; send Content-Length instead.")


def _refuse_ambiguous(headers: list[tuple[bytes, bytes]]) -> None:
    """Of the headers that decide something there must be one: whoever reads on might take the other."""
    for name in (b"authorization", b"content-encoding", b"content-length", b"content-type", b"host"):
        _refuse_twice(name, headers)


def _refuse_twice(name: bytes, headers: list[tuple[bytes, bytes]]) -> None:
    if sum(1 for key, _ in headers if key == name) > 1:
        raise BadRequest(f"The header {name.decode()} came more than once; send it once.")


def check_media_type(head: Head) -> None:
    """Refuse a body that upstream may read as something other than the JSON that is checked here."""
    media_type = head.fields.get(b"content-type")
    if media_type is not None and media_type != b"application/json" and not _JSON.fullmatch(media_type):
        raise UnsupportedMediaType("The body of this route is JSON in UTF-8; send Content-Type: application/json.")


def is_form(head: Head) -> bool:
    """Whether a body that is not held is one in which no id of an object can stand."""
    return _FORM.match(head.fields.get(b"content-type", b"")) is not None


def check_length(head: Head, max_bytes: int) -> None:
    """Refuse a body that announces itself as too large before a byte of it is read."""
    if head.content_length is not None and head.content_length > max_bytes:
        raise too_large(max_bytes)


async def read_body(receive: Receive, head: Head, max_bytes: int) -> bytes:
    """The whole body, content coding taken off. Raises `RequestTooLarge`, `BadRequest`, `ClientLeft`."""
    check_length(head, max_bytes)
    message = await receive()
    _check_connected(message)
    body: bytes = message["body"]
    if len(body) > max_bytes:
        raise too_large(max_bytes)
    if message["more_body"]:
        body = await _read_rest(receive, body, max_bytes)
    if head.content_encoding is None:
        return body
    if len(body) < _DECODED_INLINE_BYTES:
        return decode_body(body, head.content_encoding, max_bytes)
    return await asyncio.to_thread(decode_body, body, head.content_encoding, max_bytes)


async def _read_rest(receive: Receive, first: bytes, max_bytes: int) -> bytes:
    body, size, more = BytesIO(), len(first), True  # grows in place: a large body is held once, not in pieces as well
    body.write(first)
    while more:
        message = await receive()
        _check_connected(message)
        size += len(message["body"])
        if size > max_bytes:
            raise too_large(max_bytes)
        body.write(message["body"])
        more = message["more_body"]
    return body.getvalue()


async def stream_body(receive: Receive, max_bytes: int) -> AsyncIterator[bytes]:
    """The body as it comes, nothing kept. Raises `RequestTooLarge` once it is over the cap, `ClientLeft`."""
    size, more = 0, True
    while more:
        message = await receive()
        _check_connected(message)
        more = message["more_body"]
        size += len(message["body"])
        if size > max_bytes:
            raise too_large(max_bytes)
        if message["body"]:
            yield message["body"]


def _check_connected(message: MutableMapping[str, Any]) -> None:
    if message["type"] == "http.disconnect":
        raise ClientLeft


def too_large(max_bytes: int) -> RequestTooLarge:
    """The refusal of a body over the cap."""
    return RequestTooLarge(
        f"The request body is larger than the {max_bytes} bytes that this gateway takes. Send a smaller one, upload "
        "it as a file, or ask whoever runs the gateway to raise server.max_body_bytes."
    )
