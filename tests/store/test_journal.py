"""Lines that outlive the process that wrote them."""

import itertools
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from gateway.errors import StoreUnavailable
from gateway.store import journal as journals
from gateway.store.journal import Journal


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[Journal]:
    made = Journal(tmp_path / "state", "ids")
    made.open()
    yield made
    made.close()


def drained(journal: Journal, max_bytes: int = 64) -> list[bytes]:
    """All lines, each batch acknowledged."""
    lines = []
    while (batch := journal.batch(max_bytes)) is not None:
        lines += batch.lines
        journal.acknowledge(batch)
    return lines


def files(journal: Journal) -> list[Path]:
    return sorted(journal._directory.iterdir())


def test_lines_come_out_once_and_in_order(journal: Journal) -> None:
    lines = [b"%d\n" % number for number in range(100)]
    for line in lines:
        journal.append(line)
    assert drained(journal) == lines
    assert journal.batch() is None
    assert journal.pending_bytes == 0


def test_a_batch_that_is_not_acknowledged_comes_again(journal: Journal) -> None:
    journal.append(b"a\nb\n")
    assert journal.batch() == journal.batch()
    assert drained(journal) == [b"a\n", b"b\n"]


def test_what_is_written_while_a_batch_is_out_is_not_lost(journal: Journal) -> None:
    journal.append(b"a\n")
    batch = journal.batch()
    assert batch is not None
    journal.append(b"b\n")
    journal.acknowledge(batch)
    assert drained(journal) == [b"b\n"]


def test_a_line_may_be_longer_than_a_batch(journal: Journal) -> None:
    lines = [b"x" * 1_000 + b"\n", b"y\n"]
    journal.append(b"".join(lines))
    assert drained(journal, 10) == lines


def test_the_file_is_for_its_owner_alone_and_empty_once_all_is_done(journal: Journal) -> None:
    journal.append(b"a\n")
    (path,) = files(journal)
    assert (path.stat().st_mode & 0o777, path.parent.stat().st_mode & 0o777) == (0o600, 0o700)
    drained(journal)
    assert path.stat().st_size == 0


