"""W3C Trace Context: what is read, what is written, and what is ignored."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.call import TraceContext
from gateway.observe.traces.context import Contexts, lines

TRACE, SPAN = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
PARENT = f"00-{TRACE}-{SPAN}-01".encode()


def begun(*values: bytes, state: tuple[bytes, ...] = (), ratio: float = 1.0) -> TraceContext:
    headers = [(b"host", b"x"), *((b"traceparent", value) for value in values)]
    return Contexts(ratio).begin([*headers, *((b"tracestate", each) for each in state)])


def test_a_call_is_part_of_its_clients_trace() -> None:
    context = begun(PARENT)
    assert (context.trace_id, context.parent_id, context.is_sampled) == (TRACE, SPAN, True)
    assert len({context.span_id, context.upstream_span_id, SPAN}) == 3


def test_without_a_client_s_trace_a_new_one_begins() -> None:
    one, other = begun(), begun()
    assert one.parent_id is None
    for ids in (one, other):
        assert re.fullmatch("[0-9a-f]{32}", ids.trace_id)
        assert re.fullmatch("[0-9a-f]{16}", ids.span_id)
        assert re.fullmatch("[0-9a-f]{16}", ids.upstream_span_id)
    assert len({one.trace_id, other.trace_id}) == 2


@pytest.mark.parametrize(
    "value",
    [
        b"",
        b"00",
        PARENT.upper(),
        PARENT + b" x",
        PARENT + b"-",
        PARENT + b"-01",
        PARENT[:-1],
        PARENT + b"0",
        b"ff" + PARENT[2:],
        b"0g" + PARENT[2:],
        PARENT.replace(TRACE.encode(), b"0" * 32),
        PARENT.replace(SPAN.encode(), b"0" * 16),
        PARENT.replace(b"-", b"_"),
        b"cc" + PARENT[2:] + b"x",
        b"cc" + PARENT[2:] + b".1",
        PARENT + b", " + PARENT,
        b'"' + PARENT + b'"',
        PARENT.replace(b"4", b"\xd9\xa4", 1),
    ],
)
def test_a_malformed_parent_is_ignored_and_its_state_with_it(value: bytes) -> None:
    context = begun(value, state=(b"vendor=1",))
    assert context.parent_id is None
    assert context.trace_id != TRACE
    assert context.state == b""


def test_two_parents_are_none() -> None:
    assert begun(PARENT, PARENT).parent_id is None


@pytest.mark.parametrize("value", [b"01" + PARENT[2:], b"cc" + PARENT[2:] + b"-what-the-future-will-be", PARENT + b" "])
def test_a_later_version_is_read_as_far_as_it_is_known(value: bytes) -> None:
    assert begun(value).trace_id == TRACE


@pytest.mark.parametrize(
    ("flags", "kept", "passed"), [("00", False, 0), ("01", True, 1), ("fe", False, 2), ("ff", True, 3)]
)
def test_the_client_decides_whether_its_trace_is_kept(flags: str, kept: bool, passed: int) -> None:
    for ratio in (0.0, 1.0):
        context = begun(f"00-{TRACE}-{SPAN}-{flags}".encode(), ratio=ratio)
        assert (context.is_sampled, context.flags) == (kept, passed)


@pytest.mark.parametrize(("ratio", "least", "most"), [(0.0, 0, 0), (0.25, 150, 350), (1.0, 1000, 1000)])
def test_of_traces_that_begin_here_the_share_that_is_set_is_kept(ratio: float, least: int, most: int) -> None:
    contexts = Contexts(ratio)
    assert least <= sum(contexts.begin([]).is_sampled for _ in range(1000)) <= most


def test_every_node_keeps_the_same_traces_for_the_decision_is_in_the_id() -> None:
    kept = [context for context in map(Contexts(0.5).begin, [[]] * 200) if context.is_sampled]
    assert all(int(context.trace_id[16:], 16) < 2**63 for context in kept)


@pytest.mark.parametrize(
    ("values", "passed"),
    [
        ((b"a=1",), b"a=1"),
        ((b"rojo=00f067aa0ba902b7 , congo=t61rcWkgMzE",), b"rojo=00f067aa0ba902b7,congo=t61rcWkgMzE"),
        ((b"a=1", b"b=2"), b"a=1,b=2"),
        ((b"a=1,,b=2, ",), b"a=1,b=2"),
        ((b"fw529a3039@dt=FfAA-_; x",), b"fw529a3039@dt=FfAA-_; x"),
        ((b"a=1,a=2",), b""),
        ((b"a",), b""),
        ((b"A=1",), b""),
        ((b"a=",), b""),
        ((b"a=1=2",), b""),
        ((b"a=\x01",), b""),
        ((b"a=" + b"x" * 257,), b""),
        ((b",".join(b"k%d=v" % n for n in range(32)),), b",".join(b"k%d=v" % n for n in range(32))),
        ((b",".join(b"k%d=v" % n for n in range(33)),), b""),
    ],
)
def test_others_state_is_passed_on_as_it_came_or_not_at_all(values: tuple[bytes, ...], passed: bytes) -> None:
    context = begun(PARENT, state=values)
    assert context.state == passed
    assert context.trace_id == TRACE
    expected = [(b"tracestate", passed)] if passed else []
    assert lines(context, context.upstream_span_id)[1:] == expected


def test_upstream_is_told_the_span_that_it_is_called_from() -> None:
    context = begun(PARENT)
    told = f"00-{TRACE}-{context.upstream_span_id}-01".encode()
    assert lines(context, context.upstream_span_id) == [(b"traceparent", told)]


@given(st.binary(max_size=80), st.binary(max_size=80))
def test_whatever_a_client_sends_what_upstream_is_told_is_well_formed(parent: bytes, state: bytes) -> None:
    context = begun(parent, state=(state,))
    (_, told), *rest = lines(context, context.upstream_span_id)
    assert re.fullmatch(rb"00-[0-9a-f]{32}-[0-9a-f]{16}-0[0-3]", told)
    assert all(b"\r" not in line and b"\n" not in line for _, line in rest)
