"""One simulator for all tests of it, and clients that nobody here wrote."""

from collections.abc import AsyncIterator, Iterator

import pytest
import requests
from openai import AsyncOpenAI, OpenAI

from gateway.simulator import running_simulator

MODEL = "openai/gpt-5.2"


@pytest.fixture(scope="session")
def url() -> Iterator[str]:
    with running_simulator() as base_url:
        yield base_url


@pytest.fixture(scope="session")
def client(url: str) -> Iterator[OpenAI]:
    with OpenAI(base_url=url, api_key="sk-anything-will-do", max_retries=0, timeout=10) as client:
        yield client


@pytest.fixture
async def async_client(url: str) -> AsyncIterator[AsyncOpenAI]:
    async with AsyncOpenAI(base_url=url, api_key="sk-anything-will-do", max_retries=0, timeout=10) as client:
        yield client


@pytest.fixture(scope="session")
def http() -> Iterator[requests.Session]:
    with requests.Session() as session:
        yield session
