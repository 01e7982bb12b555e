"""Workers that share a folder: any of them tells all that was counted, and no counter ever goes down."""

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from gateway.observe.families import Counted, Gauged, Reading
from gateway.observe.slots import Slots, slots_folder

ROOT = Path(__file__).parents[2]


class Worker:
    """One that has counted `calls`, and measures 1. `was_read` is set whenever it is about to write."""

    def __init__(self, folder: Path, calls: int = 0, *, every_s: float = 3600) -> None:
        self.calls = calls
        self.was_read = asyncio.Event()
        self._families = (
            Counted("calls", "Calls.", (), lambda: {(): self.calls}),
            Gauged("workers", "Workers.", (), lambda: {(): 1}),
        )
        self.slots = Slots(folder, self._read, every_s=every_s)

    def _read(self) -> list[Reading]:
        self.was_read.set()
        return [family.collect() for family in self._families]

    def told(self) -> tuple[object, object]:
        """The calls and workers that it tells of."""
        calls, workers = self.slots.collect()
        return calls.samples[()], workers.samples[()]


def names_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@asynccontextmanager
async def working(folder: Path, *counts: int) -> AsyncIterator[list[Worker]]:
    workers = [Worker(folder, calls) for calls in counts]
    for worker in workers:
        worker.slots.start()
    try:
        yield workers
    finally:
        for worker in workers:
            await worker.slots.close()


async def test_every_worker_tells_the_sum(tmp_path: Path) -> None:
    async with working(tmp_path, 1, 20, 300) as workers:
        assert [worker.told() for worker in workers] == [(321, 3)] * 3


async def test_whoever_is_asked_next_tells_no_less(tmp_path: Path) -> None:
    async with working(tmp_path, 1, 1) as (one, other):
        one.calls = 50
        assert one.told() == (51, 2)
        assert other.told() == (51, 2), "what was told is written"


async def test_what_a_worker_counts_is_written_regularly(tmp_path: Path) -> None:
    async with working(tmp_path, 0) as (one,):
        busy = Worker(tmp_path, 1, every_s=0.001)
        busy.slots.start()
        busy.calls = 7
        busy.was_read.clear()
        await asyncio.wait_for(busy.was_read.wait(), 5)
        assert one.told() == (7, 2)
        await busy.slots.close()


async def test_what_a_worker_counted_outlives_it_and_what_it_measured_does_not(tmp_path: Path) -> None:
    async with working(tmp_path, 1) as (one,):
        async with working(tmp_path, 20) as (other,):
            other.calls = 40
        assert one.told() == (41, 1)


async def test_a_worker_goes_on_where_one_that_ended_left_off(tmp_path: Path) -> None:
    async with working(tmp_path, 1) as (one,):
        for _ in range(3):
            async with working(tmp_path, 20) as (next_one,):
                next_one.calls += 1
        async with working(tmp_path, 20) as (next_one,):
            assert one.told() == next_one.told() == (1 + 3 * 21 + 20, 2)
    assert names_in(tmp_path) == ["0.lock", "0.readings", "1.lock", "1.readings"]


_KILLED = """
import asyncio, sys
from pathlib import Path
from tests.observe.test_slots import Worker
async def main():
    worker = Worker(Path(sys.argv[1]), 20)
    worker.slots.start()
    print("up", flush=True)
    await asyncio.sleep(60)
asyncio.run(main())
"""


async def test_a_worker_that_was_killed_is_noticed_at_once_and_what_it_wrote_is_kept(tmp_path: Path) -> None:
    async with working(tmp_path, 1) as (one,):
        command = (sys.executable, "-c", _KILLED, str(tmp_path))
        process = await asyncio.create_subprocess_exec(*command, cwd=ROOT, stdout=subprocess.PIPE)
        assert process.stdout is not None
        assert await process.stdout.readline() == b"up\n"
        assert one.told() == (21, 2)
        os.kill(process.pid, signal.SIGKILL)
        await process.wait()
        assert one.told() == (21, 1)


async def test_a_full_disk_costs_a_line_in_the_log_and_no_call(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with working(tmp_path, 1) as (one,):
        (tmp_path / "0.new").mkdir()  # nothing can be written there
        assert [one.told(), one.told()] == [(1, 1)] * 2
        assert len(caplog.records) == 1
        (tmp_path / "0.new").rmdir()
        one.calls = 2
        assert one.told() == (2, 1)


def test_the_folder_is_gone_at_the_end(tmp_path: Path) -> None:
    with slots_folder(tmp_path / "metrics") as folder:
        (folder / "0.readings").write_bytes(b"")
    assert list((tmp_path / "metrics").iterdir()) == []


def test_two_gateways_with_one_state_have_a_folder_each(tmp_path: Path) -> None:
    with slots_folder(tmp_path) as one, slots_folder(tmp_path) as other:
        assert one != other
        assert one.is_dir()


def test_what_a_gateway_that_was_killed_has_left_is_deleted_by_the_next(tmp_path: Path) -> None:
    left = tmp_path / "left"
    left.mkdir()
    (left / "0.readings").write_bytes(b"")
    (tmp_path / "left.lock").touch()
    with slots_folder(tmp_path) as folder:
        assert {path.name for path in tmp_path.iterdir()} == {folder.name, f"{folder.name}.lock"}
