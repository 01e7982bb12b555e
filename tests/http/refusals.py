"""What clients are told by errors at the face: the rows of the table, and a gateway that refuses."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from tests.faults.face import (
    Answer,
)
from tests.support.gateway import KEY, UPSTREAM_KEY, RunningGateway, running_gateway
from tests.support.wire import Script, WireUpstream, reply

OK = reply(200, [(b"Content-Type", b"application/json")], b'{"ok": true}')
MAX_BODY_BYTES = 100_000


@dataclass(frozen=True)
class Row:
    """What the client must be told."""

    status: int
    type: str
    code: str | None
    headers: dict[str, str]


NO_KEY = Row(401, "invalid_request_error", None, {"x-should-retry": "false"})
WRONG_KEY = Row(401, "invalid_request_error", "invalid_api_key", {"x-should-retry": "false"})
BAD_REQUEST = Row(400, "invalid_request_error", None, {})
UNKNOWN_ROUTE = Row(404, "invalid_request_error", None, {})
NOT_ALLOWED = Row(405, "invalid_request_error", None, {})
TOO_LARGE = Row(413, "invalid_request_error", "request_too_large", {})
UNKNOWN_CODING = Row(415, "invalid_request_error", "unsupported_content_encoding", {})
WEBSOCKET = Row(426, "invalid_request_error", "websocket_not_supported", {})
UNREACHABLE = Row(502, "upstream_error", "upstream_unreachable", {})
NONSENSE = Row(502, "upstream_error", "upstream_protocol_error", {})
TOO_SLOW = Row(504, "upstream_error", "upstream_timeout", {})
OVERLOADED = Row(503, "server_error", "overloaded", {"retry-after": "1"})

RECEIPT = {"x-gateway-overhead-ms", "x-gateway-queue-ms", "x-gateway-upstream"}
ALLOWED_HEADERS = RECEIPT | {
    "content-type",
    "content-length",
    "x-request-id",
    "x-gateway-request-id",
    "connection",
    "allow",
}


def assert_refused(answer: Answer, row: Row) -> str:
    """The message, once all else is as `row` says."""
    error = answer.error
    assert (answer.status, error["type"], error["code"]) == (row.status, row.type, row.code), error
    assert answer.end == "complete"
    assert answer.header("x-request-id") == answer.header("x-gateway-request-id")
    assert (answer.header("x-request-id") or "").startswith("req_")
    assert {name: answer.header(name) for name in row.headers} == row.headers
    assert {name for name, _ in answer.headers} <= ALLOWED_HEADERS | set(row.headers)
    message = str(error["message"])
    assert message.rstrip().endswith(".")
    assert UPSTREAM_KEY not in message
    assert KEY not in message
    return message


@asynccontextmanager
async def one_gateway(*scripts: Script, **sections: Any) -> AsyncIterator[tuple[WireUpstream, RunningGateway]]:
    async with WireUpstream(*(scripts or (OK,))) as upstream:
        with running_gateway(f"{upstream.url}/v1", **sections) as gateway:
            yield upstream, gateway
