"""What goes wrong reaches openai-python's user as the right exception, and is retried only when it may be."""

import json
import socket
from collections.abc import Iterable, Iterator
from typing import Any

import openai
import pytest
from openai import AsyncOpenAI, OpenAI
from openai.types.chat import ChatCompletionMessageParam

from tests.clients.conftest import MODEL, TIMEOUT_S
from tests.support.gateway import KEY, RunningGateway, running_gateway
from tests.support.wire import Script, WireUpstream, reply

HELLO: list[ChatCompletionMessageParam] = [{"role": "user", "content": "Hello!"}]
JSON = (b"Content-Type", b"application/json")


def facts(error: openai.APIStatusError) -> tuple[int, str | None, str | None, str | None]:
    """Status, type, param and code; every error must also have a message and an id that can be asked about."""
    assert error.request_id
    assert error.request_id.startswith("req_")
    assert isinstance(error.body, dict)
    assert set(error.body) == {"message", "type", "param", "code"}
    assert error.body["message"]
    return error.status_code, error.type, error.param, error.code


def ask(client: OpenAI, simulate: str = "", **more: Any) -> Any:
    headers = {"x-simulate": simulate} if simulate else {}
    return client.chat.completions.create(model=MODEL, messages=HELLO, extra_headers=headers, **more)


def post(client: OpenAI, body: object) -> object:
    """What the typed methods would not send."""
    return client.post("/chat/completions", body=body, cast_to=object)


def test_a_wrong_key_is_an_authentication_error_and_upstream_is_not_asked(
    client: OpenAI, gateway: RunningGateway
) -> None:
    with pytest.raises(openai.AuthenticationError) as caught:
        ask(client.with_options(api_key="sk-wrong-0123456789", max_retries=2))
    assert facts(caught.value) == (401, "invalid_request_error", None, "invalid_api_key")
    assert caught.value.response.headers["x-should-retry"] == "false"
    (record,) = gateway.wait_for_records(1)
    assert (record.outcome, record.principal, record.upstream_request_id) == ("refused", None, None)


def test_an_unknown_model_is_upstream_s_own_not_found_error(client: OpenAI, gateway: RunningGateway) -> None:
    with pytest.raises(openai.NotFoundError) as caught:
        client.models.retrieve("openai/gpt-0")
    assert facts(caught.value) == (404, "invalid_request_error", None, "model_not_found")
    (record,) = gateway.wait_for_records(1)
    assert (record.outcome, record.upstream_request_id) == ("upstream_error", caught.value.request_id)


def test_an_unknown_url_is_a_not_found_error_that_names_it(client: OpenAI) -> None:
    with pytest.raises(openai.NotFoundError, match=r"Invalid URL \(POST /v1/organization/projects\)") as caught:
        client.post("/organization/projects", body={}, cast_to=object)
    assert facts(caught.value) == (404, "invalid_request_error", None, None)


@pytest.mark.parametrize(
    ("body", "param", "code"),
    [
        ({"model": MODEL}, "messages", "missing_required_parameter"),  # upstream's
        ({"model": 7, "messages": HELLO}, "model", None),  # the gateway's
        ({"model": MODEL, "messages": HELLO, "stream": "yes"}, "stream", None),
        ({"model": MODEL, "Model": "other", "messages": HELLO}, "model", None),
    ],
)
def test_a_bad_request_is_one_whoever_refuses_it(
    client: OpenAI, body: object, param: str | None, code: str | None
) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        post(client, body)
    assert facts(caught.value) == (400, "invalid_request_error", param, code)


def test_a_rate_limit_of_upstream_keeps_its_retry_after(client: OpenAI, gateway: RunningGateway) -> None:
    with pytest.raises(openai.RateLimitError) as caught:
        ask(client, "status=429;retry-after=7;retry-after-ms=6800")
    assert facts(caught.value) == (429, "requests", None, "rate_limit_exceeded")
    assert caught.value.response.headers["retry-after"] == "7"
    assert caught.value.response.headers["retry-after-ms"] == "6800"
    assert len(gateway.wait_for_records(1)) == 1


