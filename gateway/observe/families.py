"""Metric families that are read where somebody else counts, at the moment when they are scraped.

Knows Prometheus' kinds of metrics and how buckets are kept; nothing of what is measured. `labels` are names, the keys
of what is read their values, in the same order; a family that reads nothing has no samples.
"""

from bisect import bisect_left
from collections.abc import Callable, Mapping
from typing import NamedTuple, Protocol

from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
    SummaryMetricFamily,
)

PREFIX = "gmi_gateway_"

Labels = tuple[str, ...]


class Family(Protocol):
    """One metric, with all its label sets."""

    def collect(self) -> Metric: ...


class Buckets:
    """One histogram of one label set."""

    __slots__ = ("bounds_s", "counts", "sum_s")

    def __init__(self, bounds_s: tuple[float, ...]) -> None:
        self.bounds_s = bounds_s
        self.counts = [0] * (len(bounds_s) + 1)
        self.sum_s = 0.0

    def observe(self, seconds: float) -> None:
        """Count one time."""
        self.counts[bisect_left(self.bounds_s, seconds)] += 1
        self.sum_s += seconds

    def cumulative(self) -> list[tuple[str, float]]:
        """Bounds as labels, each with how many times were no longer."""
        total, buckets = 0, []
        for bound, count in zip((*map(str, self.bounds_s), "+Inf"), self.counts, strict=True):
            total += count
            buckets.append((bound, float(total)))
        return buckets


class Counted(NamedTuple):
    """What only grows."""

    name: str
    help_text: str
    labels: Labels
    read: Callable[[], Mapping[Labels, int]]

    def collect(self) -> Metric:
        """As it is now."""
        family = CounterMetricFamily(PREFIX + self.name, self.help_text, labels=self.labels)
        for values, count in self.read().items():
            family.add_metric(values, count)
        return family


class Gauged(NamedTuple):
    """What goes up and down."""

    name: str
    help_text: str
    labels: Labels
    read: Callable[[], Mapping[Labels, float]]

    def collect(self) -> Metric:
        """As it is now."""
        family = GaugeMetricFamily(PREFIX + self.name, self.help_text, labels=self.labels)
        for values, value in self.read().items():
            family.add_metric(values, value)
        return family


class Timed(NamedTuple):
    """Times, in buckets."""

    name: str
    help_text: str
    buckets: Buckets

    def collect(self) -> Metric:
        """As it is now."""
        family = HistogramMetricFamily(PREFIX + self.name, self.help_text)
        family.add_metric((), self.buckets.cumulative(), self.buckets.sum_s)
        return family


class Summed(NamedTuple):
    """Times, of which only number and sum are kept: `read` tells both, in seconds; None: there are none."""

    name: str
    help_text: str
    read: Callable[[], tuple[int, float] | None]

    def collect(self) -> Metric:
        """As it is now."""
        family = SummaryMetricFamily(PREFIX + self.name, self.help_text)
        told = self.read()
        if told is not None:
            family.add_metric((), *told)
        return family
