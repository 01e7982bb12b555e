"""Prometheus metrics out of call records.

Counts are kept in plain dictionaries and turned into metric families only when they are scraped: a call costs a few
additions. Labels come from known sets alone: rows of the route table, configured teams, outcomes, status codes, and
models that upstream has answered for (at most `MAX_MODELS`; the rest is `other`).
"""

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from platform import python_version

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from gateway import __version__
from gateway.call import CallRecord, Usage
from gateway.observe.families import PREFIX, Buckets, Family, Labels

MAX_MODELS = 200
OTHER = "other"

_LATENCY_S = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0)
_OVERHEAD_S = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.5, 1.0)


class _RouteTimes:
    """The three histograms of one route."""

    __slots__ = ("duration", "first_byte", "overhead")

    def __init__(self) -> None:
        self.duration = Buckets(_LATENCY_S)
        self.first_byte = Buckets(_LATENCY_S)
        self.overhead = Buckets(_OVERHEAD_S)

    def observe(self, record: CallRecord) -> None:
        self.duration.observe(record.duration_s)
        if record.first_byte_s is not None:
            self.first_byte.observe(record.first_byte_s)
        if record.overhead_s is not None:
            self.overhead.observe(record.overhead_s)


_TimesOf = tuple[str, str, Callable[[_RouteTimes], Buckets]]
_TIMES: tuple[_TimesOf, ...] = (
    ("request_duration_seconds", "Time from request to end of reply.", lambda times: times.duration),
    ("first_byte_seconds", "Time from request to upstream's first body byte.", lambda times: times.first_byte),
    ("overhead_seconds", "The gateway's own share of the time to the first byte.", lambda times: times.overhead),
)


class _Counter:
    """Counts by label set."""

    def __init__(self, name: str, help_text: str, labels: Labels) -> None:
        self._name, self._help, self._labels = name, help_text, labels
        self._values: dict[Labels, int] = defaultdict(int)

    def add(self, labels: Labels, amount: int = 1) -> None:
        self._values[labels] += amount

    def collect(self) -> Metric:
        family = CounterMetricFamily(PREFIX + self._name, self._help, labels=self._labels)
        for labels, value in self._values.items():
            family.add_metric(labels, value)
        return family


class CallMetrics(Collector):
    """Observes call records; at scrape time gauges are read from the callables in `gauges`, and `families` as well."""

    def __init__(
        self, gauges: Iterable[tuple[str, str, Callable[[], float]]] = (), families: Iterable[Family] = ()
    ) -> None:
        self._gauges = tuple(gauges)
        self._families = tuple(families)
        self._models: set[str] = set()
        self._calls = _Counter(
            "requests", "Calls that have ended.", ("method", "route", "model", "team", "status", "outcome")
        )
        self._tokens = _Counter("tokens", "Tokens that replies reported.", ("model", "team", "kind"))
        self._upstream_errors = _Counter("upstream_errors", "Calls that failed on upstream, by kind.", ("kind",))
        self._times: dict[str, _RouteTimes] = defaultdict(_RouteTimes)

    def observe(self, record: CallRecord, _detail: str = "") -> None:
        """Count one call."""
        path = OTHER if record.route is None else record.route.path
        model = self._model_label(record)
        team = "none" if record.principal is None else record.principal.team
        method = record.method if record.route is not None else OTHER
        self._calls.add((method, path, model, team, str(record.status), record.outcome))
        self._times[path].observe(record)
        if record.upstream_error is not None:
            self._upstream_errors.add((record.upstream_error,))
        if record.usage is not None:
            self._count_tokens(model, team, record.usage)

    def _model_label(self, record: CallRecord) -> str:
        if record.model is None:
            return "none"
        if record.model in self._models:
            return record.model
        if 200 <= record.status < 300 and len(self._models) < MAX_MODELS:
            self._models.add(record.model)
            return record.model
        return OTHER

    def _count_tokens(self, model: str, team: str, usage: Usage) -> None:
        self._tokens.add((model, team, "input"), usage.input_tokens)
        self._tokens.add((model, team, "output"), usage.output_tokens)
        if usage.cached_tokens:
            self._tokens.add((model, team, "cached"), usage.cached_tokens)
        if usage.reasoning_tokens:
            self._tokens.add((model, team, "reasoning"), usage.reasoning_tokens)

    def collect(self) -> Iterator[Metric]:
        yield self._calls.collect()
        yield from map(self._collect_times, _TIMES)
        yield self._tokens.collect()
        yield self._upstream_errors.collect()
        yield from (family.collect() for family in self._families)
        for name, help_text, read in self._gauges:
            yield GaugeMetricFamily(PREFIX + name, help_text, value=read())
        info = GaugeMetricFamily(PREFIX + "build_info", "Versions, as labels.", labels=("version", "python"))
        info.add_metric((__version__, python_version()), 1)
        yield info

    def _collect_times(self, histogram: _TimesOf) -> Metric:
        name, help_text, choose = histogram
        family = HistogramMetricFamily(PREFIX + name, help_text, labels=("route",))
        for path, times in self._times.items():
            buckets = choose(times)
            family.add_metric((path,), buckets.cumulative(), buckets.sum_s)
        return family

    def render(self) -> bytes:
        """All metrics in Prometheus' text format."""
        registry = CollectorRegistry(auto_describe=False)
        registry.register(self)
        return generate_latest(registry)
