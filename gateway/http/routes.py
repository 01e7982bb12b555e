"""The table of mirrored routes, and the way from a raw path to its row.

Knows methods and paths of the OpenAI API (https://platform.openai.com/docs/api-reference) and which paths are not
clean. Works on the raw path alone, as it stood in the request line: what is authorised is what upstream will read.
There is no catch-all: a shared key must not reach the account's administration.
"""

import re
from dataclasses import dataclass
from urllib.parse import unquote_to_bytes

from gateway.call import Body, Dialect, Makes, Reply, Route
from gateway.errors import BadRequest

PREFIX = b"/v1"

_CHAT = Dialect.CHAT
_RESPONSES = Dialect.RESPONSES
_JSON, _RAW = Body.JSON, Body.RAW
_USAGE = Reply.USAGE
_ITEM = frozenset({"item_id"})
_PART = frozenset({"batch_id"})
_FILE_BATCH = "vector_stores/{vector_store_id}/file_batches/{batch_id}"

ROUTES: tuple[Route, ...] = (
    Route("POST", "chat/completions", _JSON, _USAGE, _CHAT, "chat", Makes.CHAT),
    Route("GET", "chat/completions", group="chat", lists=True),
    Route("GET", "chat/completions/{completion_id}", group="chat"),
    Route("POST", "chat/completions/{completion_id}", _JSON, group="chat"),
    Route("DELETE", "chat/completions/{completion_id}", group="chat"),
    Route("GET", "chat/completions/{completion_id}/messages", group="chat"),
    Route("POST", "responses", _JSON, _USAGE, _RESPONSES, "responses", Makes.RESPONSE),
    Route("POST", "responses/input_tokens", _JSON, group="responses"),
    Route("POST", "responses/compact", _JSON, _USAGE, group="responses", makes=Makes.OBJECT),
    Route("GET", "responses/{response_id}", dialect=_RESPONSES, group="responses", makes=Makes.RESPONSE),
    Route("DELETE", "responses/{response_id}", group="responses"),
    Route("POST", "responses/{response_id}/cancel", group="responses", makes=Makes.RESPONSE),
    Route("GET", "responses/{response_id}/input_items", group="responses"),
    Route("POST", "conversations", _JSON, group="conversations", makes=Makes.OBJECT),
    Route("GET", "conversations/{conversation_id}", group="conversations"),
    Route("POST", "conversations/{conversation_id}", _JSON, group="conversations"),
    Route("DELETE", "conversations/{conversation_id}", group="conversations"),
    Route("POST", "conversations/{conversation_id}/items", _JSON, group="conversations"),
    Route("GET", "conversations/{conversation_id}/items", group="conversations"),
    Route("GET", "conversations/{conversation_id}/items/{item_id}", group="conversations", unowned=_ITEM),
    Route("DELETE", "conversations/{conversation_id}/items/{item_id}", group="conversations", unowned=_ITEM),
    Route("GET", "models", reply=Reply.MODELS, group="models"),
    Route("GET", "models/{model_id}", reply=Reply.MODEL, group="models", unowned=frozenset({"model_id"})),
    Route("POST", "embeddings", _JSON, _USAGE, group="embeddings"),
    Route("POST", "completions", _JSON, _USAGE, _CHAT, "completions"),
    Route("POST", "moderations", _JSON, group="moderations"),
    Route("POST", "images/generations", _JSON, _USAGE, group="images"),
    Route("POST", "images/edits", _RAW, _USAGE, group="images"),
    Route("POST", "images/variations", _RAW, _USAGE, group="images"),
    Route("POST", "audio/speech", _JSON, _USAGE, group="audio"),
    Route("POST", "audio/transcriptions", _RAW, _USAGE, group="audio"),
    Route("POST", "audio/translations", _RAW, _USAGE, group="audio"),
    Route("POST", "files", _RAW, group="files", makes=Makes.OBJECT),
    Route("GET", "files", group="files", lists=True),
    Route("GET", "files/{file_id}", group="files"),
    Route("DELETE", "files/{file_id}", group="files"),
    Route("GET", "files/{file_id}/content", group="files"),
    Route("POST", "uploads", _JSON, group="uploads", makes=Makes.OBJECT),
    Route("POST", "uploads/{upload_id}/parts", _RAW, group="uploads"),
    Route("POST", "uploads/{upload_id}/complete", _JSON, group="uploads", makes=Makes.UPLOADED),
    Route("POST", "uploads/{upload_id}/cancel", group="uploads"),
    Route("POST", "batches", _JSON, group="batches", makes=Makes.BATCH, runs_file=True),
    Route("GET", "batches", group="batches", makes=Makes.BATCH, lists=True),
    Route("GET", "batches/{batch_id}", group="batches", makes=Makes.BATCH),
    Route("POST", "batches/{batch_id}/cancel", group="batches", makes=Makes.BATCH),
    Route("POST", "vector_stores", _JSON, group="vector_stores", makes=Makes.OBJECT),
    Route("GET", "vector_stores", group="vector_stores", lists=True),
    Route("GET", "vector_stores/{vector_store_id}", group="vector_stores"),
    Route("POST", "vector_stores/{vector_store_id}", _JSON, group="vector_stores"),
    Route("DELETE", "vector_stores/{vector_store_id}", group="vector_stores"),
    Route("POST", "vector_stores/{vector_store_id}/search", _JSON, group="vector_stores"),
    Route("POST", "vector_stores/{vector_store_id}/files", _JSON, group="vector_stores"),
    Route("GET", "vector_stores/{vector_store_id}/files", group="vector_stores"),
    Route("GET", "vector_stores/{vector_store_id}/files/{file_id}", group="vector_stores"),
    Route("POST", "vector_stores/{vector_store_id}/files/{file_id}", _JSON, group="vector_stores"),
    Route("DELETE", "vector_stores/{vector_store_id}/files/{file_id}", group="vector_stores"),
    Route("GET", "vector_stores/{vector_store_id}/files/{file_id}/content", group="vector_stores"),
    Route("POST", "vector_stores/{vector_store_id}/file_batches", _JSON, group="vector_stores"),
    Route("GET", _FILE_BATCH, group="vector_stores", unowned=_PART),
    Route("POST", f"{_FILE_BATCH}/cancel", group="vector_stores", unowned=_PART),
    Route("GET", f"{_FILE_BATCH}/files", group="vector_stores", unowned=_PART),
)

