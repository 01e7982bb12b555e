"""One request and its reply as plain values, and what outlives them.

Knows HTTP's nouns, how ids follow from a request, and how JSON is spelled.
Does no I/O.
"""

import hashlib
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar
from urllib.parse import parse_qs

import msgspec

from gateway.simulator.faults import Faults
from gateway.simulator.refusals import Refusal, invalid, not_json, unknown_model
from gateway.simulator.shelf import Shelf

Json = dict[str, Any]
Headers = list[tuple[bytes, bytes]]
Shape = TypeVar("Shape")

CREATED = 1_767_225_600  # 2026-01-01T00:00:00Z: the same request gets the same bytes on any day
MODELS = ("openai/gpt-5.2", "openai/gpt-5.2-mini", "simulated")
MAX_COUNTED = 10_000
"""Different requests whose repetitions are counted; then all counts begin anew, under another name."""
# What the gateway adds or rewrites must not change ids: with and without it, bytes can then be compared.
_NOT_IDENTIFYING = ("stream_options", "prompt_cache_key")


class _Storing(msgspec.Struct):
    store: bool | None = None


@dataclass(frozen=True, slots=True)
class Request:
    """What came in; `path` is as sent, without the query and still percent-encoded."""

    method: str
    path: str
    query_string: str
    headers: Headers
    body: bytes

    def header(self, name: bytes) -> str:
        """All values of a header, joined as RFC 9110 section 5.3 does; "" where there is none."""
        return ", ".join(value.decode("latin-1") for key, value in self.headers if key == name)

    def query(self) -> Mapping[str, list[str]]:
        return parse_qs(self.query_string)

    def fingerprint(self, seed: int) -> bytes:
        """The same for the same request, whoever sends it and however its JSON is spaced."""
        digest = hashlib.sha256(f"{seed} {self.method} {self.path}\n".encode())
        digest.update(self._canonical_body())
        return digest.digest()

    def says_store(self) -> bool | None:
        """The member `store` of a JSON body, None where there is none."""
        try:
            return msgspec.json.decode(self.body, type=_Storing).store
        except (ValueError, RecursionError):
            return None

    def _canonical_body(self) -> bytes:
        boundary = self.header(b"content-type").partition("boundary=")[2].strip('"')
        if boundary:
            return self.body.replace(boundary.encode("latin-1"), b"")
        try:
            body = msgspec.json.decode(self.body)
        except (ValueError, RecursionError):
            return self.body
        if isinstance(body, dict):
            body = {name: value for name, value in body.items() if name not in _NOT_IDENTIFYING}
        return msgspec.json.encode(body, order="deterministic")


@dataclass(slots=True)
class State:
    """What the simulated account holds; bounded, and gone with the process."""

    seed: int = 0
    responses: Shelf[Any] = field(default_factory=Shelf)
    chats: Shelf[Any] = field(default_factory=Shelf)
    conversations: Shelf[Any] = field(default_factory=Shelf)
    files: Shelf[Any] = field(default_factory=Shelf)
    uploads: Shelf[Any] = field(default_factory=Shelf)
    batches: Shelf[Json] = field(default_factory=Shelf)
    vector_stores: Shelf[Any] = field(default_factory=Shelf)
    _times: dict[bytes, int] = field(default_factory=dict)
    _forgotten: int = 0

    def another(self, fingerprint: bytes) -> bytes:
        """A fingerprint that is new each time, and follows from what was asked for before."""
        if len(self._times) >= MAX_COUNTED:
            self._times.clear()
            self._forgotten += 1
        times = self._times.get(fingerprint, 0)
        self._times[fingerprint] = times + 1
        return hashlib.sha256(fingerprint + b"%d %d" % (self._forgotten, times)).digest()


@dataclass(frozen=True, slots=True)
class Call:
    """A routed request: what a handler works on."""

    request: Request
    state: State
    faults: Faults
    ids: tuple[str, ...]
    fingerprint: bytes

    def new_id(self, prefix: str, *parts: object) -> str:
        """An id that follows from the request and `parts` alone."""
        name = f"{prefix} {' '.join(map(str, parts))}".encode()
        return f"{prefix}{hashlib.sha256(self.fingerprint + name).hexdigest()[:32]}"

    def created(self) -> int:
        """Unix time, in seconds, that every object of this reply bears."""
        if self.faults.created_now:
            return int(time.time())
        return CREATED if self.faults.created is None else self.faults.created

    def read(self, shape: type[Shape]) -> Shape:
        """The JSON body as a struct; raises Refusal."""
        return read_json(self.request.body, shape)


def read_json(body: bytes, shape: type[Shape]) -> Shape:
    """Decode and check; raises Refusal in OpenAI's words."""
    try:
        return msgspec.json.decode(body or b"{}", type=shape)
    except msgspec.ValidationError as error:
        message, _, where = str(error).partition(" - at ")
        raise invalid(where.strip("`$.") or None, f"Invalid type: {message}.", "invalid_type") from error
    except (ValueError, RecursionError) as error:
        raise not_json() from error


@dataclass(frozen=True, slots=True)
class Reply:
    """What goes out: a body of known length, or pieces as they come (for a stream, one event each)."""

    body: bytes | Iterable[bytes]
    status: int = 200
    content_type: bytes = b"application/json"
    headers: Headers = field(default_factory=list)


EVENT_STREAM = b"text/event-stream; charset=utf-8"


def json_reply(body: object, status: int = 200, headers: Headers | None = None) -> Reply:
    """JSON as the real API spells it: two spaces of indent, raw UTF-8."""
    pretty = msgspec.json.format(msgspec.json.encode(body), indent=2) + b"\n"
    return Reply(pretty, status, headers=headers or [])


def refusal_reply(refusal: Refusal, headers: Headers | None = None) -> Reply:
    return json_reply(refusal.body(), refusal.status, headers)


def require_model(model: str | None) -> str:
    """The model's name if there is such a model; raises Refusal."""
    if model is None:
        raise invalid(None, "you must provide a model parameter", "missing_required_parameter")
    if model not in MODELS:
        raise unknown_model(model)
    return model
