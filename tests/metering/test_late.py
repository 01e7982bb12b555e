"""What responses in the background have used: read wherever it is told, and counted once."""

import json
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.call import CallRecord, Usage
from gateway.metering.late import MOST_WAITING, Late, LateRecords, LateScanner, late_usage
from gateway.metering.ledger_line import Line, decode, encode
from tests.metering.ledger import record

RESPONSE: dict[str, Any] = {
    "id": "resp_1",
    "object": "response",
    "created_at": 1_700_000_000,
    "status": "completed",
    "background": True,
    "model": "vendor/model",
    "output": [],
    "usage": {"input_tokens": 3, "output_tokens": 4, "total_tokens": 7},
}
LATE = Late("resp_1", "vendor/model", Usage(3, 4, 7))


def read(**other: object) -> Late | None:
    return late_usage(json.dumps({**RESPONSE, **other}).encode())


@pytest.mark.parametrize("status", ["completed", "incomplete", "failed", "cancelled"])
def test_a_finished_response_says_what_it_used(status: str) -> None:
    assert read(status=status) == LATE


@pytest.mark.parametrize(
    "other",
    [
        {"status": "queued"},
        {"status": "in_progress"},
        {"background": False},
        {"background": None},
        {"usage": None},
        {"usage": {}},
        {"id": ""},
        {"id": "x" * 200},
        {"id": 1},
    ],
)
def test_one_that_is_not_finished_or_was_not_made_in_the_background_says_nothing(other: dict[str, Any]) -> None:
    assert read(**other) is None


def test_a_stream_says_it_in_its_last_event() -> None:
    scanner = LateScanner()
    for status in ("queued", "in_progress"):
        event = {"type": f"response.{status}", "response": {**RESPONSE, "status": status, "usage": None}}
        scanner.feed(b"data: " + json.dumps(event).encode() + b"\n\n")
    assert scanner.found is None
    last = b"data: " + json.dumps({"type": "response.completed", "response": RESPONSE}).encode()
    scanner.feed(b"event: response.completed\n" + last + b"\n\n")
    scanner.feed(b"data: [DONE]\n\n")
    assert scanner.found == LATE


@given(st.binary(max_size=100))
def test_no_bytes_are_an_error(body: bytes) -> None:
    assert late_usage(body) is None
    LateScanner().feed(b'data: {"response":' + body + b'"background" "usage"\n\n')


RECORD = CallRecord(
    "late_resp_1", None, None, None, "POST", None, 200, "done", False, 0.0, 0.0, None, None, 0, None, None, None
)


def lines_of(*ids: str) -> list[Line]:
    return [decode(encode(record(each, model=None, cost_microusd=None))) for each in ids]


def test_only_what_is_new_in_the_ledger_counts() -> None:
    noted: list[str] = []
    followed: list[str] = []
    records = LateRecords(lambda recorded: noted.extend(record.id for record, _ in recorded))
    records.follow(lambda record: followed.append(record.id))
    for _ in range(2):
        records.note(RECORD)
    assert (noted, followed) == (["late_resp_1"] * 2, [])
    records.written(lines_of("req_1", "late_resp_1", "late_of_another_process"))
    records.written(lines_of("late_resp_1"))
    assert followed == ["late_resp_1"]


def test_what_counts_is_what_the_ledger_has_written() -> None:
    followed: list[CallRecord] = []
    records = LateRecords(lambda _: None)
    records.follow(followed.append)
    records.note(RECORD)
    (line,) = lines_of(RECORD.id)
    kept = msgspec.structs.replace(line, model="m", cost_microusd=7)
    records.written([kept])
    counted = msgspec.structs.replace(RECORD, model="m", cost_microusd=7, usage=Usage(5, 2, 7, 3))
    assert followed == [msgspec.structs.replace(counted, usage_source="reported")]
    followed.clear()
    records.note(counted)
    records.written([msgspec.structs.replace(kept, usage=None, usage_source="unknown", cost_microusd=None)])
    unknown = msgspec.structs.replace(counted, usage=None, usage_source="unknown", cost_microusd=None)
    assert followed == [unknown]


def test_of_several_who_were_told_the_first_waits_or_the_first_who_was_told_of_usage() -> None:
    followed: list[CallRecord] = []
    records = LateRecords(lambda _: None)
    records.follow(followed.append)
    told = [msgspec.structs.replace(RECORD, started_at_s=float(at)) for at in range(3)]
    told[1] = msgspec.structs.replace(told[1], usage=Usage(3, 4, 7))
    for ended in (told, told[1:], told[::2]):
        for each in ended:
            records.note(each)
        records.written(lines_of(RECORD.id))
    assert [each.started_at_s for each in followed] == [1, 1, 0]


def test_what_waits_is_bounded() -> None:
    followed: list[str] = []
    records = LateRecords(lambda _: None)
    records.follow(lambda record: followed.append(record.id))
    ids = [f"late_resp_{number}" for number in range(MOST_WAITING + 500)]
    for each in ids:
        records.note(msgspec.structs.replace(RECORD, id=each))
    records.written(lines_of(*ids))
    assert followed == ids[-MOST_WAITING:]
