"""The description of the admin API at /docs."""

import re
from typing import Any

import httpx2
import pytest

from gateway.http.admin.requests import KeyCreate, KeyUpdate, ResetLimits, Rotate, TeamCreate, TeamUpdate
from tests.http.admin_server import AdminServer
from tests.http.test_admin import ROUTES

METHODS = {"get", "post", "patch"}


@pytest.fixture
def schema(server: AdminServer) -> Any:
    return httpx2.get(f"{server.url}/openapi.json", trust_env=False).json()


def operations(schema: Any) -> dict[tuple[str, str], Any]:
    return {
        (method.upper(), path.removeprefix("/admin/v1")): operation
        for path, item in schema["paths"].items()
        for method, operation in item.items()
    }


def test_every_route_is_described_and_no_other(schema: Any) -> None:
    described = {(method, re.sub(r"\{\w+_id\}", "x", path)) for method, path in operations(schema)}
    assert described == set(ROUTES)


def test_every_operation_says_what_it_is_wants_a_key_and_may_fail(schema: Any) -> None:
    found = operations(schema)
    for operation in found.values():
        assert operation["summary"]
        assert operation["description"]
        assert operation["security"] == [{"key": []}]
        assert "default" in operation["responses"]
        assert "422" not in operation["responses"]
    names = [operation["operationId"] for operation in found.values()]
    assert len(names) == len(set(names))


def test_the_key_is_described(schema: Any) -> None:
    assert schema["components"]["securitySchemes"]["key"] == {"type": "http", "scheme": "bearer"}


def test_creates_and_changes_say_that_they_can_be_repeated_and_conditional(schema: Any) -> None:
    for (method, path), operation in operations(schema).items():
        headers = {each["name"].lower() for each in operation.get("parameters", ()) if each["in"] == "header"}
        is_create = method == "POST" and path in ("/teams", "/keys")
        is_change = ("{" in path or path == "/me/rotate") and method != "GET"
        assert headers == ({"idempotency-key"} if is_create else {"if-match"} if is_change else set()), path


@pytest.mark.parametrize("model", [TeamCreate, TeamUpdate, KeyCreate, KeyUpdate, Rotate, ResetLimits])
def test_the_examples_of_a_body_are_valid(model: Any) -> None:
    examples = model.model_json_schema()["examples"]
    assert examples
    for example in examples:
        model.model_validate(example)


def test_unknown_members_are_not_valid_by_the_description_either(schema: Any) -> None:
    for model in (TeamCreate, TeamUpdate, KeyCreate, KeyUpdate, Rotate, ResetLimits):
        assert schema["components"]["schemas"][model.__name__]["additionalProperties"] is False
