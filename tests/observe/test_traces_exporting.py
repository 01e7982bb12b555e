"""Traces on their way: nothing waits for them, what is lost is said once, and the end has a bound."""

import logging
from threading import Event

import pytest
from msgspec.structs import replace

from gateway.call import CallRecord
from gateway.observe.traces.context import Contexts
from gateway.observe.traces.exporting import BATCH, MAX_WAITING, Exporting
from gateway.observe.traces.otlp import OtlpCollector
from tests.observe.collector import trace_collector
from tests.observe.test_metrics import RECORD

OURS = "gateway"
"""Whose lines are shown; what OpenTelemetry says goes no further."""

TRACED = replace(RECORD, trace=Contexts(1.0).begin([]))


def lines(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.name == OURS]


class Stuck:
    """A collector that takes nothing until it is told to give up."""

    where = "http://collector.test"

    def __init__(self) -> None:
        self.asked, self._aborted = Event(), Event()
        self.batches: list[int] = []

    def send(self, records: list[CallRecord]) -> str | None:
        self.batches.append(len(records))
        self.asked.set()
        self._aborted.wait()
        return "it is stuck"

    def abort(self) -> None:
        self._aborted.set()

    def close(self) -> None:
        """Nothing is open."""


def test_what_a_collector_does_not_take_is_bounded_and_the_end_comes_all_the_same() -> None:
    stuck = Stuck()
    exporting = Exporting(stuck)
    exporting.start()
    for _ in range(BATCH):
        exporting.put(TRACED)
    assert stuck.asked.wait(5)
    for _ in range(MAX_WAITING + 10):
        exporting.put(TRACED)
    assert repr(exporting) == f"Exporting(http://collector.test, {MAX_WAITING} waiting, 10 lost, well)"
    assert exporting.lost == {"queue_full": 10, "not_taken": 0}
    exporting.close(0.01)
    assert sum(stuck.batches) == BATCH + MAX_WAITING
    assert max(stuck.batches) <= BATCH
    assert exporting.lost == {"queue_full": 10, "not_taken": BATCH + MAX_WAITING}


def test_a_collector_that_refuses_gets_one_line_and_another_one_when_it_takes_traces_again(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with trace_collector(400, 401) as collector, caplog.at_level(logging.INFO):
        exporting = Exporting(OtlpCollector(collector.url, "gmi-gateway", "http://upstream.test/v1"))
        exporting.start()
        for number in range(1, 5):
            for _ in range(BATCH):
                exporting.put(TRACED)
            collector.wait_for_requests(number)
        exporting.close(5)
    assert exporting.lost == {"queue_full": 0, "not_taken": 2 * BATCH}, "it never goes down"
    refused, taken = lines(caplog)
    assert refused.startswith(f"Traces cannot be sent to {collector.url} and are lost meanwhile: ")
    assert "400" in refused
    assert taken == f"Traces are sent to {collector.url} again; those of {2 * BATCH} calls were lost."


def test_a_collector_that_is_away_costs_a_line_and_no_more(caplog: pytest.LogCaptureFixture) -> None:
    with trace_collector() as collector:
        gone = collector.url
    exporting = Exporting(OtlpCollector(gone, "gmi-gateway", "http://upstream.test/v1"))
    exporting.start()
    exporting.put(TRACED)
    exporting.close(1)
    (line,) = lines(caplog)
    assert line.startswith(f"Traces cannot be sent to {gone} and are lost meanwhile: ")
    assert "Connection refused" in line


def test_what_waits_at_the_end_is_sent() -> None:
    with trace_collector() as collector:
        exporting = Exporting(OtlpCollector(collector.url, "gmi-gateway", "http://upstream.test/v1"))
        exporting.start()
        exporting.put(TRACED)
        exporting.close(5)
    assert collector.spans.named() == ["chat openai/gpt-5.2", "admit"]
