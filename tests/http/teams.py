"""Two teams in front of one simulated account, and what they can make there."""

import itertools
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import httpx2
import pytest
from openai import OpenAI

from gateway.access import ownership
from gateway.simulator import running_simulator
from tests.support.gateway import UPSTREAM_KEY, RunningGateway, running_gateway

MODEL = "openai/gpt-5.2"
ADA, BOB, EVE = ("sk-test-ada-0123456789", "sk-test-bob-0123456789", "sk-test-eve-0123456789")
KEYS = [
    {"name": "ada", "team": "engines", "secret": ADA},
    {"name": "bob", "team": "engines", "secret": BOB},
    {"name": "eve", "team": "others", "secret": EVE},
]
_count = itertools.count()


@dataclass(frozen=True, slots=True)
class World:
    """A gateway in front of a simulator, which tells what reached it. `opened` is closed with it."""

    gateway: RunningGateway
    http: httpx2.Client
    upstream: str
    opened: ExitStack

    def ask(self, key: str, method: str, path: str, **what: Any) -> httpx2.Response:
        headers = {"Authorization": f"Bearer {key}", **what.pop("headers", {})}
        return self.http.request(method, f"{self.gateway.api}/{path}", headers=headers, **what)

    def make(self, key: str, path: str, body: dict[str, Any]) -> str:
        answer = self.ask(key, "POST", path, json=body)
        assert answer.status_code == 200, answer.text
        return str(answer.json()["id"])

    def seen(self) -> int:
        """How many requests have reached upstream."""
        return int(self.http.get(f"{self.upstream}/_seen").json()["total"])

    def client(self, key: str) -> OpenAI:
        """One that is closed with the world.

        Left to the garbage collector it may lose its socket first, which then complains in another test.
        """
        return self.opened.enter_context(OpenAI(base_url=self.gateway.api, api_key=key, max_retries=0))


@contextmanager
def impatient() -> Iterator[None]:
    """All that is asked for was made here, so that nobody need wait for another node."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ownership, "_REFUSE_AFTER_S", 0.0)
        yield


@contextmanager
def two_teams(**access: Any) -> Iterator[World]:
    """Ada and Bob are of one team, Eve of the other."""
    with (
        impatient(),
        running_simulator(api_key=UPSTREAM_KEY) as base_url,
        httpx2.Client(timeout=10) as http,
        running_gateway(base_url, keys=KEYS, access=access) as gateway,
        ExitStack() as opened,
    ):
        yield World(gateway, http, base_url.removesuffix("/v1"), opened)


async def asked(gateway: RunningGateway, key: str, method: str, path: str, **what: Any) -> httpx2.Response:
    """The answer to one call, for tests on a loop."""
    async with httpx2.AsyncClient(timeout=10) as http:
        headers = {"Authorization": f"Bearer {key}"}
        return await http.request(method, f"{gateway.api}/{path}", headers=headers, **what)


def is_refused(answer: httpx2.Response) -> bool:
    """Whether the gateway itself says that there is no such object."""
    return answer.status_code == 404 and answer.json()["error"]["message"].startswith("No such object, or it is not")


def text() -> str:
    """Another one each time: the simulator answers equal requests with equal ids."""
    return f"Say {next(_count)}"


def a_response(world: World, key: str, **more: Any) -> str:
    return world.make(key, "responses", {"model": MODEL, "input": text(), **more})


def a_completion(world: World, key: str, **more: Any) -> str:
    messages = [{"role": "user", "content": text()}]
    return world.make(key, "chat/completions", {"model": MODEL, "messages": messages, "store": True, **more})


def a_conversation(world: World, key: str) -> str:
    return world.make(key, "conversations", {"items": [{"type": "message", "role": "user", "content": text()}]})


def a_file(world: World, key: str, purpose: str = "batch") -> str:
    files = {"file": (text(), b"{}\n")}
    answer = world.ask(key, "POST", "files", files=files, data={"purpose": purpose})
    return str(answer.json()["id"])


def an_upload(world: World, key: str) -> str:
    body = {"bytes": 3, "filename": text(), "mime_type": "text/plain", "purpose": "batch"}
    return world.make(key, "uploads", body)


def a_batch(world: World, key: str) -> str:
    body = {"input_file_id": a_file(world, key), "endpoint": "/v1/responses", "completion_window": "24h"}
    return world.make(key, "batches", body)


def a_vector_store(world: World, key: str) -> str:
    return world.make(key, "vector_stores", {"name": text()})


MAKERS: dict[str, Callable[[World, str], str]] = {
    "response_id": a_response,
    "completion_id": a_completion,
    "conversation_id": a_conversation,
    "file_id": a_file,
    "upload_id": an_upload,
    "batch_id": a_batch,
    "vector_store_id": a_vector_store,
}
