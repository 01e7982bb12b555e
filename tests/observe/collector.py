"""A collector of traces on loopback: takes what OTLP's exporters send, and keeps the spans."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue
from opentelemetry.proto.trace.v1.trace_pb2 import Span


def value(any_value: AnyValue) -> Any:
    """As Python has it."""
    kind = any_value.WhichOneof("value")
    return None if kind is None else getattr(any_value, kind)


def attributes(pairs: Any) -> dict[str, Any]:
    """Those of a span, an event or a resource."""
    found: list[KeyValue] = list(pairs)
    return {pair.key: value(pair.value) for pair in found}


class Spans:
    """All spans of some calls."""

    def __init__(self, spans: list[Span]) -> None:
        self._spans = spans

    def __len__(self) -> int:
        return len(self._spans)

    def __iter__(self) -> Iterator[Span]:
        return iter(self._spans)

    def one(self, name: str) -> Span:
        """The one of this name."""
        (span,) = (span for span in self._spans if span.name == name)
        return span

    def named(self) -> list[str]:
        """Their names, in order of their beginnings."""
        return [span.name for span in sorted(self._spans, key=lambda span: span.start_time_unix_nano)]

    def of_trace(self, trace_id: str) -> Self:
        return type(self)([span for span in self._spans if span.trace_id.hex() == trace_id])

    def children(self, parent: Span) -> Self:
        return type(self)([span for span in self._spans if span.parent_span_id == parent.span_id])


class TraceCollector:
    """`url` is what `traces.endpoint` is set to. `statuses` are the replies' one after another, then 200."""

    def __init__(self, *statuses: int) -> None:
        self.requests: list[tuple[str, dict[str, str], bytes]] = []
        """Path, headers and body of each."""
        self.url = ""
        self._statuses = list(statuses)
        self._changed = threading.Condition()

    def take(self, path: str, headers: dict[str, str], body: bytes) -> int:
        with self._changed:
            self.requests.append((path, headers, body))
            self._changed.notify_all()
            return self._statuses.pop(0) if self._statuses else 200

    def wait_for_requests(self, count: int, within_s: float = 10.0) -> None:
        with self._changed:
            assert self._changed.wait_for(lambda: len(self.requests) >= count, within_s), f"{len(self.requests)} came"

    def exports(self) -> list[ExportTraceServiceRequest]:
        return [ExportTraceServiceRequest.FromString(body) for _, _, body in self.requests]

    @property
    def spans(self) -> Spans:
        return Spans(
            [
                span
                for export in self.exports()
                for resource in export.resource_spans
                for scope in resource.scope_spans
                for span in scope.spans
            ]
        )

    def resource(self) -> dict[str, Any]:
        """Of the first export."""
        return attributes(self.exports()[0].resource_spans[0].resource.attributes)


@contextmanager
def trace_collector(*statuses: int) -> Iterator[TraceCollector]:
    """A collector that listens meanwhile."""
    collector = TraceCollector(*statuses)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True

        def do_POST(self) -> None:
            headers = {name.lower(): text for name, text in self.headers.items()}
            status = collector.take(self.path, headers, self.rfile.read(int(headers["content-length"])))
            self.send_response(status)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            """Nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    collector.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield collector
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