_METHODS = sorted({route.method for route in ROUTES})
ROUTE_GROUPS = frozenset(route.group for route in ROUTES)

MAKES_RESPONSES = next(each for each in ROUTES if each.makes is Makes.RESPONSE and each.reply is Reply.USAGE)

_GREEDY = "{model_id}"
"""Model names hold slashes; SDKs send them as %2F, people as they are."""

_ILLEGAL = re.compile(rb"[\x00-\x20\x7f-\xff]|%(?![0-9a-f]{2})", re.IGNORECASE)
"""Bytes that no request target holds, and a percent sign that encodes nothing."""

_UNCLEAN = re.compile(
    rb"""//|[\\\x00-\x1f\x7f]             # an empty segment; bytes that servers read in different ways
        |/\.{1,2}(?:/|$)                 # dot segments
        |/\.{0,2};                       # the same with parameters, which Java's servers take off first
        |%(?:[01][0-9a-f]|2[5ef]|5c|7f)  # after decoding: one of these encoded twice, or anything three times
    """,
    re.VERBOSE | re.IGNORECASE,
)
_REASONS = (
    (re.compile(rb"//"), "an empty segment (is a variable in it empty?)"),
    (re.compile(rb"/\.{0,2};|/\.{1,2}(?:/|$)"), "a dot segment, or one that some servers read as such"),
    (re.compile(rb"\\"), "a backslash"),
    (re.compile(rb"[\x00-\x20\x7f]"), "a space or a control character"),
    (re.compile(rb"%[0-9a-f]{2}", re.IGNORECASE), "something encoded twice"),
)
"""What to say of a path that was refused, decoded once."""
_ENCODED_SLASH = re.compile(rb"%2f", re.IGNORECASE)
_UNPREFIXED = (b"/chat/completions", b"/responses")


@dataclass(frozen=True, slots=True)
class Match:
    """A row, the path below /v1 as it was sent (`/responses/resp_1`), and the ids in it, still percent-encoded."""

    route: Route
    subpath: bytes
    ids: dict[str, bytes]


