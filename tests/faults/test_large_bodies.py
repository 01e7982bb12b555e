"""Large bodies, as calls with images have: what they cost the system, seen from outside."""

import asyncio
import os
import platform
from pathlib import Path

from tests.faults.face import CHAT, connected, post
from tests.faults.process import serving
from tests.support.missing import is_missing
from tests.support.wire import reply

PNG = "data:image/png;base64," + "iVBORw0K" * (1 << 20)
BODY = {"model": "m", "messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": PNG}}]}]}
CLIENTS = 2


async def test_a_large_body_comes_into_memory_that_an_earlier_one_left() -> None:
    if platform.libc_ver()[0] != "glibc":
        is_missing("it is glibc that is told to keep memory, and this is another C library")
    async with serving(reply(200, body=b"{}")) as running:
        await _each_sends(running.port, 4)
        before = page_faults(running.pid)
        await _each_sends(running.port, 8)
        faults_a_call = (page_faults(running.pid) - before) / (CLIENTS * 8)
    assert faults_a_call < len(PNG) / os.sysconf("SC_PAGE_SIZE") / 4


async def _each_sends(port: int, count: int) -> None:
    async def one() -> None:
        async with connected(port) as client:
            for _ in range(count):
                client.send(post(CHAT, BODY))
                assert (await client.answer()).status == 200

    await asyncio.gather(*(one() for _ in range(CLIENTS)))


def page_faults(pid: int) -> int:
    """How often a process met a page that it did not have, since it began (`minflt` of proc_pid_stat(5))."""
    fields = Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
    return int(fields[7])
