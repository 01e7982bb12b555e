"""Which headers pass, in both directions (RFC 9110 section 7.6.1; what OpenAI's clients send and read).

Pure. Names are in lower case, as ASGI gives them. Knows nothing of bodies.
"""

import hmac
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from operator import itemgetter

from gateway.call import Principal
from gateway.relay.mask import SecretMask

RawHeaders = list[tuple[bytes, bytes]]

HOP_BY_HOP = frozenset(
    (
        b"connection",
        b"keep-alive",
        b"proxy-connection",
        b"proxy-authenticate",
        b"proxy-authorization",
        b"te",
        b"trailer",
        b"transfer-encoding",
        b"upgrade",
    )
)
_SET_BY_US = frozenset(
    (b"host", b"content-length", b"accept-encoding", b"authorization", b"x-organization-id", b"expect")
)
_OTHER_KEYS = frozenset((b"api-key", b"x-api-key"))
"""Where other APIs look for a key: what a client puts there is meant for us, or would rival the key that we set."""
_REROUTING = frozenset(
    (b"x-http-method", b"x-http-method-override", b"x-method-override", b"x-original-url", b"x-rewrite-url")
)
"""Some servers let these override the method and path that were authorised."""
_NOT_FOR_UPSTREAM = (
    HOP_BY_HOP
    | _SET_BY_US
    | _OTHER_KEYS
    | _REROUTING
    | {b"cookie", b"openai-organization", b"openai-project", b"forwarded"}
)
_NOT_FOR_UPSTREAM_PREFIXES = (b"x-forwarded-", b"x-gateway-")

_NOT_FOR_CLIENTS = HOP_BY_HOP | {
    b"set-cookie",
    b"alt-svc",
    b"server",
    b"strict-transport-security",
    b"openai-organization",
    b"openai-project",
}
_NOT_FOR_CLIENTS_PREFIXES = (b"x-ratelimit-", b"x-gateway-")

_ORDINARY_CONNECTION = frozenset((b"", b"keep-alive", b"Keep-Alive", b"close"))
_LENGTH = frozenset((b"content-length",))
_MAX_KNOWN_NAMES, _MAX_KNOWN_LENGTH = 1024, 64
_MAX_KNOWN_HEADS, _MAX_KNOWN_HEAD_LENGTH = 256, 2048
_STREAM_HEADERS = ((b"cache-control", b"no-cache"), (b"x-accel-buffering", b"no"))


def named_by_connection(value: bytes) -> frozenset[bytes]:
    """The header names that a `Connection` value lists: they end here too."""
    return frozenset(token.strip().lower() for token in value.split(b","))


def _listed(headers: Sequence[tuple[bytes, bytes]], fields: Mapping[bytes, bytes]) -> frozenset[bytes] | None:
    """What all `Connection` headers list, None in the ordinary case; `fields` is `headers` as a dict.

    Never the length, which a sender may not list: it frames what goes on, and a reply without it would have no end.
    """
    last = fields.get(b"connection", b"")
    if last in _ORDINARY_CONNECTION and len(fields) == len(headers):
        return None
    return named_by_connection(b",".join(value for name, value in headers if name == b"connection")) - _LENGTH


def _without(headers: RawHeaders, unwanted: frozenset[bytes]) -> RawHeaders:
    return [field for field in headers if field[0] not in unwanted]


class _Filter:
    """Drops headers by name. Verdicts are remembered: the same few names come with every call."""

    __slots__ = ("_drop", "_names", "_prefixes")

    def __init__(self, names: frozenset[bytes], prefixes: tuple[bytes, ...]) -> None:
        self._names, self._prefixes = names, prefixes
        self._drop: dict[bytes, bool] = {}

    def __call__(self, headers: Sequence[tuple[bytes, bytes]]) -> RawHeaders:
        """What passes of `headers`, in order."""
        known = self._drop
        try:
            return [field for field in headers if not known[field[0]]]
        except KeyError:
            return [field for field in headers if not self._learn(field[0])]

    def _learn(self, name: bytes) -> bool:
        verdict = name in self._names or name.startswith(self._prefixes)
        if len(self._drop) < _MAX_KNOWN_NAMES and len(name) < _MAX_KNOWN_LENGTH:
            self._drop[name] = verdict
        return verdict


class _HeadFilter(_Filter):
    """As `_Filter`, for heads of a few senders, who name the same headers in the same order each time."""

    __slots__ = ("_choices",)

    def __init__(self, names: frozenset[bytes], prefixes: tuple[bytes, ...]) -> None:
        super().__init__(names, prefixes)
        self._choices: dict[tuple[bytes, ...], _Choice] = {}

    def choose(self, headers: RawHeaders, fields: Mapping[bytes, bytes]) -> RawHeaders:
        """What passes of `headers`, in order; `fields` is `headers` as a dict, which has all of them."""
        names = tuple(fields)
        choice = self._choices.get(names)
        return list(choice(headers)) if choice is not None else self._learn_choice(headers, names)

    def _learn_choice(self, headers: RawHeaders, names: tuple[bytes, ...]) -> RawHeaders:
        out = self(headers)
        if len(out) > 1 and len(self._choices) < _MAX_KNOWN_HEADS and sum(map(len, names)) < _MAX_KNOWN_HEAD_LENGTH:
            self._choices[names] = itemgetter(*[headers.index(field) for field in out])
        return out


_Choice = Callable[[RawHeaders], tuple[tuple[bytes, bytes], ...]]

