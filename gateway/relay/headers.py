"""Which headers pass, in both directions (RFC 9110 section 7.6.1; what OpenAI's clients send and read).

Pure. Names are in lower case, as ASGI gives them. Knows nothing of bodies.
"""

import hmac
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from gateway.call import Principal

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
_NOT_FOR_UPSTREAM = HOP_BY_HOP | _SET_BY_US | {b"cookie", b"openai-organization", b"openai-project", b"forwarded"}
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

_STREAM_HEADERS = ((b"cache-control", b"no-cache"), (b"x-accel-buffering", b"no"))


def named_by_connection(headers: Iterable[tuple[bytes, bytes]]) -> frozenset[bytes]:
    """The header names that `Connection` lists: they end here too."""
    values = [value for name, value in headers if name == b"connection"]
    return frozenset(token.strip().lower() for value in values for token in value.split(b","))


@dataclass(frozen=True, slots=True)
class RequestHeaders:
    """Makes the headers of the request to upstream: what the client sent, stripped first, then ours."""

    host: bytes
    api_key: bytes
    organization_id: bytes | None = None

    def build(
        self,
        headers: Sequence[tuple[bytes, bytes]],
        principal: Principal,
        *,
        content_length: int | None,
        drop: frozenset[bytes] = frozenset(),
    ) -> RawHeaders:
        """`content_length` None: the body streams, and the client's own Content-Length, if any, stands.

        `drop` holds more names to leave out, such as a Content-Encoding that was taken off.
        """
        unwanted = drop | named_by_connection(headers)
        out = [(b"host", self.host)]
        for name, value in headers:
            if (
                name in _NOT_FOR_UPSTREAM
                or name in unwanted
                or (name[:2] == b"x-" and name.startswith(_NOT_FOR_UPSTREAM_PREFIXES))
            ):
                continue
            if name == b"idempotency-key":
                value = self._namespaced(value, principal)  # noqa: PLW2901
            out.append((name, value))
        out += self._own(headers, content_length)
        return out

    def _own(self, headers: Sequence[tuple[bytes, bytes]], content_length: int | None) -> RawHeaders:
        own = [(b"authorization", b"Bearer " + self.api_key), (b"accept-encoding", b"identity")]
        if self.organization_id is not None:
            own.append((b"x-organization-id", self.organization_id))
        if content_length is not None:
            own.append((b"content-length", b"%d" % content_length))
        else:
            own += [(name, value) for name, value in headers if name == b"content-length"]
        return own

    def _namespaced(self, value: bytes, principal: Principal) -> bytes:
        """Upstream sees one account, so two teams' equal idempotency keys must differ there."""
        message = principal.team.encode() + b"\0" + value
        return b"gw-" + hmac.digest(self.api_key, message, "sha256").hex().encode()


def is_event_stream(headers: Iterable[tuple[bytes, bytes]]) -> bool:
    """Whether a reply is an event stream: its content type says so, the client's Accept does not."""
    return any(
        name == b"content-type" and value.lower().startswith(b"text/event-stream") for name, value in headers
    )


def reply_headers(
    upstream: RawHeaders, request_id: bytes, api_key: bytes, *, stream: bool = False, length_changes: bool = False
) -> RawHeaders:
    """The headers of the reply to the client, `x-gateway-request-id` and `x-request-id` among them.

    A stream's length is unknown even where upstream states it: an in-band error may have to be added.
    """
    unwanted = _NOT_FOR_CLIENTS
    if stream or length_changes:
        unwanted |= {b"content-length"}
    if any(name == b"connection" for name, _ in upstream):
        unwanted |= named_by_connection(upstream)
    out = [
        (name, value)
        for name, value in upstream
        if name not in unwanted
        and api_key not in value
        and not (name[:2] == b"x-" and name.startswith(_NOT_FOR_CLIENTS_PREFIXES))
    ]
    present = {name for name, _ in out}
    if b"x-request-id" not in present:
        out.append((b"x-request-id", request_id))
    out.append((b"x-gateway-request-id", request_id))
    if stream:
        out += [header for header in _STREAM_HEADERS if header[0] not in present]
    return out


def value_of(headers: Iterable[tuple[bytes, bytes]], name: bytes) -> bytes | None:
    """The value of the header `name`, None if it is absent or comes more than once with different values."""
    values = {value for key, value in headers if key == name}
    return values.pop() if len(values) == 1 else None
