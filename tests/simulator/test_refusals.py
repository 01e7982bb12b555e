"""Errors in OpenAI's shape, row by row."""

import pytest
import requests

from gateway.simulator import running_simulator
from tests.simulator.conftest import MODEL

HI = [{"role": "user", "content": "Hi"}]


def refused(reply: requests.Response) -> tuple[int, str, str | None, str | None]:
    assert reply.headers["content-type"] == "application/json"
    assert reply.headers["x-request-id"].startswith("req_")
    error = reply.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert error["message"]
    return reply.status_code, error["type"], error["param"], error["code"]


@pytest.mark.parametrize(
    ("path", "body", "status", "param", "code"),
    [
        ("chat/completions", b"{", 400, None, None),
        ("chat/completions", b'{"tools":[' + b'{"a":' * 5000, 400, None, None),
        ("chat/completions", b'{"model":"\\ud800"}', 400, None, None),
        ("chat/completions", b"{}", 400, None, "missing_required_parameter"),
        ("chat/completions", b'{"model":"simulated"}', 400, "messages", "missing_required_parameter"),
        ("chat/completions", b'{"model":"simulated","messages":[]}', 400, "messages", "empty_array"),
        ("chat/completions", b'{"model":7}', 400, "model", "invalid_type"),
        ("chat/completions", b'{"model":"gpt-0","messages":[]}', 404, None, "model_not_found"),
        ("responses", b'{"model":"simulated"}', 400, "input", "missing_required_parameter"),
        ("responses", b'{"model":"gpt-0","input":""}', 404, None, "model_not_found"),
        (
            "responses",
            b'{"model":"simulated","input":"","max_output_tokens":1}',
            400,
            "max_output_tokens",
            "integer_below_min_value",
        ),
        ("files", b"", 400, None, "invalid_content_type"),
        ("nothing/here", b"{}", 404, None, None),
        ("models", b"{}", 405, None, "method_not_supported"),
    ],
)
def test_a_bad_request_gets_the_error_that_fits(
    url: str, path: str, body: bytes, status: int, param: str | None, code: str | None
) -> None:
    expected = (status, "invalid_request_error", param, code)
    assert refused(requests.post(f"{url}/{path}", data=body, timeout=10)) == expected


def test_an_unknown_url_is_named(url: str) -> None:
    reply = requests.post(f"{url}/x", timeout=10)
    assert reply.json()["error"]["message"] == "Invalid URL (POST /v1/x)"


@pytest.mark.parametrize(
    ("authorization", "code"),
    [(None, None), ("Basic eA==", None), ("Bearer sk-wrong-wrong-wrong", "invalid_api_key")],
)
def test_with_a_key_set_another_is_refused(authorization: str | None, code: str | None) -> None:
    headers = {"authorization": authorization} if authorization else {}
    with running_simulator(api_key="sk-right") as url:
        reply = requests.get(f"{url}/models", headers=headers, timeout=10)
        assert refused(reply) == (401, "invalid_request_error", None, code)
        right = requests.get(f"{url}/models", headers={"authorization": "Bearer sk-right"}, timeout=10)
        assert right.status_code == 200


def test_every_reply_bears_the_headers_of_the_real_one(url: str) -> None:
    body = {"model": MODEL, "messages": HI}
    headers = requests.post(f"{url}/chat/completions", json=body, timeout=10).headers
    assert headers["x-simulated"] == "true"
    expected = {
        "openai-organization",
        "openai-processing-ms",
        "openai-version",
        "x-ratelimit-limit-requests",
        "x-ratelimit-remaining-tokens",
        "set-cookie",
        "server",
        "alt-svc",
        "strict-transport-security",
        "date",
    }
    assert expected <= {name.lower() for name in headers}


def test_request_ids_are_never_used_twice(url: str) -> None:
    ids = {requests.get(f"{url}/models", timeout=10).headers["x-request-id"] for _ in range(5)}
    assert len(ids) == 5