_to_upstream = _Filter(_NOT_FOR_UPSTREAM, _NOT_FOR_UPSTREAM_PREFIXES)
_to_client = _HeadFilter(_NOT_FOR_CLIENTS, _NOT_FOR_CLIENTS_PREFIXES)


@dataclass(frozen=True, slots=True)
class RequestHeaders:
    """Makes the headers of the request to upstream: what the client sent, stripped first, then ours."""

    host: bytes
    api_key: bytes = field(repr=False)
    organization_id: bytes | None = None
    namespaces_keys: bool = True
    """Whether upstream sees the teams' own keys for its caches under names that keep them apart."""
    shares_within_team: bool = True
    """Whether a team's keys see each other's objects, and so each other's entries in these caches."""
    _own: RawHeaders = field(init=False, repr=False)

    def __post_init__(self) -> None:
        own = [(b"authorization", b"Bearer " + self.api_key), (b"accept-encoding", b"identity")]
        if self.organization_id is not None:
            own.append((b"x-organization-id", self.organization_id))
        object.__setattr__(self, "_own", own)

    def build(
        self,
        headers: Sequence[tuple[bytes, bytes]],
        fields: Mapping[bytes, bytes],
        principal: Principal,
        *,
        content_length: int | None,
        drop: frozenset[bytes] = frozenset(),
    ) -> RawHeaders:
        """`fields` is `headers` as a dict; `drop` holds more names to leave out.

        `content_length` is that of the body as it goes upstream, None for a body in chunks or none at all. What the
        client stated is never copied: the body may have been decoded since.
        """
        out = _to_upstream(headers)
        if drop:
            out = _without(out, drop)
        if (listed := _listed(headers, fields)) is not None:
            out = _without(out, listed)
        if b"idempotency-key" in fields and self.namespaces_keys:
            out = [self._namespaced(field, principal) for field in out]
        out.insert(0, (b"host", self.host))
        out += self._own
        if content_length is not None:
            out.append((b"content-length", b"%d" % content_length))
        return out

    def cache_key(self, key: str, principal: Principal) -> str:
        """The `prompt_cache_key` that upstream sees in place of `key`; within OpenAI's 64 characters."""
        return "gw-" + self._keyed(principal, b"prompt_cache_key", key.encode("utf-8", "surrogatepass"))[:40]

    def _namespaced(self, field: tuple[bytes, bytes], principal: Principal) -> tuple[bytes, bytes]:
        name, value = field
        if name != b"idempotency-key":
            return field
        return name, b"gw-" + self._keyed(principal, name, value).encode()

    def _keyed(self, principal: Principal, purpose: bytes, value: bytes) -> str:
        """Upstream sees one account, so two teams' equal keys must differ there, and nobody may guess another's."""
        whose = principal.team_id if self.shares_within_team else f"{principal.team_id}/{principal.key_id}"
        message = b"\0".join((purpose, whose.encode(), value))
        return hmac.digest(self.api_key, message, "sha256").hex()


def fields_of(headers: RawHeaders) -> dict[bytes, bytes]:
    """`headers` as a dict: of several of one name the last, but all that `Content-Encoding` lists (RFC 9110, 5.3)."""
    fields = dict(headers)
    if len(fields) < len(headers) and b"content-encoding" in fields:
        fields[b"content-encoding"] = b", ".join(value for name, value in headers if name == b"content-encoding")
    return fields


def is_event_stream(fields: Mapping[bytes, bytes]) -> bool:
    """Whether a reply is an event stream that can be read: its content type says so, the client's Accept does not."""
    content_type = fields.get(b"content-type", b"")
    return content_type[:17].lower() == b"text/event-stream" and b"content-encoding" not in fields


def reply_headers(
    upstream: RawHeaders, fields: Mapping[bytes, bytes], request_id: bytes, mask: SecretMask, *, keep_length: bool
) -> RawHeaders:
    """The headers of the reply to the client, `x-gateway-request-id` and `x-request-id` among them.

    `fields` is `upstream` as a dict. A stream's length is unknown even where upstream states it, since an in-band
    error may have to be added: `keep_length` is False then, and must be.
    """
    is_ordinary = len(fields) == len(upstream) and fields.get(b"connection", b"") in _ORDINARY_CONNECTION
    if is_ordinary and not mask.is_in(b"\n".join((*fields, *fields.values()))):
        out, may_stream = _to_client.choose(upstream, fields), not keep_length
    else:
        out, fields = _picked(upstream, fields, mask)
        may_stream = True  # if what spoke against it has gone
    if b"x-request-id" not in fields:
        out.append((b"x-request-id", request_id))
    out.append((b"x-gateway-request-id", request_id))
    if not keep_length:
        out = _without(out, _LENGTH)
    if may_stream and is_event_stream(fields):
        out += [header for header in _STREAM_HEADERS if header[0] not in fields]
    return out


def _picked(
    upstream: RawHeaders, fields: Mapping[bytes, bytes], mask: SecretMask
) -> tuple[RawHeaders, Mapping[bytes, bytes]]:
    """What passes of headers some of which come twice, end here or hold a secret; what is left of `fields`."""
    out = _to_client(upstream)
    listed = _listed(upstream, fields)
    if listed is not None:
        out = _without(out, listed)
    if len(fields) < len(upstream) or mask.is_in(b"\n".join((*fields, *fields.values()))):
        out = [field for field in out if not (mask.is_in(field[0]) or mask.is_in(field[1]))]
        return out, dict(out)
    if listed is not None and b"x-request-id" in listed:
        return out, {name: value for name, value in fields.items() if name != b"x-request-id"}
    return out, fields
