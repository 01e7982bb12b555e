"""Forms as clients write that nobody here wrote, by keys that may use some models only: each is read, and unchanged."""

import asyncio
import json
import random
import shutil
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import openai
import pytest
from openai import AsyncOpenAI

from tests.clients.conftest import TIMEOUT_S
from tests.support.gateway import KEY, RunningGateway, running_gateway
from tests.support.missing import is_missing
from tests.support.wire import WireUpstream, reply

MODEL = "whisper-1"
DRIVER = Path(__file__).parent / "forms.mjs"
OK = reply(200, [(b"content-type", b"application/json")], json.dumps({"text": "Hi", "created": 1, "data": []}).encode())
CONTENT = random.Random(1).randbytes(3000) + b"\r\n--\r\n\r\n\n--"
SETTINGS: dict[str, Any] = {
    "keys": [{"name": "ada", "team": "engines", "secret": KEY, "models": [MODEL]}],
    "models": {"aliases": {"fast": MODEL}},
}


@pytest.fixture
async def upstream() -> AsyncIterator[WireUpstream]:
    async with WireUpstream(OK) as running:
        yield running


@pytest.fixture
async def gateway(upstream: WireUpstream) -> AsyncIterator[RunningGateway]:
    with running_gateway(f"{upstream.url}/v1", **SETTINGS) as running:
        yield running


def assert_passed(upstream: WireUpstream, calls: int, files: int) -> None:
    """So many calls came through, with so many copies of the file in them, byte for byte."""
    assert len(upstream.requests) == calls
    assert sum(each.body.count(CONTENT) for each in upstream.requests) == files
    for each in upstream.requests:
        assert each.body.count(b'name="model"\r\n\r\n' + MODEL.encode()) == 1


async def test_openai_python(gateway: RunningGateway, upstream: WireUpstream, tmp_path: Path) -> None:
    path = tmp_path / "a \u00e9.wav"
    path.write_bytes(CONTENT)
    async with AsyncOpenAI(base_url=gateway.api, api_key=KEY, max_retries=0, timeout=TIMEOUT_S) as client:
        await client.audio.transcriptions.create(model=MODEL, file=path, timestamp_granularities=["word", "segment"])
        await client.audio.transcriptions.create(model=MODEL, file=("\u6771\u4eac.wav", CONTENT))
        await client.images.edit(
            model=MODEL, prompt='a "cat"\n\u00e9', image=[CONTENT, ("b.png", CONTENT, "image/png")]
        )
        with pytest.raises(openai.PermissionDeniedError) as refused:
            await client.audio.transcriptions.create(model="whisper-2", file=path)
    assert refused.value.code == "model_not_allowed"
    assert_passed(upstream, calls=3, files=4)


@pytest.mark.parametrize("package", ["openai", "openai6"])
async def test_openai_node(
    gateway: RunningGateway, upstream: WireUpstream, node: str, package: str, tmp_path: Path
) -> None:
    path = tmp_path / "a.wav"
    path.write_bytes(CONTENT)
    await run([node, str(DRIVER), package, gateway.api, str(path)])
    assert_passed(upstream, calls=3, files=4)


async def test_curl(gateway: RunningGateway, upstream: WireUpstream, tmp_path: Path) -> None:
    curl = shutil.which("curl")
    if curl is None:
        is_missing("curl is missing: install it, as by apt-get install curl")
    path = tmp_path / "a.wav"
    path.write_bytes(CONTENT)
    form = ["-F", f"file=@{path};type=audio/wav", "-F", f"model={MODEL}", "-F", "prompt=na\u00efve"]
    bearer = ["-H", f"Authorization: Bearer {KEY}", "--noproxy", "*", "-fsS"]
    await run([curl, *bearer, *form, f"{gateway.api}/audio/transcriptions"])
    assert_passed(upstream, calls=1, files=1)


async def run(command: list[str]) -> None:
    """A client as a process of its own, which must end well."""

    def wait() -> "subprocess.CompletedProcess[str]":
        environment = {"OPENAI_API_KEY": KEY}
        return subprocess.run(command, env=environment, capture_output=True, encoding="utf-8", timeout=60, check=False)

    done = await asyncio.to_thread(wait)
    assert done.returncode == 0, done.stderr
