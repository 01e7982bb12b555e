"""The refusals of the simulated upstream, in OpenAI's words and shape.

Knows status, message, type, param and code of each (see
https://platform.openai.com/docs/guides/error-codes and what api.openai.com
sends). They are upstream's, not the gateway's: `gateway.errors` plays no part.
"""

from typing import Any


class Refusal(Exception):
    """An error reply: `{"error": {message, type, param, code}}` with a status."""

    def __init__(
        self,
        status: int,
        message: str,
        *,
        kind: str = "invalid_request_error",
        param: str | None = None,
        code: str | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.error = {"message": message, "type": kind, "param": param, "code": code}

    def body(self) -> dict[str, Any]:
        """The JSON object that is sent."""
        return {"error": self.error}


NOT_JSON = (
    "We could not parse the JSON body of your request. (HINT: This likely means you aren't using your HTTP"
    " library correctly. The OpenAI API expects a JSON payload, but what was sent was not valid JSON. If you"
    " have trouble figuring out how to fix this, please contact us through our help center at"
    " help.openai.com.)"
)
NO_KEY = (
    "You didn't provide an API key. You need to provide your API key in an Authorization header using Bearer"
    " auth (i.e. Authorization: Bearer YOUR_KEY), or as the password field (with blank username) if you're"
    " accessing the API from your browser and are prompted for a username and password. You can obtain an API"
    " key from https://platform.openai.com/account/api-keys."
)


def not_json() -> Refusal:
    return Refusal(400, NOT_JSON)


def missing(param: str) -> Refusal:
    return Refusal(400, f"Missing required parameter: '{param}'.", param=param, code="missing_required_parameter")


def invalid(param: str | None, message: str, code: str = "invalid_value") -> Refusal:
    return Refusal(400, message, param=param, code=code)


def unknown_model(model: str) -> Refusal:
    message = f"The model `{model}` does not exist or you do not have access to it."
    return Refusal(404, message, code="model_not_found")


def not_found(kind: str, object_id: str, param: str | None = None) -> Refusal:
    return Refusal(404, f"{kind} with id '{object_id}' not found.", param=param)


def unknown_url(method: str, path: str) -> Refusal:
    return Refusal(404, f"Invalid URL ({method} {path})")


def method_not_allowed(method: str, path: str) -> Refusal:
    message = f"Not allowed to {method} on {path}. (HINT: Perhaps you meant to use a different HTTP method?)"
    return Refusal(405, message, code="method_not_supported")


def no_key() -> Refusal:
    return Refusal(401, NO_KEY)


def wrong_key(token: str) -> Refusal:
    """The real API shows a part of the key, so this does too: who relays it has to mask it."""
    shown = f"{token[:8]}{'*' * 20}{token[-4:]}" if len(token) > 16 else "*" * len(token)
    message = (
        f"Incorrect API key provided: {shown}."
        " You can find your API key at https://platform.openai.com/account/api-keys."
    )
    return Refusal(401, message, code="invalid_api_key")


_BY_STATUS = {
    401: ("invalid_request_error", "invalid_api_key", "Incorrect API key provided: simulated."),
    404: ("invalid_request_error", "model_not_found", "The model `simulated` does not exist."),
    429: ("requests", "rate_limit_exceeded", "Rate limit reached for simulated. Please try again in 7s."),
    500: ("server_error", None, "The server had an error while processing your request. Sorry about that!"),
    503: ("server_error", None, "The server is overloaded or not ready yet."),
}


def of_status(status: int) -> Refusal:
    """The refusal that goes with a status that a caller asked for."""
    fallback = "server_error" if status >= 500 else "invalid_request_error"
    kind, code, message = _BY_STATUS.get(status, (fallback, None, f"Simulated status {status}."))
    return Refusal(status, message, kind=kind, code=code)
