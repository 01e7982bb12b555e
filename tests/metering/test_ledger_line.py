"""A call in one line: all of it, in a form that any database can keep, whatever a client or upstream has made up."""

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.call import CallRecord, Due, Usage
from gateway.metering.ledger_line import decode, encode
from gateway.store.tables import USAGE, calls
from tests.metering.ledger import RECORD, record

MEMBERS = [column.name for column in calls.columns if column.name not in USAGE]
text = st.text(st.characters(), max_size=300)
"""Halves of characters (surrogates) included, which JSON can spell."""


def test_a_line_says_all_that_the_record_does() -> None:
    line = decode(encode(record("req_1", tags={"project": "ü"}, queue_s=1.5)))
    assert msgspec.structs.asdict(line) == {
        "id": "req_1",
        "started_at": 1_795_348_800_000_000,
        "team_id": "team_engines",
        "key_id": "key_ada",
        "method": "POST",
        "route": "/v1/chat/completions",
        "model": "openai/gpt-5.2",
        "endpoint": "upstream",
        "status": 200,
        "outcome": "done",
        "streamed": False,
        "error": None,
        "upstream_error": None,
        "upstream_request_id": "upstream-1",
        "usage_source": "reported",
        "cost_microusd": 12,
        "queue_us": 1_500_000,
        "overhead_us": 500,
        "first_byte_us": 125_000,
        "duration_us": 250_000,
        "sent_bytes": 345,
        "usage": list(msgspec.structs.astuple(RECORD.usage)) if RECORD.usage else None,
        "tags": {"project": "ü"},
        "more": 0,
        "due": None,
    }


def test_the_line_of_a_call_whose_usage_is_due_says_what_it_waits_for() -> None:
    due = Due("resp_1", {"team_engines/budget/total": 10_023})
    assert decode(encode(record("req_1", usage=None, usage_source="due", due=due))).due == due
    assert decode(encode(record("late_resp_1", due=due))).due is None  # it waits for nothing


def test_a_line_has_a_member_for_every_column_and_for_every_kind_of_usage() -> None:
    line = decode(encode(RECORD))
    assert sorted([*MEMBERS, "usage", "tags", "more", "due"]) == sorted(msgspec.structs.asdict(line))
    assert Usage.__struct_fields__ == USAGE
    assert line.usage is not None
    assert len(line.usage) == len(USAGE)


def test_a_line_is_one_line() -> None:
    line = encode(record("req_1", model="a\nb\r\n"))
    assert (line.count(b"\n"), line[-1:]) == (1, b"\n")
    assert decode(line).model == "a\nb\r\n"


def test_nothing_used_is_0_and_what_nobody_knows_is_not() -> None:
    nothing = decode(encode(record("req_1", usage=None, usage_source="none", cost_microusd=0)))
    unknown = decode(encode(record("req_1", usage=None, usage_source="unknown", cost_microusd=None)))
    assert (nothing.usage, unknown.usage) == ([0] * len(USAGE), None)


def test_a_refused_call_has_no_tags_and_may_stand_for_others() -> None:
    line = decode(encode(record("req_1", outcome="refused", tags={"a": "b"}), 3))
    assert (line.tags, line.more) == ({}, 3)


@pytest.mark.parametrize("member", ["principal", "route"])
def test_calls_by_nobody_or_to_nowhere_have_no_line(member: str) -> None:
    with pytest.raises(ValueError, match="nobody"):
        encode(record("req_1", **{member: None}))


@given(model=text, error=text, request_id=text, tags=st.dictionaries(text, text, max_size=3))
def test_whatever_is_made_up_becomes_text_that_the_columns_hold(
    model: str, error: str, request_id: str, tags: dict[str, str]
) -> None:
    made = record("req_1", model=model, error=error, upstream_request_id=request_id, tags=tags)
    line = decode(encode(made))
    assert line.model == stored(model[:200])
    assert line.error == stored(error[:100])
    assert line.upstream_request_id == stored(request_id[:200])
    assert all("\0" not in name + value for name, value in line.tags.items())


def stored(made_up: str) -> str:
    return "".join("?" if "\ud800" <= each <= "\udfff" else each for each in made_up if each != "\0")


def test_a_time_that_runs_backwards_is_none_at_all() -> None:
    made: CallRecord = record("req_1", overhead_s=-0.001)
    assert decode(encode(made)).overhead_us == 0
