"""What a key may use: models, groups of routes, networks; the key's own grants and its team's must both allow it."""

from collections.abc import Iterator
from typing import Any

import httpx2
import pytest

from gateway.simulator import running_simulator
from tests.support.gateway import RunningGateway, running_gateway

SECRETS = {name: f"sk-test-of-{name}-0123456789" for name in ("free", "mini", "chat", "near", "far", "alias", "none")}
GRANTS: dict[str, dict[str, Any]] = {
    "free": {},
    "mini": {"models": ["openai/*-mini"]},
    "chat": {"routes": ["chat"]},
    "near": {"networks": ["127.0.0.0/8"]},
    "far": {"networks": ["192.0.2.0/24", "2001:db8::/32"]},
    "alias": {"models": ["fast"]},
    "none": {"models": []},
}
KEYS = [{"name": name, "team": "core", "secret": SECRETS[name], **grants} for name, grants in GRANTS.items()]
ALIASES = {"fast": "openai/gpt-5.2", "small": "openai/gpt-5.2-mini"}


@pytest.fixture(scope="module")
def gateway() -> Iterator[RunningGateway]:
    with (
        running_simulator() as url,
        running_gateway(
            url, keys=KEYS, models={"aliases": ALIASES}, server={"trusted_proxies": ["127.0.0.0/8"]}
        ) as running,
    ):
        yield running


def call(gateway: RunningGateway, name: str, method: str, path: str, **content: Any) -> httpx2.Response:
    headers = {"Authorization": f"Bearer {SECRETS[name]}", **content.pop("headers", {})}
    return httpx2.request(method, f"{gateway.api}/{path}", headers=headers, trust_env=False, timeout=10, **content)


def chat(gateway: RunningGateway, name: str, model: str | None, **content: Any) -> httpx2.Response:
    body = {"messages": [{"role": "user", "content": "Hi"}], **({} if model is None else {"model": model})}
    return call(gateway, name, "POST", "chat/completions", json=body, **content)


def code(response: httpx2.Response) -> str | None:
    found: str | None = response.json()["error"]["code"]
    return found


def test_a_model_that_is_not_granted_is_403(gateway: RunningGateway) -> None:
    assert chat(gateway, "mini", "openai/gpt-5.2-mini").status_code == 200
    refused = chat(gateway, "mini", "openai/gpt-5.2")
    assert (refused.status_code, code(refused)) == (403, "model_not_allowed")
    assert "gpt-5.2" in refused.json()["error"]["message"]


def test_an_alias_may_be_granted_by_its_own_name_or_by_its_targets(gateway: RunningGateway) -> None:
    assert chat(gateway, "mini", "small").status_code == 200
    assert chat(gateway, "mini", "fast").status_code == 403
    assert chat(gateway, "alias", "fast").status_code == 200
    assert chat(gateway, "alias", "small").status_code == 403


def test_who_may_use_no_model_or_some_must_name_one(gateway: RunningGateway) -> None:
    assert chat(gateway, "free", None).status_code == 400  # upstream's own refusal
    for name in ("mini", "none"):
        assert code(chat(gateway, name, None)) == "model_not_allowed"


def test_the_model_of_a_form_is_checked_as_that_of_json_is(gateway: RunningGateway) -> None:
    def edited(name: str, **fields: str) -> httpx2.Response:
        files = {"image": ("a.png", b"x", "image/png")}
        return call(gateway, name, "POST", "images/edits", data={"prompt": "a cat", **fields}, files=files)

    assert edited("free").status_code == 200
    assert edited("mini", model="openai/gpt-5.2-mini").status_code == 200
    assert edited("mini").status_code == 400
    for name, model in (("mini", "openai/gpt-5.2"), ("mini", "small"), ("alias", "fast"), ("none", "openai/gpt-5.2")):
        assert code(edited(name, model=model)) == "model_not_allowed", (name, model)


def test_models_that_are_hidden_in_a_batch_are_for_keys_that_may_use_all(gateway: RunningGateway) -> None:
    batch = {"input_file_id": "file-1", "endpoint": "/v1/chat/completions", "completion_window": "24h"}
    assert code(call(gateway, "mini", "POST", "batches", json=batch)) == "model_not_allowed"


def test_the_model_of_a_tool_is_checked_as_that_of_the_request_is(gateway: RunningGateway) -> None:
    def with_tool(name: str, **tool: str) -> httpx2.Response:
        body = {"model": "openai/gpt-5.2-mini", "input": "Hi", "tools": [{"type": "image_generation", **tool}]}
        return call(gateway, name, "POST", "responses", json=body)

    assert with_tool("free", model="openai/gpt-image-1").status_code == 200
    assert with_tool("free").status_code == 200
    assert with_tool("mini", model="openai/gpt-image-1-mini").status_code == 200
    for tool in ({"model": "openai/gpt-image-1"}, {"model": "small"}, {}):
        assert code(with_tool("mini", **tool)) == "model_not_allowed", tool


def test_a_key_is_shown_the_models_that_it_may_use(gateway: RunningGateway) -> None:
    def listed(name: str) -> set[str]:
        return {model["id"] for model in call(gateway, name, "GET", "models").json()["data"]}

    everything = listed("free")
    assert {"fast", "small", "openai/gpt-5.2"} <= everything
    assert listed("mini") == {name for name in everything if name.endswith("-mini")} | {"small"}
    assert listed("alias") == {"fast"}
    assert listed("none") == set()
    assert call(gateway, "mini", "GET", "models/openai%2Fgpt-5.2").status_code == 403
    assert call(gateway, "alias", "GET", "models/fast").status_code == 200


def test_a_group_of_routes_that_is_not_granted_is_403(gateway: RunningGateway) -> None:
    assert chat(gateway, "chat", "openai/gpt-5.2").status_code == 200
    for path in ("responses", "files", "models", "batches"):
        refused = call(gateway, "chat", "GET", path + ("/resp_1" if path == "responses" else ""))
        assert (refused.status_code, code(refused)) == (403, "route_not_allowed"), path


def test_a_network_that_is_not_granted_is_403(gateway: RunningGateway) -> None:
    assert chat(gateway, "near", "openai/gpt-5.2").status_code == 200
    refused = chat(gateway, "far", "openai/gpt-5.2")
    assert (refused.status_code, code(refused)) == (403, "network_not_allowed")


@pytest.mark.parametrize(
    ("forwarded", "near", "far"),
    [
        ("192.0.2.7", 403, 200),
        ("127.0.0.1, 192.0.2.7", 403, 200),
        ("192.0.2.7, 198.51.100.1", 403, 403),
        ("2001:db8::1", 403, 200),
        ("nonsense", 200, 403),
    ],
)
def test_behind_trusted_proxies_the_address_is_what_they_say(
    gateway: RunningGateway, forwarded: str, near: int, far: int
) -> None:
    headers = {"X-Forwarded-For": forwarded}
    statuses = [chat(gateway, name, "openai/gpt-5.2", headers=headers).status_code for name in ("near", "far")]
    assert statuses == [near, far]


def test_a_refused_call_never_reaches_upstream(gateway: RunningGateway) -> None:
    for _ in range(3):  # the head of the third came before
        assert chat(gateway, "mini", "openai/gpt-5.2-mini").status_code == 200
        assert chat(gateway, "mini", "openai/gpt-5.2").status_code == 403
    assert all(record.sent_bytes and record.upstream_error is None for record in gateway.records)
