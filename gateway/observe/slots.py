"""What the workers of one gateway have counted, in a folder that they share, so that any of them can tell all of it.

Each worker has a slot: a file that it replaces every second and whenever it is asked, and a lock that the system takes
from it when it ends, however that may be. The next worker goes on in the slot of one that ended, and begins with what
that one had counted; so no counter ever goes down while the gateway runs, and there are never more slots than there
were workers at once. A worker that is killed takes with it what it counted since it last wrote.

Knows files and locks; what a reading means, and how two add up, is `families`' business.
"""

import asyncio
import contextlib
import fcntl
import logging
import os
import shutil
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec

from gateway.observe.families import Reading, growing, merged

_LOCK = ".lock"
_READINGS = ".readings"
_REST = 50
"""So many times as long as writing took is the least pause after it: calls wait meanwhile, a fiftieth of the time."""

_log = logging.getLogger("gateway")
_decoder = msgspec.msgpack.Decoder(list[Reading])
_encoder = msgspec.msgpack.Encoder()


@contextlib.contextmanager
def slots_folder(parent: Path) -> Iterator[Path]:
    """A folder below `parent` for the workers of one gateway, deleted at the end. Raises OSError.

    Those that gateways which were killed have left there are deleted too.
    """
    parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    for path in parent.glob("*" + _LOCK):
        _delete_if_left(path)
    own = parent / uuid.uuid4().hex
    lock_path = own.with_suffix(_LOCK)
    lock = _open(lock_path)
    _locked(lock, fcntl.LOCK_EX)
    own.mkdir(mode=0o700)
    try:
        yield own
    finally:
        shutil.rmtree(own, ignore_errors=True)
        lock_path.unlink(missing_ok=True)
        os.close(lock)


def _delete_if_left(lock_path: Path) -> None:
    lock = _open(lock_path)
    if _locked(lock, fcntl.LOCK_EX):
        shutil.rmtree(lock_path.with_suffix(""), ignore_errors=True)
        lock_path.unlink(missing_ok=True)
    os.close(lock)


class Slots:
    """This worker's part in `folder`, from `start` to `close`. `read` tells what it has counted itself."""

    def __init__(self, folder: Path, read: Callable[[], list[Reading]], *, every_s: float = 1.0) -> None:
        self._folder = folder
        self._read = read
        self._every_s = every_s
        self._name = ""
        self._lock: int | None = None
        self._inherited: list[Reading] = []
        self._task: asyncio.Task[None] | None = None
        self._has_failed = False

    def __repr__(self) -> str:
        return f"Slots({self._folder}, own {self._name or 'none yet'})"

    def start(self) -> None:
        """Take a slot, and write to it in the background. Raises OSError."""
        self._name, self._lock = self._take()
        self._inherited = list(growing(self._readings_of(self._name)))
        self.write()
        self._task = asyncio.get_running_loop().create_task(self._run(), name="metrics")

    async def close(self) -> None:
        """Write for the last time, and leave the slot."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        if self._lock is not None:
            self.write()
            os.close(self._lock)
            self._lock = None

    def collect(self) -> list[Reading]:
        """What all workers have counted, those that are gone too, and what those that are there now measure.

        Written as well as told, so that whichever worker is asked next tells no less.
        """
        return merged([self.write(), *self._others()])

    def write(self) -> list[Reading]:
        """Tell the others how it is here now. A disk that takes nothing is logged once, and tried again."""
        own = merged([self._read(), self._inherited])
        path = self._folder / (self._name + _READINGS)
        new = path.with_suffix(".new")
        try:
            new.write_bytes(_encoder.encode(own))
            new.rename(path)
            self._has_failed = False
        except OSError as error:
            if not self._has_failed:
                _log.warning("metrics of this worker cannot be written for the others: %s", error)
            self._has_failed = True
        return own

    def _take(self) -> tuple[str, int]:
        """The first slot that nobody is in, and its lock."""
        number = 0
        while True:
            lock = _open(self._folder / f"{number}{_LOCK}")
            if _locked(lock, fcntl.LOCK_EX):
                return str(number), lock
            os.close(lock)
            number += 1

    def _others(self) -> Iterator[list[Reading]]:
        for path in sorted(self._folder.glob("*" + _READINGS)):
            if path.stem != self._name:
                readings = self._readings_of(path.stem)
                yield readings if self._is_taken(path.stem) else list(growing(readings))

    def _is_taken(self, name: str) -> bool:
        lock = _open(self._folder / (name + _LOCK))
        try:
            return not _locked(lock, fcntl.LOCK_SH)
        finally:
            os.close(lock)

    def _readings_of(self, name: str) -> list[Reading]:
        try:
            return _decoder.decode((self._folder / (name + _READINGS)).read_bytes())
        except FileNotFoundError:
            return []

    async def _run(self) -> None:
        loop = asyncio.get_running_loop()
        pause_s = self._every_s
        while True:
            await asyncio.sleep(pause_s)
            began_s = loop.time()
            self.write()
            pause_s = max(self._every_s, _REST * (loop.time() - began_s))


def _open(path: Path) -> int:
    return os.open(path, os.O_RDWR | os.O_CREAT, 0o600)


def _locked(descriptor: int, how: int) -> bool:
    """Whether the lock could be had at once."""
    try:
        fcntl.flock(descriptor, how | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
