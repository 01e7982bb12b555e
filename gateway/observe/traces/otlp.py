"""Spans to a collector by OTLP over HTTP, with OpenTelemetry's own exporter.

Knows which of its environment variables hold here: OTEL_EXPORTER_OTLP_HEADERS and the other ones of the exporter
(certificates, timeout, compression), and OTEL_RESOURCE_ATTRIBUTES. What it logs becomes the reason of a failure.
"""

import logging
import re
from uuid import uuid4

from opentelemetry.exporter.otlp.proto.http import trace_exporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace.export import SpanExportResult

from gateway import __version__
from gateway.call import CallRecord
from gateway.observe.traces.spans import Spans

_LONGEST_REASON = 300
_CAUSE = re.compile(r"Caused by (.*\))\)")
"""The part of urllib3's messages that says why."""


class OtlpCollector:
    """The collector at `endpoint`, the full URL, which `traces.endpoint` is read as."""

    def __init__(self, endpoint: str, service_name: str, base_url: str) -> None:
        self.where = endpoint
        ours = Resource.create({"service.name": service_name, "service.version": __version__})
        self._spans = Spans(base_url, Resource({"service.instance.id": str(uuid4())}).merge(ours))
        self._exporter = trace_exporter.OTLPSpanExporter(endpoint)
        self._heard = _Heard()

    def send(self, records: list[CallRecord]) -> str | None:
        """As `Collector.send`."""
        try:
            result = self._exporter.export([span for record in records for span in self._spans.of(record)])
        except Exception as error:  # the thread goes on with the next ones, whatever a library makes of these
            return repr(type(error))
        reason = self._heard.take()
        return None if result is SpanExportResult.SUCCESS else reason or "no reason was given"

    def abort(self) -> None:
        """As `Collector.abort`."""
        self._exporter.shutdown()  # type: ignore[no-untyped-call]

    def close(self) -> None:
        """As `Collector.close`."""
        self._heard.close()


class _Heard(logging.Handler):
    """What the exporter says first of a failure, in place of its lines in the log: one a retry is too many."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self._first: str | None = None
        self._logger = logging.getLogger(trace_exporter.__name__)
        self._logger.propagate = False
        self._logger.addHandler(logging.NullHandler())  # else Python would print what nobody listens to
        self._logger.addHandler(self)

    def take(self) -> str | None:
        """What was said first since the last time."""
        first, self._first = self._first, None
        return first

    def emit(self, record: logging.LogRecord) -> None:
        if self._first is None:
            message = record.getMessage()
            cause = _CAUSE.search(message)
            self._first = (message if cause is None else cause[1])[:_LONGEST_REASON]

    def close(self) -> None:
        self._logger.removeHandler(self)
        super().close()
