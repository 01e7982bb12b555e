"""What whoever runs the gateway finds out of a call that was refused: who it was, and what was asked for."""

from collections.abc import Iterator

import httpx2
import pytest

from gateway.access.keys import new_secret
from gateway.call import CallRecord
from tests.support.gateway import KEY, RunningGateway, running_gateway

NARROW = "sk-test-of-narrow-0123456789"
KEYS = [
    {"name": "ada", "team": "engines", "secret": KEY},
    {"name": "bob", "team": "engines", "secret": NARROW, "models": ["openai/gpt-5.2-mini"]},
]


@pytest.fixture(scope="module")
def gateway() -> Iterator[RunningGateway]:
    server = {"trusted_proxies": ["127.0.0.0/8"]}
    with running_gateway("http://127.0.0.1:9/v1", keys=KEYS, server=server) as running:
        yield running


def refused(
    gateway: RunningGateway, secret: str | None, model: str = "m", path: str = "/v1/chat/completions", **headers: str
) -> tuple[CallRecord, str]:
    """The record of one refused call, and the detail that goes with it."""
    seen: list[tuple[CallRecord, str]] = []
    gateway.ask(lambda: gateway.app.proxy.settlement.add_observer(seen.extend))
    headers |= {} if secret is None else {"Authorization": f"Bearer {secret}"}
    httpx2.post(f"{gateway.url}{path}", json={"model": model}, headers=headers, trust_env=False)
    return seen[0]


@pytest.mark.parametrize(
    ("secret", "why"),
    [("sk-gw-nonsense", "malformed key"), (new_secret(), "no such key, or it has ended")],
    ids=["malformed", "unknown"],
)
def test_where_a_wrong_key_came_from_is_told(gateway: RunningGateway, secret: str, why: str) -> None:
    record, detail = refused(gateway, secret, **{"X-Forwarded-For": "203.0.113.7"})
    assert (record.status, detail) == (401, f"{why}, from 203.0.113.7")


@pytest.mark.parametrize(
    ("path", "shown"),
    [
        ("/v1/chat/completion", "/v1/chat/completion"),
        ("/responses/x1/y", "/responses/x1/y"),
        ("/v1/sk-short-key1/models", "/v1/sk-***/models"),
        ("/v1/chat/0123456789abcdef0123456789abcdef", "/v1/chat/***"),
        ("/v1/model/%73k-0123456789abcdef", "/v1/model/***"),
    ],
)
def test_a_wrong_url_is_in_the_log_without_what_looks_like_a_key_and_with_who_asked(
    gateway: RunningGateway, path: str, shown: str
) -> None:
    bob = refused(gateway, NARROW, "openai/gpt-5.2")[0].principal
    assert bob is not None
    for secret, who in ((NARROW, f", by {bob.key_id}"), ("sk-gw-nonsense", ""), (None, "")):
        record, detail = refused(gateway, secret, path=path)
        assert (record.status, record.principal) == (404, None)
        assert detail == f"POST {shown}{who}, from 127.0.0.1"


def test_the_model_that_a_key_may_not_use_is_in_the_record(gateway: RunningGateway) -> None:
    record, _ = refused(gateway, NARROW, "openai/gpt-5.2")
    assert (record.status, record.error, record.model) == (403, "model_not_allowed", "openai/gpt-5.2")
