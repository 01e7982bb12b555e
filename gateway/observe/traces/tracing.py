"""Traces as the rest of the gateway sees them: a context at a call's start, an observer at its end.

Knows when OpenTelemetry is there at all, and imports it only where it is used.
"""

import asyncio
import contextlib
import sys
from collections.abc import AsyncIterator, Iterable, Mapping
from urllib.parse import urlsplit

from gateway.call import CallRecord, TraceContext
from gateway.observe.families import Counted, Labels
from gateway.observe.traces.context import Contexts
from gateway.observe.traces.exporting import Exporting
from gateway.settings import Settings

_CLOSE_S = 3.0
_SWITCH_S = 0.0005
"""How long the thread that makes spans may keep the loop waiting. Python's own 5 ms would be felt by calls."""
_PATH = "/v1/traces"


class Tracing:
    """Traces calls by `settings`."""

    def __init__(self, endpoint: str, settings: Settings) -> None:
        # 80 ms, and not installed where nobody asked for traces.
        from gateway.observe.traces.otlp import OtlpCollector  # noqa: PLC0415

        traces = settings.traces
        self._contexts = Contexts(traces.sample_ratio)
        collector = OtlpCollector(_signal_url(endpoint), traces.service_name, settings.upstream.base_url)
        self._exporting = Exporting(collector)

    def begin(self, headers: Iterable[tuple[bytes, bytes]]) -> TraceContext:
        """The context of a call with these headers."""
        return self._contexts.begin(headers)

    def observe(self, record: CallRecord, _detail: str = "") -> None:
        """Have the spans of one call sent, if its trace is kept."""
        if record.trace is not None and record.trace.is_sampled:
            self._exporting.put(record)

    def lost(self) -> dict[Labels, int]:
        """Calls whose traces are lost, by reason."""
        return {(reason,): count for reason, count in self._exporting.lost.items()}

    @contextlib.asynccontextmanager
    async def at_work(self) -> AsyncIterator[None]:
        """Spans are sent meanwhile, and what is left of them at the end, within seconds."""
        before_s = sys.getswitchinterval()
        sys.setswitchinterval(min(before_s, _SWITCH_S))
        self._exporting.start()
        try:
            yield
        finally:
            sys.setswitchinterval(before_s)
            await asyncio.to_thread(self._exporting.close, _CLOSE_S)


def tracing(settings: Settings) -> Tracing | None:
    """None where `traces.endpoint` is not set. Raises ModuleNotFoundError without the extra."""
    endpoint = settings.traces.endpoint
    return None if endpoint is None else Tracing(endpoint, settings)


def losses(traces: Tracing | None) -> Counted:
    """What is measured of them; nothing where calls are not traced."""

    def lost() -> Mapping[Labels, int]:
        return {} if traces is None else traces.lost()

    return Counted("traces_lost", "Traces of calls that the collector never got.", ("reason",), lost)


def _signal_url(endpoint: str) -> str:
    """A collector's address alone means its usual path."""
    return endpoint if urlsplit(endpoint).path.strip("/") else endpoint.rstrip("/") + _PATH