@pytest.mark.parametrize("status", [500, 503, 529])
def test_a_failure_of_upstream_is_passed_on_once(client: OpenAI, gateway: RunningGateway, status: int) -> None:
    with pytest.raises(openai.InternalServerError) as caught:
        ask(client, f"status={status}", stream=True)
    assert facts(caught.value) == (status, "server_error", None, None)
    (record,) = gateway.wait_for_records(1)
    assert (record.status, record.outcome) == (status, "upstream_error")


@pytest.fixture
def unreachable() -> Iterator[str]:
    """The base URL of a port that is bound but does not listen."""
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        yield f"http://127.0.0.1:{bound.getsockname()[1]}/v1"


def test_an_upstream_that_cannot_be_reached_is_a_502_that_says_so(unreachable: str) -> None:
    with running_gateway(unreachable) as gateway, connected(gateway) as client:  # noqa: SIM117 - one can fail, one not
        with pytest.raises(openai.InternalServerError) as caught:
            ask(client)
    assert facts(caught.value) == (502, "upstream_error", None, "upstream_unreachable")


@pytest.mark.parametrize(("stall", "phase"), [("headers", "headers"), ("first-byte", "first_byte")])
@pytest.mark.parametrize("stream", [False, True])
def test_an_upstream_that_does_not_begin_is_a_504(simulator: str, stall: str, phase: str, stream: bool) -> None:
    with running_gateway(simulator, upstream={"first_byte_timeout_s": 0.2}) as gateway, connected(gateway) as client:
        with pytest.raises(openai.InternalServerError) as caught:
            ask(client, f"stall={stall}", stream=stream)
        assert facts(caught.value) == (504, "upstream_error", None, "upstream_timeout")
        (record,) = gateway.wait_for_records(1)
    assert (record.status, record.outcome, record.upstream_error) == (504, "failed", f"timeout_{phase}")


def test_a_client_that_gives_up_gets_its_timeout_and_its_call_is_cancelled(
    client: OpenAI, gateway: RunningGateway
) -> None:
    with pytest.raises(openai.APITimeoutError):
        ask(client.with_options(timeout=0.2), "stall=headers")
    (record,) = gateway.wait_for_records(1)
    assert (record.outcome, record.status) == ("client_left", 0)


def connected(gateway: RunningGateway, **options: Any) -> OpenAI:
    return OpenAI(base_url=gateway.api, api_key=KEY, **{"max_retries": 0, "timeout": TIMEOUT_S, **options})


# Errors within a stream.


def test_an_error_that_upstream_puts_into_a_chat_stream_is_raised_as_it_came(
    client: OpenAI, gateway: RunningGateway
) -> None:
    stream = ask(client, "fail=3", stream=True)
    with pytest.raises(openai.APIError, match="The server had an error while processing") as caught:
        list(stream)
    assert not isinstance(caught.value, openai.APIStatusError)
    (record,) = gateway.wait_for_records(1)
    assert (record.status, record.outcome) == (200, "upstream_error")


def test_an_error_that_upstream_puts_into_a_responses_stream_reaches_the_user(client: OpenAI) -> None:
    headers = {"x-simulate": "fail=3"}
    events = list(client.responses.create(model=MODEL, input="Hi", stream=True, extra_headers=headers))
    last = events[-1]
    assert last.type == "error"
    assert (last.code, last.sequence_number) == ("server_error", 3)


ENDS = ["cut=2600", "reset=2600", "cut=2601", "reset=3500", "cut=3500;drip=5"]


def read_to_the_error(stream: Iterable[Any]) -> tuple[list[Any], openai.APIError]:
    """What a stream gave before it raised; it must raise."""
    seen: list[Any] = []
    try:
        seen += stream
    except openai.APIError as error:
        return seen, error
    raise AssertionError(f"the stream ended as if it were complete, with {seen[-1:]}")


@pytest.mark.parametrize("end", ENDS)
def test_a_chat_stream_that_breaks_off_is_raised_and_does_not_look_finished(
    client: OpenAI, gateway: RunningGateway, end: str
) -> None:
    seen, error = read_to_the_error(ask(client, f"{end};chunks=200", stream=True))
    assert seen
    assert all(choice.finish_reason is None for chunk in seen for choice in chunk.choices)
    assert (error.code, error.type) == ("upstream_unreachable", "upstream_error")
    (record,) = gateway.wait_for_records(1)
    assert (record.status, record.outcome, record.upstream_error) == (200, "cut", "broken")


