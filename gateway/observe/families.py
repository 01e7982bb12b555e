"""Metric families that are read where somebody else counts, at the moment when they are scraped.

Knows Prometheus' kinds of metrics, how buckets are kept, and how what several processes read adds up; nothing of what
is measured. `labels` are names, the keys of what is read their values, in the same order; a family that reads nothing
has no samples.
"""

from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Literal, NamedTuple, Protocol

import msgspec

PREFIX = "gmi_gateway_"

Labels = tuple[str, ...]
Kind = Literal["counter", "gauge", "histogram", "summary"]
Merge = Literal["sum", "max", "min"]
"""What a gauge of several processes is: their sum, or the largest or the smallest of theirs."""


class Counts(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """How many were in each bucket, of which the last has no bound, and the sum of all. A summary has one bucket."""

    counts: tuple[int, ...]
    sum: float


Value = int | float | Counts


class Reading(msgspec.Struct, frozen=True):
    """One metric at one moment, with all its label sets. `bounds` are those of a histogram's buckets.

    `divisor`: what a value is divided by when it is shown, so that until then it can be an integer.
    """

    name: str
    help_text: str
    kind: Kind
    labels: Labels
    samples: Mapping[Labels, Value]
    merge: Merge = "sum"
    bounds: tuple[float, ...] = ()
    divisor: int = 1

    @property
    def only_grows(self) -> bool:
        """Whether it stays true of a process that is gone."""
        return self.kind != "gauge"


class Family(Protocol):
    """One metric, with all its label sets."""

    def collect(self) -> Reading: ...


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

    def read(self) -> Counts:
        """As it is now."""
        return Counts(tuple(self.counts), self.sum_s)


class Counted(NamedTuple):
    """What only grows."""

    name: str
    help_text: str
    labels: Labels
    read: Callable[[], Mapping[Labels, int]]
    divisor: int = 1
    """As `Reading.divisor`."""

    def collect(self) -> Reading:
        """As it is now."""
        samples = dict(self.read())
        return Reading(PREFIX + self.name, self.help_text, "counter", self.labels, samples, divisor=self.divisor)


class Gauged(NamedTuple):
    """What goes up and down. Several processes' is their sum, or what `merge` says."""

    name: str
    help_text: str
    labels: Labels
    read: Callable[[], Mapping[Labels, float]]
    merge: Merge = "sum"

    def collect(self) -> Reading:
        """As it is now."""
        samples = {labels: float(value) for labels, value in self.read().items()}
        return Reading(PREFIX + self.name, self.help_text, "gauge", self.labels, samples, self.merge)


class Timed(NamedTuple):
    """Times, in buckets."""

    name: str
    help_text: str
    buckets: Buckets

    def collect(self) -> Reading:
        """As it is now."""
        samples: dict[Labels, Counts] = {(): self.buckets.read()}
        return Reading(PREFIX + self.name, self.help_text, "histogram", (), samples, bounds=self.buckets.bounds_s)


class Summed(NamedTuple):
    """Times, of which only number and sum are kept: `read` tells both, in seconds; None: there are none."""

    name: str
    help_text: str
    read: Callable[[], tuple[int, float] | None]

    def collect(self) -> Reading:
        """As it is now."""
        told = self.read()
        samples: dict[Labels, Counts] = {} if told is None else {(): Counts((told[0],), told[1])}
        return Reading(PREFIX + self.name, self.help_text, "summary", (), samples)


def merged(processes: Iterable[Sequence[Reading]]) -> list[Reading]:
    """What several processes read, as one, in the order in which the first of them has it.

    Of two readings of one name that differ in more than their samples, which two versions may have, the first counts.
    """
    found: dict[str, Reading] = {}
    for reading in (each for process in processes for each in process):
        known = found.setdefault(reading.name, reading)
        if known is not reading and _shape(known) == _shape(reading):
            found[reading.name] = _added(known, reading)
    return list(found.values())


def _added(known: Reading, reading: Reading) -> Reading:
    samples = dict(known.samples)
    for labels, value in reading.samples.items():
        before = samples.get(labels)
        samples[labels] = value if before is None else _both(known.merge, before, value)
    return msgspec.structs.replace(known, samples=samples)


def _shape(reading: Reading) -> tuple[object, ...]:
    return reading.kind, reading.labels, reading.bounds, reading.divisor


def _both(merge: Merge, one: Value, other: Value) -> Value:
    if isinstance(one, Counts) and isinstance(other, Counts):
        return Counts(tuple(map(sum, zip(one.counts, other.counts, strict=True))), one.sum + other.sum)
    if isinstance(one, Counts) or isinstance(other, Counts):
        raise TypeError("a number and a histogram cannot be added")
    if merge == "sum":
        return one + other
    return max(one, other) if merge == "max" else min(one, other)


def growing(readings: Iterable[Reading]) -> Iterator[Reading]:
    """Those of `readings` that stay true of a process that is gone."""
    return (reading for reading in readings if reading.only_grows)
