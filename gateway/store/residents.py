"""Which gateways run on one folder: each holds a lock on a small file there for as long as it lives.

Knows files and locks of one machine. Nothing fails for want of them: where a folder cannot lock, nobody is seen.
"""

import contextlib
import fcntl
import os
from collections.abc import Iterable, Iterator
from pathlib import Path

import msgspec

_PATTERN = "gateway-{}.lock"
_MOST = 1_000


class Resident(msgspec.Struct, frozen=True):
    """A gateway that runs; of one that has locked its file this moment, nothing is known yet."""

    pid: int | None = None
    url: str | None = None
    """Where clients of this machine reach it: `http://127.0.0.1:8080`."""
    admin_url: str | None = None
    """The same of its admin API; None where there is none."""
    upstream: str | None = None
    """Who answers its calls: a base URL, or `the simulator`."""

    def __str__(self) -> str:
        return ", ".join(([f"PID {self.pid}"] if self.pid else []) + ([self.url] if self.url else [])) or "just started"


@contextlib.contextmanager
def residing(folder: Path, me: Resident) -> Iterator[list[Resident]]:
    """Run on `folder`; who does so already."""
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        mine, held = _take(folder)
    except OSError:
        yield []
        return
    try:
        _write(held, msgspec.json.encode(me))
        yield _found(path for path in _files(folder) if path != mine)  # what it says may be what another one says
    finally:
        _write(held, b"")
        os.close(held)


def residents(folder: Path) -> list[Resident]:
    """All gateways that run on `folder`."""
    return _found(_files(folder))


def _files(folder: Path) -> list[Path]:
    return sorted(folder.glob(_PATTERN.format("*")))


def _found(paths: Iterable[Path]) -> list[Resident]:
    return [found for path in paths if (found := _resident(path)) is not None]


def _take(folder: Path) -> tuple[Path, int]:
    """The first file that nobody holds, locked. Raises OSError."""
    for number in range(_MOST):
        path = folder / _PATTERN.format(number)
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
        except OSError:
            os.close(descriptor)
            raise
        else:
            return path, descriptor
    raise OSError("all locks are taken")


def _write(descriptor: int, text: bytes) -> None:
    with contextlib.suppress(OSError):
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, text, 0)


def _resident(path: Path) -> Resident | None:
    try:
        with path.open("rb") as file:
            if _is_free(file.fileno()):
                return None
            return msgspec.json.decode(file.read(), type=Resident)
    except OSError:
        return None
    except msgspec.MsgspecError:
        return Resident()


def _is_free(descriptor: int) -> bool:
    """Whether nobody holds the file; asking keeps nobody from it for longer than that takes."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
