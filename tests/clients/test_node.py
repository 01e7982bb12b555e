"""openai-node of two major versions, driven through a list of scenes; what its user sees is judged here."""

import json
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from gateway.call import CallRecord
from tests.clients.conftest import ALIAS, MODEL
from tests.support.gateway import KEY, running_gateway

DRIVER = Path(__file__).parent / "drive.mjs"
Error = dict[str, Any]


@dataclass(frozen=True)
class Drive:
    """What each scene showed, and the gateway's records of all of them."""

    shown: dict[str, Any]
    records: list[CallRecord]


@pytest.fixture(scope="module", params=["openai", "openai6"])
def drive(request: pytest.FixtureRequest, node: str, simulator: str) -> Iterator[Drive]:
    with running_gateway(simulator, models={"aliases": {ALIAS: MODEL}}) as gateway:
        done = subprocess.run(
            [node, str(DRIVER), request.param, gateway.api],
            env={"OPENAI_API_KEY": KEY},
            capture_output=True,
            encoding="utf-8",
            timeout=60,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        yield Drive(json.loads(done.stdout), gateway.records)


@pytest.fixture
def shown(drive: Drive) -> dict[str, Any]:
    return drive.shown


def facts(error: Error) -> tuple[int, str | None, str | None, str | None]:
    assert error["isAPIError"]
    assert error["requestID"].startswith("req_")
    return error["status"], error["type"], error["param"], error["code"]


def text(stream: dict[str, Any]) -> str:
    """The text of a chat stream, which must have ended well."""
    assert stream["error"] is None
    assert stream["items"][-1][1] == "stop"
    return "".join(content or "" for content, _ in stream["items"])


def test_chat_is_answered_plain_streamed_and_by_the_helper(shown: dict[str, Any]) -> None:
    plain = shown["chat"]["choices"][0]["message"]["content"]
    assert plain.startswith("[simulated]")
    assert text(shown["chatStream"]) == plain
    assert shown["chatHelper"][0]["message"]["content"] == plain
    assert shown["chatAlias"] == MODEL


def test_a_legal_but_odd_stream_says_the_same_and_more(shown: dict[str, Any]) -> None:
    assert text(shown["chatOdd"]).startswith(text(shown["chatStream"]))
    assert "東京, 🦄" in text(shown["chatOdd"])
    assert shown["responseOdd"]["error"] is None
    assert shown["responseOdd"]["items"][-1] == "response.completed"


def test_usage_is_in_the_stream_only_when_it_was_asked_for(shown: dict[str, Any]) -> None:
    assert all("usage" not in members for members in shown["chatStreamChunks"]["items"])
    *nulls, usage = shown["chatUsage"]["items"]
    assert set(nulls) == {None}
    assert usage["total_tokens"] == shown["chat"]["usage"]["total_tokens"]


def test_tools_are_called_in_both_apis(shown: dict[str, Any]) -> None:
    (called,) = shown["chatTools"]
    assert json.loads(called["function"]["arguments"]) == {"location": "[simulated]"}
    (called,) = shown["responseTools"]
    assert (called["type"], called["name"]) == ("function_call", "get_weather")


def test_responses_are_answered_plain_streamed_and_by_the_helper(shown: dict[str, Any]) -> None:
    assert shown["response"].startswith("[simulated]")
    assert shown["responseHelper"] == shown["response"]
    stream = shown["responseStream"]
    assert stream["error"] is None
    assert stream["items"][-1][0] == "response.completed"
    assert [number for _, number in stream["items"]] == list(range(len(stream["items"])))


def test_stored_responses_are_read_resumed_and_deleted(shown: dict[str, Any]) -> None:
    assert shown["responseStored"]["same"]
    assert shown["responseStored"]["gone"]["status"] == 404
    numbers = shown["responseResumed"]["items"]
    assert numbers == list(range(3, 3 + len(numbers)))


def test_models_files_and_embeddings_work(shown: dict[str, Any]) -> None:
    assert {MODEL, ALIAS} <= set(shown["models"])
    assert (shown["model"], shown["modelAlias"]) == (MODEL, MODEL)
    assert shown["file"] == {"same": True, "deleted": True}
    assert shown["embedding"] == 8


def test_both_request_ids_reach_the_user(drive: Drive) -> None:
    ids = drive.shown["requestID"]
    assert (ids["requestID"], ids["ours"]) in [(record.upstream_request_id, record.id) for record in drive.records]


@pytest.mark.parametrize(
    ("scene", "name", "expected"),
    [
        ("wrongKey", "AuthenticationError", (401, "invalid_request_error", None, "invalid_api_key")),
        ("notFound", "NotFoundError", (404, "invalid_request_error", None, "model_not_found")),
        ("unknownURL", "NotFoundError", (404, "invalid_request_error", None, None)),
        (
            "badRequest",
            "BadRequestError",
            (400, "invalid_request_error", "messages", "missing_required_parameter"),
        ),
        ("rateLimit", "RateLimitError", (429, "requests", None, "rate_limit_exceeded")),
        ("serverError", "InternalServerError", (503, "server_error", None, None)),
    ],
)
def test_an_error_is_of_its_class_and_has_its_facts(
    shown: dict[str, Any], scene: str, name: str, expected: tuple[int, str | None, str | None, str | None]
) -> None:
    assert shown[scene]["name"] == name
    assert facts(shown[scene]) == expected


def test_retry_after_reaches_the_user(shown: dict[str, Any]) -> None:
    assert shown["rateLimit"]["retryAfter"] == "7"


def test_a_timeout_is_the_clients_own(shown: dict[str, Any]) -> None:
    assert shown["timeout"]["name"] == "APIConnectionTimeoutError"


def test_an_error_that_upstream_puts_into_a_chat_stream_is_raised(shown: dict[str, Any]) -> None:
    assert len(shown["chatInBand"]["items"]) == 3
    assert shown["chatInBand"]["error"]["isAPIError"]
    assert "The server had an error while processing" in shown["chatInBand"]["error"]["message"]


def test_an_error_that_upstream_puts_into_a_responses_stream_reaches_the_user(shown: dict[str, Any]) -> None:
    """7.57 raises it; 6.49, as openai-python does, hands it out as the last item."""
    items, error = shown["responseInBand"]["items"], shown["responseInBand"]["error"]
    assert items[3:] == ["error"] if error is None else (error["isAPIError"] and len(items) == 3)


@pytest.mark.parametrize("scene", ["chatCut", "chatReset", "responseCut", "responseReset"])
def test_a_stream_that_breaks_off_is_raised_and_does_not_look_finished(shown: dict[str, Any], scene: str) -> None:
    items, error = shown[scene]["items"], shown[scene]["error"]
    assert items
    assert error["isAPIError"]
    assert error["code"] == "upstream_unreachable"
    assert "broke off the connection" in error["message"]
    last = items[-1][1] if scene.startswith("chat") else items[-1]
    assert last in (None, "response.output_text.delta")


@pytest.mark.parametrize("scene", ["chatHelperCut", "responseHelperCut"])
def test_a_helper_raises_on_a_stream_that_breaks_off(shown: dict[str, Any], scene: str) -> None:
    assert shown[scene] is not None
    assert "broke off the connection" in shown[scene]["message"]


def test_a_plain_reply_that_breaks_off_is_an_error(shown: dict[str, Any]) -> None:
    assert shown["plainCut"] is not None


def test_50_streams_at_once_each_get_their_own_text(shown: dict[str, Any]) -> None:
    assert shown["manyStreams"] == 50


def test_a_user_who_breaks_out_of_a_stream_ends_the_call(drive: Drive) -> None:
    assert drive.shown["leaver"] == "chat.completion.chunk"
    assert drive.records[-1].outcome == "client_left"


def test_no_scene_failed_otherwise(shown: dict[str, Any]) -> None:
    assert {scene: each for scene, each in shown.items() if isinstance(each, dict) and "threw" in each} == {}
