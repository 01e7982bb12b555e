"""The description of the API at /docs."""

import json
import re
from typing import Any

import httpx2
import pytest

from gateway.http.routes import ROUTES
from tests.clients.page import Example, examples
from tests.support.gateway import running_gateway

PATHS = {"chat": "/v1/chat/completions", "responses": "/v1/responses"}
CURL = [example for example in examples() if example.language == "curl"]


@pytest.fixture(scope="module")
def schema() -> Any:
    with running_gateway("http://127.0.0.1:9/v1") as gateway:
        return httpx2.get(f"{gateway.url}/openapi.json").json()


def body_of(example: Example) -> Any:
    found = re.search(r"-d '(.*)'", example.code, re.DOTALL)
    assert found is not None
    return json.loads(found[1])


@pytest.mark.parametrize("example", CURL, ids=str)
def test_the_bodies_of_the_api_page_are_shown_with_their_route(schema: Any, example: Example) -> None:
    content = schema["paths"][PATHS[example.api]]["post"]["requestBody"]["content"]["application/json"]
    assert content["examples"][example.kind]["value"] == body_of(example)


def test_every_mirrored_route_is_described_with_its_key_and_errors(schema: Any) -> None:
    for route in ROUTES:
        operation = schema["paths"][route.path][route.method.lower()]
        assert operation["security"] == [{"key": []}]
        assert {"200", "default"} <= set(operation["responses"])


def test_operations_have_names_of_their_own(schema: Any) -> None:
    names = [operation["operationId"] for path in schema["paths"].values() for operation in path.values()]
    assert len(names) == len(set(names))


def test_the_docs_page_shows_it() -> None:
    with running_gateway("http://127.0.0.1:9/v1") as gateway:
        page = httpx2.get(f"{gateway.url}/docs")
    assert page.status_code == 200
    assert "/openapi.json" in page.text