@pytest.mark.parametrize("end", ENDS)
def test_a_responses_stream_that_breaks_off_is_raised_and_does_not_look_finished(client: OpenAI, end: str) -> None:
    headers = {"x-simulate": f"{end};chunks=200"}
    stream = client.responses.create(model=MODEL, input="Hi", stream=True, extra_headers=headers)
    seen, error = read_to_the_error(stream)
    assert seen
    assert "response.completed" not in [event.type for event in seen]
    assert "broke off the connection" in error.message


async def test_the_async_helpers_raise_on_a_stream_that_breaks_off(async_client: AsyncOpenAI) -> None:
    headers = {"x-simulate": "cut=1500;chunks=200"}
    with pytest.raises(openai.APIError, match="broke off the connection"):
        async with async_client.chat.completions.stream(model=MODEL, messages=HELLO, extra_headers=headers) as chat:
            await chat.get_final_completion()
    with pytest.raises(openai.APIError, match="broke off the connection"):
        async with async_client.responses.stream(model=MODEL, input="Hi", extra_headers=headers) as response:
            await response.get_final_response()


def test_a_stream_that_falls_silent_is_raised_as_a_timeout_of_upstream(simulator: str) -> None:
    with running_gateway(simulator, upstream={"idle_timeout_s": 0.2}) as gateway, connected(gateway) as client:
        stream = ask(client, "stall=1500;chunks=200", stream=True)
        with pytest.raises(openai.APIError, match="fell silent") as caught:
            list(stream)
    assert caught.value.code == "upstream_timeout"


def test_a_plain_reply_that_breaks_off_is_a_bad_gateway(client: OpenAI, gateway: RunningGateway) -> None:
    with pytest.raises(openai.InternalServerError) as caught:
        ask(client, "cut=100;drip=50")
    assert (caught.value.status_code, caught.value.code) == (502, "upstream_unreachable")
    (record,) = gateway.wait_for_records(1)
    assert record.outcome == "failed"


# Retries.


ERROR = json.dumps({"error": {"message": "No.", "type": "server_error", "param": None, "code": None}}).encode()
DONE = reply(200, [JSON], b'{"id":"chatcmpl-1","object":"chat.completion","created":1,"model":"m","choices":[]}')


async def requests_made(*scripts: Script) -> tuple[int, int]:
    """How many requests upstream and the gateway saw of a client that may retry twice."""
    async with WireUpstream(*scripts) as upstream:
        with running_gateway(f"{upstream.url}/v1") as gateway:
            async with AsyncOpenAI(base_url=gateway.api, api_key=KEY, max_retries=2, timeout=TIMEOUT_S) as client:
                try:
                    await client.chat.completions.create(model=MODEL, messages=HELLO)
                except openai.APIStatusError as error:
                    assert error.type == "server_error"  # noqa: PT017 - whether it fails is each test's to say
            return len(upstream.requests), len(gateway.records)


def failing(status: int, *headers: tuple[bytes, bytes]) -> bytes:
    return reply(status, [JSON, *headers], ERROR)


@pytest.mark.parametrize("status", [409, 429, 500, 503])
async def test_a_client_is_told_not_to_retry_and_does_not(status: int) -> None:
    assert await requests_made(failing(status, (b"x-should-retry", b"false"))) == (1, 1)


@pytest.mark.parametrize("status", [409, 429, 500, 503])
async def test_a_client_retries_after_the_time_that_upstream_names(status: int) -> None:
    soon = failing(status, (b"retry-after-ms", b"1"))
    assert await requests_made(soon, soon, DONE) == (3, 3)


async def test_a_client_retries_what_upstream_says_may_be_retried() -> None:
    again = failing(400, (b"x-should-retry", b"true"), (b"retry-after-ms", b"1"))
    assert await requests_made(again, DONE) == (2, 2)


async def test_the_gateway_itself_retries_no_reply() -> None:
    assert await requests_made(failing(400), DONE) == (1, 1)