def test_a_long_file_is_followed_by_another_and_deleted_once_drained(
    journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(journals, "ROTATE_BYTES", 100)
    lines = [b"%048d\n" % number for number in range(20)]
    for line in lines:
        journal.append(line)
    assert len(files(journal)) == 7
    assert drained(journal, 100) == lines
    journal.append(b"last\n")
    assert drained(journal) == [b"last\n"]
    assert len(files(journal)) == 2, "those that are written in turn"


def test_past_its_bound_it_takes_no_more_until_it_is_drained(tmp_path: Path) -> None:
    journal = Journal(tmp_path, "ids", max_bytes=10)
    journal.append(b"12345678\n")
    with pytest.raises(StoreUnavailable) as refusal:
        journal.append(b"9\n")
    assert "full" in refusal.value.detail
    assert drained(journal) == [b"12345678\n"]
    journal.append(b"9\n")
    assert drained(journal) == [b"9\n"]
    journal.close()


def test_a_write_that_fits_in_part_leaves_nothing(journal: Journal, monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a full disk."""
    journal.append(b"a\n")
    write = os.write
    with monkeypatch.context() as full:
        full.setattr(os, "write", lambda descriptor, data: write(descriptor, data[:3]))
        with pytest.raises(StoreUnavailable):
            journal.append(b"lost\n")
    journal.append(b"b\n")
    assert drained(journal) == [b"a\n", b"b\n"]


def test_a_directory_that_cannot_be_written_is_a_store_that_is_away(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StoreUnavailable):
        Journal(tmp_path / "file" / "below", "ids").append(b"a\n")


def test_at_the_end_an_empty_file_goes_and_a_full_one_stays(tmp_path: Path) -> None:
    journal = Journal(tmp_path, "ids")
    journal.open()
    journal.close()
    assert files(journal) == []
    journal.append(b"a\n")
    journal.close()
    assert len(files(journal)) == 1


def test_a_file_that_somebody_deleted_is_made_anew_and_its_lines_are_still_drained(journal: Journal) -> None:
    journal.append(b"a\n")
    files(journal)[0].unlink()
    journal.adopt()
    journal.append(b"b\n")
    assert [path.read_bytes() for path in files(journal)] == [b"b\n"]
    assert drained(journal) == [b"a\n", b"b\n"]


WRITES_UNTIL_KILLED = """
import sys
from pathlib import Path
from gateway.store.journal import Journal
journal = Journal(Path(sys.argv[1]), "ids")
journal.append(b"a\\nb\\n")
print("written", flush=True)
sys.stdin.read()
"""


@pytest.fixture
def other(journal: Journal) -> Iterator[subprocess.Popen[bytes]]:
    """Another process, which has written two lines in the same directory."""
    command = [sys.executable, "-c", WRITES_UNTIL_KILLED, str(journal._directory)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"written\n"
        yield process
        process.kill()


def test_the_lines_of_a_process_that_was_killed_are_taken_over_once(
    journal: Journal, other: subprocess.Popen[bytes]
) -> None:
    third = Journal(journal._directory, "ids")
    assert journal.adopt() == 0, "it lives"
    other.send_signal(signal.SIGKILL)
    other.wait()
    assert (journal.adopt(), third.adopt(), journal.adopt()) == (4, 0, 0)
    assert drained(journal) == [b"a\n", b"b\n"]
    assert len(files(journal)) == 1, "the own one is left"


def test_a_torn_last_line_is_ignored_and_those_before_it_are_not(journal: Journal) -> None:
    (journal._directory / "ids-dead.journal").write_bytes(b"a\nb\nto")
    (journal._directory / "ids-torn.journal").write_bytes(b"to")
    journal.adopt()
    assert drained(journal) == [b"a\n", b"b\n"]
    assert len(files(journal)) == 1


def test_the_journals_of_another_kind_are_left_alone(journal: Journal) -> None:
    (journal._directory / "usage-dead.journal").write_bytes(b"a\n")
    (journal._directory / "gateway.db").write_bytes(b"a\n")
    assert journal.adopt() == 0
    assert journal.batch() is None


def test_room_is_missing_before_the_bound_is_reached(tmp_path: Path) -> None:
    journal = Journal(tmp_path, "ids", max_bytes=journals.ROOM_BYTES + 9)
    journal.append(b"12345678\n")
    journal.check_room()
    journal.append(b"9\n")
    with pytest.raises(StoreUnavailable, match="database"):
        journal.check_room()
    drained(journal)
    journal.check_room()
    journal.close()


def test_a_full_disk_is_told_from_a_database_that_is_away(journal: Journal, monkeypatch: pytest.MonkeyPatch) -> None:
    journal.check_room()
    disk = os.statvfs(journal._directory)
    full = os.statvfs_result((*disk[:4], 0, *disk[5:]))
    monkeypatch.setattr(os, "statvfs", lambda _: full)
    with pytest.raises(StoreUnavailable, match="disk") as refusal:
        journal.check_room()
    assert "full" in refusal.value.detail


def test_a_directory_that_is_gone_is_no_room(tmp_path: Path) -> None:
    with pytest.raises(StoreUnavailable, match="disk"):
        Journal(tmp_path / "nowhere", "ids").check_room()


def test_a_file_is_marked_until_it_was_drained_even_if_it_fills_again(
    journal: Journal, other: subprocess.Popen[bytes]
) -> None:
    theirs = journal.undrained()
    assert {line for _, line in theirs} == {b"a\n"}
    journal.append(b"1\n2\n")
    before = journal.undrained()
    assert len(before) == 2
    assert drained(journal) == [b"1\n", b"2\n"]
    journal.append(b"3\n")
    assert before & journal.undrained() == theirs
    assert other.poll() is None


def test_who_knows_what_it_wrote_may_ask_for_the_marks_of_others_alone(
    journal: Journal, other: subprocess.Popen[bytes]
) -> None:
    journal.append(b"1\n")
    assert {line for _, line in journal.undrained(own=False)} == {b"a\n"}
    other.send_signal(signal.SIGKILL)
    other.wait()
    journal.adopt()
    assert {line for _, line in journal.undrained(own=False)} == {b"a\n"}, "what was adopted was written by others"


def test_however_steadily_lines_come_the_marks_of_all_before_are_gone_after_two_passes(journal: Journal) -> None:
    """There is no moment in which nothing waits."""
    journal.append(b"0\n")
    marks = []
    for number in range(1, 20):
        marks.append(journal.undrained())
        batch = journal.batch()
        assert batch is not None
        journal.append(b"%d\n" % number)
        journal.acknowledge(batch)
    assert all(marks)
    assert not any(each & later for number, each in enumerate(marks) for later in marks[number + 2 :])
    assert len(files(journal)) == 2, "they are written in turn"


def test_lines_that_come_steadily_come_out_once_and_in_order(journal: Journal, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(journals, "ROTATE_BYTES", 100)
    found: list[bytes] = []
    for number in range(200):
        journal.append(b"%05d\n" % number)
        if number % 30 > 20 and (batch := journal.batch(32)) is not None:
            journal.append(b"%05d more\n" % number)
            found += batch.lines
            journal.acknowledge(batch)
    found += drained(journal)
    assert len(found) == 200 + sum(1 for number in range(200) if number % 30 > 20)
    assert found == sorted(found)


def test_what_waits_has_waited_since_the_first_line_of_the_oldest_file_that_is_not_drained(tmp_path: Path) -> None:
    seconds = itertools.count(100)
    journal = Journal(tmp_path, "ids", now=lambda: float(next(seconds)))
    journal.open()

    def since_s() -> float | None:
        return journal.waiting_since_s

    assert since_s() is None
    for line in (b"1\n", b"2\n"):
        journal.append(line)
    assert since_s() == 100, "one look at the clock a file"
    first = journal.batch(2)
    assert first is not None
    journal.append(b"3\n")
    journal.acknowledge(first)
    assert since_s() == 100, "a part of it waits"
    second = journal.batch()
    assert second is not None
    journal.acknowledge(second)
    assert since_s() == 101
    assert drained(journal) == [b"3\n"]
    assert since_s() is None
    journal.append(b"4\n")
    assert since_s() == 102
    drained(journal)
    journal.close()


def test_what_a_dead_process_left_has_waited_since_its_last_line_at_least(journal: Journal) -> None:
    left = journal._directory / "ids-dead.journal"
    left.write_bytes(b"a\nb\n")
    os.utime(left, (50.0, 50.0))
    journal.append(b"c\n")
    journal.adopt()
    assert journal.waiting_since_s == 50
    drained(journal)
    assert journal.waiting_since_s is None


def test_what_was_drained_of_what_was_written_is_counted(journal: Journal) -> None:
    (journal._directory / "ids-dead.journal").write_bytes(b"dead\n")
    journal.adopt()
    journal.append(b"1\n")
    journal.append(b"2\n")
    assert (journal.written_bytes, journal.drained_bytes) == (4, 0)
    assert drained(journal, 2)[:2] == [b"1\n", b"2\n"]
    journal.append(b"3\n")
    assert (journal.written_bytes, journal.drained_bytes) == (6, 4)


def test_with_no_room_for_a_second_file_the_first_is_drained_all_the_same(
    journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> int:
        raise OSError(28, "No space left on device")

    journal.append(b"a\n")
    with monkeypatch.context() as disk:
        disk.setattr(os, "open", full)
        assert drained(journal) == [b"a\n"]
    journal.append(b"b\n")
    assert drained(journal) == [b"b\n"]


def test_a_spare_file_that_somebody_deleted_is_written_to_no_more(journal: Journal) -> None:
    journal.append(b"a\n")
    drained(journal)
    for path in files(journal):
        path.unlink()
    journal.adopt()
    journal.append(b"b\n")
    batch = journal.batch()
    assert batch is not None
    journal.append(b"c\n")
    assert sorted(path.read_bytes() for path in files(journal)) == [b"b\n", b"c\n"]
    assert drained(journal) == [b"b\n", b"c\n"]


def test_a_file_that_cannot_be_opened_keeps_nobody_from_the_others_and_is_named_once(
    journal: Journal, caplog: pytest.LogCaptureFixture
) -> None:
    directory = journal._directory
    (directory / "ids-00.journal").mkdir()
    (directory / "ids-11.journal").write_bytes(b"a\n")
    assert [journal.adopt() for _ in range(3)] == [2, 0, 0]
    assert drained(journal) == [b"a\n"]
    assert caplog.text.count("ids-00.journal cannot be opened") == 1