class _Node:
    """One level of the tree of path segments."""

    __slots__ = ("literal", "parameter", "routes")

    def __init__(self) -> None:
        self.literal: dict[bytes, _Node] = {}
        self.parameter: tuple[str, _Node] | None = None
        self.routes: dict[str, Route] = {}

    def child(self, segment: str) -> "_Node":
        if not segment.startswith("{"):
            return self.literal.setdefault(segment.encode(), _Node())
        if self.parameter is None:
            self.parameter = (segment, _Node())
        return self.parameter[1]


class RouteTable:
    """Finds the row of a request, or says that there is none."""

    def __init__(self, routes: tuple[Route, ...] = ROUTES) -> None:
        self._root = _Node()
        self._static: dict[tuple[str, bytes], Match] = {}
        for route in routes:
            self._add(route)

    def _add(self, route: Route) -> None:
        node = self._root
        for segment in route.pattern.split("/"):
            node = node.child(segment)
        node.routes[route.method] = route
        if "{" not in route.pattern:
            path = b"/" + route.pattern.encode()
            match = Match(route, path, {})
            self._static[route.method, PREFIX + path] = match
            if path.startswith(_UNPREFIXED):
                self._static[route.method, path] = match

    def match(self, method: str, raw_path: bytes) -> Match | None:
        """The row of `method` and `raw_path` (no query), None if the table has none.

        Raises `BadRequest` for a path that two servers could read in two ways.
        """
        return self._static.get((method, raw_path)) or self._match_ids(method, raw_path)

    def methods(self, raw_path: bytes) -> list[str]:
        """Those that a path takes. Raises as `match`."""
        return [method for method in _METHODS if self.match(method, raw_path) is not None]

    def _match_ids(self, method: str, raw_path: bytes) -> Match | None:
        check_clean(raw_path)
        subpath = raw_path.removeprefix(PREFIX)
        if len(subpath) == len(raw_path) and not raw_path.startswith(_UNPREFIXED):
            return None
        node, ids = self._root, {}
        segments = subpath[1:].split(b"/")
        for position, segment in enumerate(segments):
            if (literal := node.literal.get(segment)) is not None:
                node = literal
            elif node.parameter is not None and segment:
                name, node = node.parameter
                if name == _GREEDY:
                    ids[name[1:-1]] = b"/".join(segments[position:])
                    break
                if _ENCODED_SLASH.search(segment):
                    raise _unclean("an encoded slash in an id")
                ids[name[1:-1]] = segment
            else:
                return None
        route = node.routes.get(method)
        return None if route is None else Match(route, subpath, ids)


def is_mirrored(raw_path: bytes) -> bool:
    """Whether the path belongs to the mirrored surface, known or not."""
    return raw_path.startswith((b"/v1/", *_UNPREFIXED)) or raw_path == PREFIX


def check_clean(raw_path: bytes) -> None:
    """Refuse dot segments, empty segments, backslashes and control characters: plain, percent-encoded, or twice so.

    What is encoded counts as if it were not, a slash too, since a server behind may decode before it looks. For the
    same reason encodings must be of UTF-8: what is not is read in as many ways as there are servers.
    """
    plain = unquote_to_bytes(raw_path) if b"%" in raw_path else raw_path
    if _ILLEGAL.search(raw_path) or _UNCLEAN.search(plain) or not _is_utf8(plain):
        raise _unclean(_what_is_unclean(raw_path, plain))


def _is_utf8(text: bytes) -> bool:
    try:
        text.decode()
    except UnicodeDecodeError:
        return False
    return True


def _what_is_unclean(raw_path: bytes, plain: bytes) -> str:
    for pattern, what in _REASONS:
        if pattern.search(plain):
            return what
    if not raw_path.isascii():
        return "what is not ASCII"
    return "a percent sign that encodes nothing" if _ILLEGAL.search(raw_path) else "something not encoded as UTF-8"


def _unclean(what: str) -> BadRequest:
    return BadRequest(
        f"The path of this request is ambiguous: it holds {what}. Send the plain path of the API, such as "
        "/v1/chat/completions."
    )
