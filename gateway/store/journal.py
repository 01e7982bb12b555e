"""Lines that outlive the process that wrote them, until somebody has carried them on.

A line is on its file when `append` returns: one write, no fsync, so it survives the process however that ends, though
not the machine. Whoever drains the journal asks for a batch, does with it what must be done, and acknowledges it; a
batch that is not acknowledged comes again, so what is done must bear repetition. A process holds a lock on its files
while it lives; the files of one that is dead are adopted by the next that looks.

A process writes to two files in turn: while one is drained, to its end, lines go to the other. So whatever was there
before leaves with the second pass at the latest, and each file can tell by its first line, however steadily lines come.

Knows files, locks and bounds. Refuses to know what the lines say.
"""

import contextlib
import fcntl
import logging
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from gateway.errors import StoreUnavailable

MAX_BYTES = 256 * 1024 * 1024
"""What may wait to be drained, in bytes; with the database away that is about two million lines."""
ROTATE_BYTES = 8 * 1024 * 1024
"""A file of this size is written to no longer, so that it can be deleted once it is drained."""
ROOM_BYTES = 16 * 1024
"""With less room than this, on the disk or below the bound, nothing that needs a line should be begun."""
BATCH_BYTES = 16 * 1024
"""Small enough that what is done with a batch does not keep calls waiting."""

Marks = set[tuple[str, bytes]]

_log = logging.getLogger("gateway")


class Segment:
    """One file of lines, locked. `size` bytes are in it, the first `done` of them acknowledged.

    `is_own`: this process has written them. `since_s`: when the first of them came, in Unix time; of another process's
    file, when the last one did, as nothing tells of the first.
    """

    __slots__ = ("descriptor", "done", "is_own", "path", "since_s", "size")

    def __init__(self, path: Path, descriptor: int, *, is_own: bool) -> None:
        self.path = path
        self.descriptor = descriptor
        self.is_own = is_own
        status = os.fstat(descriptor)
        self.size = status.st_size
        self.since_s = status.st_mtime
        self.done = 0

    def __repr__(self) -> str:
        return f"<Segment {self.path.name}: {self.done} of {self.size} bytes done>"

    def write(self, lines: bytes) -> None:
        """Append all of `lines` or nothing. Raises OSError."""
        written = os.write(self.descriptor, lines)
        if written < len(lines):  # a full disk takes a part
            os.ftruncate(self.descriptor, self.size)
            raise OSError(f"{self.path} took {written} of {len(lines)} bytes")
        self.size += written

    def read(self, max_bytes: int) -> list[bytes]:
        """The next whole lines, about `max_bytes` of them; none where only a torn one is left."""
        piece = os.pread(self.descriptor, max_bytes, self.done)
        while b"\n" not in piece and self.done + len(piece) < self.size:
            more = os.pread(self.descriptor, max_bytes, self.done + len(piece))
            if not more:
                break
            piece += more
        return piece[: piece.rfind(b"\n") + 1].splitlines(keepends=True)

    def empty(self) -> None:
        """Begin anew; what was in it is done."""
        os.ftruncate(self.descriptor, 0)
        self.size = self.done = 0

    def delete(self) -> None:
        """Away with the file, then with the lock, so that nobody adopts it in between."""
        self.path.unlink(missing_ok=True)
        os.close(self.descriptor)


class Batch(NamedTuple):
    """Some lines of one file, each with its newline; `end` is the offset behind them."""

    lines: list[bytes]
    segment: Segment
    end: int


