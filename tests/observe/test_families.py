"""Readings: taken when they are asked for, written as Prometheus reads them, and added up over processes."""

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families

from gateway.observe.families import Buckets, Counted, Family, Gauged, Merge, Reading, Summed, Timed, growing, merged
from gateway.observe.text import render

Samples = dict[tuple[str, frozenset[tuple[str, str]]], float]


def samples(*readings: Reading) -> Samples:
    """As Prometheus' own parser reads the page."""
    families = text_string_to_metric_families(render(readings).decode())
    return {(s.name, frozenset(s.labels.items())): s.value for family in families for s in family.samples}


def plain(*readings: Reading) -> dict[str, float]:
    """The samples without labels but `le`, by name."""
    return {name + "".join(text for _, text in labels): value for (name, labels), value in samples(*readings).items()}


def test_what_is_counted_elsewhere_is_read_when_it_is_asked_for() -> None:
    counts: dict[tuple[str, ...], int] = {("requests", "key"): 1}
    family = Counted("refusals", "Refusals.", ("dimension", "whose"), lambda: counts)
    counts["requests", "key"] = 2
    labels = frozenset({"dimension": "requests", "whose": "key"}.items())
    assert samples(family.collect()) == {("gmi_gateway_refusals_total", labels): 2}


def test_a_reading_stays_as_it_was() -> None:
    counts: dict[tuple[str, ...], int] = {(): 1}
    waits = Buckets((0.1, 1.0))
    before = [
        Counted("calls", "Calls.", (), lambda: counts).collect(),
        Timed("wait_seconds", "Waits.", waits).collect(),
    ]
    page = render(before)
    counts[()] = 2
    waits.observe(0.5)
    assert render(before) == page


def test_buckets_are_shown_as_cumulative() -> None:
    waits = Buckets((0.1, 1.0))
    for seconds in (0.1, 0.5, 0.6, 7.0):
        waits.observe(seconds)
    assert plain(Timed("wait_seconds", "Waits.", waits).collect()) == {
        "gmi_gateway_wait_seconds_bucket0.1": 1,
        "gmi_gateway_wait_seconds_bucket1.0": 3,
        "gmi_gateway_wait_seconds_bucket+Inf": 4,
        "gmi_gateway_wait_seconds_count": 4,
        "gmi_gateway_wait_seconds_sum": 8.2,
    }


def test_a_summary_is_number_and_sum() -> None:
    assert plain(Summed("trip_seconds", "Trips.", lambda: (2, 0.5)).collect()) == {
        "gmi_gateway_trip_seconds_count": 2,
        "gmi_gateway_trip_seconds_sum": 0.5,
    }


def test_what_is_true_or_false_is_shown_as_a_number() -> None:
    assert plain(Gauged("up", "Up.", (), lambda: {(): True}).collect()) == {"gmi_gateway_up": 1}


def test_a_family_that_reads_nothing_is_there_without_samples() -> None:
    families: list[Family] = [Gauged("nodes", "Nodes.", (), dict), Summed("trip_seconds", "Trips.", lambda: None)]
    lines = render(family.collect() for family in families).decode().splitlines()
    assert lines == [
        "# HELP gmi_gateway_nodes Nodes.",
        "# TYPE gmi_gateway_nodes gauge",
        "# HELP gmi_gateway_trip_seconds Trips.",
        "# TYPE gmi_gateway_trip_seconds summary",
    ]


@given(st.text(st.characters(exclude_categories=["Cs"])), st.integers(0, 2**63))
def test_any_text_is_a_label_that_is_read_back(text: str, count: int) -> None:
    reading = Counted("calls", "Calls.", ("model", "team"), lambda: {(text, "t"): count}).collect()
    ((_, labels),) = samples(reading)
    assert dict(labels) == {"model": text, "team": "t"}


def test_an_integer_is_shown_to_the_last_digit_and_divided_only_then() -> None:
    family = Counted("calls", "Calls.", (), lambda: {(): 2**53 + 1})
    assert render([family.collect()]).endswith(b" 9007199254740993\n")
    assert plain(Counted("usd", "Dollars.", (), lambda: {(): 1_500_000}, 1_000_000).collect()) == {
        "gmi_gateway_usd_total": 1.5
    }


def test_counters_and_histograms_of_several_processes_add_up() -> None:
    waits = Buckets((1.0,))
    waits.observe(0.5)
    one = [
        Counted("calls", "Calls.", ("team",), lambda: {("a",): 1, ("b",): 2}).collect(),
        Timed("wait_seconds", "Waits.", waits).collect(),
        Summed("trip_seconds", "Trips.", lambda: (1, 0.25)).collect(),
    ]
    waits.observe(2.5)
    other = [
        Counted("calls", "Calls.", ("team",), lambda: {("b",): 40, ("c",): 50}).collect(),
        Timed("wait_seconds", "Waits.", waits).collect(),
        Summed("trip_seconds", "Trips.", lambda: (2, 0.5)).collect(),
    ]
    assert plain(*merged([one, other, []])) == {
        "gmi_gateway_calls_totala": 1,
        "gmi_gateway_calls_totalb": 42,
        "gmi_gateway_calls_totalc": 50,
        "gmi_gateway_wait_seconds_bucket1.0": 2,
        "gmi_gateway_wait_seconds_bucket+Inf": 3,
        "gmi_gateway_wait_seconds_count": 3,
        "gmi_gateway_wait_seconds_sum": 3.5,
        "gmi_gateway_trip_seconds_count": 3,
        "gmi_gateway_trip_seconds_sum": 0.75,
    }


@pytest.mark.parametrize(("merge", "value"), [("sum", 5), ("max", 3), ("min", 2)])
def test_a_gauge_says_what_several_processes_come_to(merge: Merge, value: float) -> None:
    now = [3.0]
    family = Gauged("now", "Now.", (), lambda: {(): now[0]}, merge)
    one = family.collect()
    now[0] = 2
    assert plain(*merged([[one], [family.collect()]])) == {"gmi_gateway_now": value}


def test_readings_of_another_version_that_do_not_fit_are_left_out() -> None:
    one = Counted("calls", "Calls.", ("team",), lambda: {("a",): 1}).collect()
    other = Counted("calls", "Calls.", ("team", "key"), lambda: {("a", "k"): 1}).collect()
    assert merged([[one], [other]]) == [one]


def test_gauges_do_not_outlive_their_process() -> None:
    counter, gauge = Counted("calls", "Calls.", (), dict), Gauged("now", "Now.", (), dict)
    assert [reading.name for reading in growing([counter.collect(), gauge.collect()])] == ["gmi_gateway_calls"]


def test_readings_are_the_same_after_they_were_in_a_file() -> None:
    waits = Buckets((1.0,))
    waits.observe(0.5)
    readings = [
        Counted("calls", "Calls.", ("team",), lambda: {("a",): 2**60}).collect(),
        Gauged("now", "Now.", (), lambda: {(): 0.1}, "min").collect(),
        Timed("wait_seconds", "Waits.", waits).collect(),
    ]
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(readings), type=list[Reading]) == readings
