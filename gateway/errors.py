"""Every refusal and failure that a client can see, each with its wire shape.

Knows status, type, code and headers of an error (OpenAI's error object, see
https://platform.openai.com/docs/guides/error-codes); knows nothing of HTTP
servers. `gateway.http.errors` is the only place that writes them out.
"""

from collections.abc import Sequence

Headers = Sequence[tuple[bytes, bytes]]

NEVER_RETRY: Headers = ((b"x-should-retry", b"false"),)
RETRY_SOON: Headers = ((b"retry-after", b"1"),)


class GatewayError(Exception):
    """A refusal or a failure that the client sees; each class fixes its wire shape.

    `message` tells the client what to do next and never holds a secret. `detail` is for the log only.
    """

    status = 500
    type = "server_error"
    code: str | None = "internal_error"
    headers: Headers = ()

    def __init__(self, message: str, *, param: str | None = None, detail: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.param = param
        self.detail = detail

    def body(self) -> dict[str, dict[str, str | None]]:
        """The JSON object of an error reply: `{"error": {message, type, param, code}}`."""
        return {"error": {"message": self.message, "type": self.type, "param": self.param, "code": self.code}}


class InternalError(GatewayError):
    """A bug in the gateway."""


class BadRequest(GatewayError):
    """The request cannot be read: bad JSON, a duplicate key, a path that is not clean."""

    status, type, code = 400, "invalid_request_error", None


class MissingKey(GatewayError):
    """No bearer token was sent."""

    status, type, code = 401, "invalid_request_error", None
    headers = NEVER_RETRY


class InvalidKey(GatewayError):
    """The bearer token is no live key; one body for every reason."""

    status, type, code = 401, "invalid_request_error", "invalid_api_key"
    headers = NEVER_RETRY


class Forbidden(GatewayError):
    """The key is good, and what it asks for is not among what it may do."""

    status, type, code = 403, "invalid_request_error", "forbidden"


class ModelNotAllowed(Forbidden):
    """The key may not use this model."""

    code = "model_not_allowed"


class ModelUnpriced(Forbidden):
    """The key has a budget, and what this model costs is not known."""

    code = "model_unpriced"


class RouteNotAllowed(Forbidden):
    """The key may not use this route."""

    code = "route_not_allowed"


class NetworkNotAllowed(Forbidden):
    """The key may not be used from this address."""

    code = "network_not_allowed"


class NotFound(GatewayError):
    """No such object, or another team's: one body for both."""

    status, type, code = 404, "invalid_request_error", "not_found"


class Conflict(GatewayError):
    """The change does not fit what is there: a name that is taken, a key that the settings declare."""

    status, type, code = 409, "invalid_request_error", "conflict"


class PreconditionFailed(GatewayError):
    """Someone else has changed the object since it was read (If-Match)."""

    status, type, code = 412, "invalid_request_error", "version_mismatch"


class StoreUnavailable(GatewayError):
    """The database is away, and the call cannot do without it."""

    status, type, code = 503, "server_error", "store_unavailable"
    headers = RETRY_SOON


class UnknownRoute(GatewayError):
    """Method and path are not in the table of mirrored routes."""

    status, type, code = 404, "invalid_request_error", None


class MethodNotAllowed(GatewayError):
    """A page of the gateway's own that does not take this method."""

    status, type, code = 405, "invalid_request_error", None


class RequestTimeout(GatewayError):
    """The client took too long to send its request."""

    status, type, code = 408, "invalid_request_error", "request_timeout"


class RateLimited(GatewayError):
    """A limit of requests, tokens or parallel calls refused the call; `type` tells which: requests or tokens."""

    status, type, code = 429, "requests", "rate_limit_exceeded"

    def __init__(self, message: str, *, type_: str, headers: Headers, detail: str = "") -> None:
        super().__init__(message, detail=detail)
        self.type = type_
        self.headers = headers


class BudgetSpent(GatewayError):
    """A budget has no room for the call until it is reset."""

    status, type, code = 429, "insufficient_quota", "insufficient_quota"

    def __init__(self, message: str, *, headers: Headers, detail: str = "") -> None:
        super().__init__(message, detail=detail)
        self.headers = (*NEVER_RETRY, *headers)


class RequestTooLarge(GatewayError):
    """The body is over the cap, as sent or once decoded."""

    status, type, code = 413, "invalid_request_error", "request_too_large"


class UrlTooLong(GatewayError):
    """The request target is over the cap."""

    status, type, code = 414, "invalid_request_error", "url_too_long"


class UnsupportedEncoding(GatewayError):
    """A Content-Encoding that the gateway cannot decode."""

    status, type, code = 415, "invalid_request_error", "unsupported_content_encoding"


class UnsupportedMediaType(GatewayError):
    """A Content-Type under which a body could be read as something other than JSON."""

    status, type, code = 415, "invalid_request_error", "unsupported_media_type"


class UpgradeRequired(GatewayError):
    """WebSocket mode was asked for."""

    status, type, code = 426, "invalid_request_error", "websocket_not_supported"


class HeadersTooLarge(GatewayError):
    """The request head is over the cap, in bytes or in fields."""

    status, type, code = 431, "invalid_request_error", "headers_too_large"


class UpstreamUnreachable(GatewayError):
    """Upstream refused the connection, reset it, or could not be reached."""

    status, type, code = 502, "upstream_error", "upstream_unreachable"


class UpstreamProtocolError(GatewayError):
    """Upstream's reply is not legal HTTP, or ended before it was complete."""

    status, type, code = 502, "upstream_error", "upstream_protocol_error"


class UpstreamTimeout(GatewayError):
    """Upstream took too long in some phase."""

    status, type, code = 504, "upstream_error", "upstream_timeout"


class Overloaded(GatewayError):
    """The gateway has no room for another call."""

    status, type, code = 503, "server_error", "overloaded"
    headers = RETRY_SOON


class Draining(GatewayError):
    """The gateway is shutting down."""

    status, type, code = 503, "server_error", "draining"
    headers = RETRY_SOON