class Journal:
    """The journal of `kind` in `directory`, this process's part and what it has adopted.

    All methods are short, none awaits: call them from one thread. `max_bytes` bounds what waits to be drained. `now`
    is Unix time in seconds.
    """

    def __init__(
        self, directory: Path, kind: str, *, max_bytes: int = MAX_BYTES, now: Callable[[], float] = time.time
    ) -> None:
        self._directory = directory
        self._kind = kind
        self._pattern = f"{kind}-*.journal"
        self._max_bytes = max_bytes
        self._now = now
        self._segments: list[Segment] = []
        self._current: Segment | None = None
        self._least_room = 0
        """So much at least may still be written: counted down by what is, and counted anew where it is not enough."""
        self._other: Segment | None = None
        """What was written to before, and will be again; it is drained meanwhile, or empty."""
        self._unusable: set[Path] = set()
        """Files that cannot be opened, of which that was said."""
        self.written_bytes = 0
        """All that this process ever wrote."""

    def __repr__(self) -> str:
        return f"<Journal {self._kind}: {self.pending_bytes} bytes in {len(self._segments)} files>"

    @property
    def pending_bytes(self) -> int:
        """What waits to be drained."""
        return sum(segment.size - segment.done for segment in self._segments)

    @property
    def waiting_since_s(self) -> float | None:
        """When the first line came of those files that are not drained to their end, in Unix time; None if all are.

        A file of which a part is drained still counts from its first line: twice the truth at most, under steady load.
        """
        return min((segment.since_s for segment in self._segments if segment.done < segment.size), default=None)

    @property
    def drained_bytes(self) -> int:
        """Of what this process ever wrote, how much is done: it is drained in the order in which it was written."""
        return self.written_bytes - sum(each.size - each.done for each in self._segments if each.is_own)

    def open(self) -> None:
        """Make this process's file. Raises OSError where the directory cannot be written."""
        if self._current is None:
            self._current = self._made()

    def check_room(self) -> None:
        """Raise StoreUnavailable where a line could not be kept now: for asking before what cannot be undone."""
        if self.pending_bytes + ROOM_BYTES > self._max_bytes:
            raise self._full()
        try:
            disk = os.statvfs(self._directory)
        except OSError as error:
            raise _unavailable(_NO_DISK, f"the journal {self._kind} cannot be written: {error}") from error
        if disk.f_bavail * disk.f_frsize < ROOM_BYTES:
            raise _unavailable(_NO_DISK, f"the disk of the journal {self._kind} is full")

    def undrained(self, *, own: bool = True) -> Marks:
        """What marks the files of all processes in the directory that hold lines: name and first line.

        A mark goes once its file has been drained, even if it has filled again since. `own`: what this process has
        written counts too. Raises OSError.
        """
        left_out = () if own else {segment.path for segment in self._segments if segment.is_own}
        paths = (path for path in self._directory.glob(self._pattern) if path not in left_out)
        return {(path.name, first) for path in paths if (first := _first_line(path))}

    def append(self, lines: bytes) -> None:
        """Write whole lines, the last newline included. Raises StoreUnavailable where they cannot be kept."""
        if self._least_room < len(lines):
            self._least_room = self._max_bytes - self.pending_bytes
            if self._least_room < len(lines):
                raise self._full()
        self._least_room -= len(lines)
        try:
            segment = self._writable()
            is_first = not segment.size
            segment.write(lines)
        except OSError as error:
            raise _unavailable(_NO_DISK, f"the journal {self._kind} cannot be written: {error}") from error
        if is_first:
            segment.since_s = self._now()
        self.written_bytes += len(lines)

    def batch(self, max_bytes: int = BATCH_BYTES) -> Batch | None:
        """The oldest lines that are not acknowledged yet, None if there are none. Raises OSError."""
        for segment in tuple(self._segments):
            if segment is self._current and segment.size:
                self._take_turns()
            lines = segment.read(max_bytes) if segment.done < segment.size else []
            if lines:
                return Batch(lines, segment, segment.done + sum(map(len, lines)))
            self._finish(segment)
        return None

    def acknowledge(self, batch: Batch) -> None:
        """The lines of `batch` need not be kept any longer."""
        segment = batch.segment
        segment.done = batch.end
        if segment.done >= segment.size:
            self._finish(segment)

    def adopt(self) -> int:
        """Take over the files of processes that are no more; how many bytes they hold. Raises OSError.

        One that cannot be opened keeps nobody from the others.
        """
        self._forget_deleted()
        adopted = 0
        own = {segment.path for segment in self._segments}
        for path in sorted(self._directory.glob(self._pattern)):
            if path not in own and (segment := self._openable(path)) is not None:
                self._segments.append(segment)
                self._least_room = 0
                adopted += segment.size
        return adopted

    def close(self) -> None:
        """Let go of the files; what is not drained waits for the next process."""
        for segment in self._segments:
            if segment.done >= segment.size:
                segment.delete()
            else:
                os.close(segment.descriptor)
        self._segments.clear()
        self._current = self._other = None

    def _openable(self, path: Path) -> Segment | None:
        """As `_taken_over`; None also for a file that cannot be opened, which is said once."""
        try:
            return _taken_over(path)
        except OSError as error:
            if path not in self._unusable:
                _log.warning("%s cannot be opened, and what is in it waits: %s", path, error)
            self._unusable.add(path)
            return None

    def _made(self) -> Segment:
        """A new file of this process. Raises OSError."""
        self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        while True:
            path = self._directory / f"{self._kind}-{os.urandom(8).hex()}.journal"
            descriptor = os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR | os.O_APPEND | os.O_CLOEXEC, 0o600)
            if _lock(path, descriptor):  # else somebody took it for a dead one's in between, and deletes it
                self._segments.append(Segment(path, descriptor, is_own=True))
                return self._segments[-1]

    def _take_turns(self) -> None:
        """What comes now goes to the other file, which is empty, and behind what is in this one.

        Where there is none, and none can be made, this one is written to and drained at once.
        """
        with contextlib.suppress(OSError):
            other = self._other or self._made()
            self._segments.remove(other)
            self._segments.append(other)
            self._current, self._other = other, self._current

    def _forget_deleted(self) -> None:
        """Somebody may have tidied up: what comes now must be found after a crash."""
        if self._current is not None and not self._current.path.exists():
            self._current = None
        if self._other is not None and not self._other.path.exists():
            self._other = None

    def _full(self) -> StoreUnavailable:
        return _unavailable(_NO_DATABASE, f"the journal {self._kind} is full: {self._max_bytes} bytes may wait")

    def _writable(self) -> Segment:
        if self._current is not None and self._current.size >= ROTATE_BYTES:
            self._current = None  # what it holds is drained, then it is deleted
        if self._current is None:
            self.open()
        assert self._current is not None  # noqa: S101 - open() has made one
        return self._current

    def _finish(self, segment: Segment) -> None:
        """All whole lines of `segment` are done."""
        if segment is self._current or segment is self._other:
            if segment.size:
                segment.empty()
            return
        if segment.done < segment.size:
            _log.warning("%s ends in a torn line, which is dropped: its process died as it wrote", segment.path)
        self._segments.remove(segment)
        segment.delete()


def _first_line(path: Path) -> bytes:
    """Of another process's file it is all that tells whether it was emptied meanwhile; at most 4 KiB of it."""
    try:
        with path.open("rb") as file:
            return file.readline(4096)
    except FileNotFoundError:
        return b""


def _taken_over(path: Path) -> Segment | None:
    """The file of a process that is no more, locked; None if its process lives, or another one was faster."""
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    return Segment(path, descriptor, is_own=False) if _lock(path, descriptor) else None


def _lock(path: Path, descriptor: int) -> bool:
    """Lock a file that was just opened; closes it where another process has it, or has deleted it meanwhile."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        return False
    try:
        is_there = path.stat().st_ino == os.fstat(descriptor).st_ino
    except FileNotFoundError:
        is_there = False
    if not is_there:
        os.close(descriptor)
    return is_there


def _unavailable(cause: str, detail: str) -> StoreUnavailable:
    return StoreUnavailable(f"The gateway cannot note whose this would be: {cause}", detail=detail)


_NO_DATABASE = "too much waits for its database. Please try again in a moment."
_NO_DISK = "its disk takes no more. Please tell whoever runs it, and try again later."
