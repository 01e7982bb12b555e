"""Prometheus' text format, version 0.0.4, out of readings.

Knows how names, labels and numbers are written
(https://prometheus.io/docs/instrumenting/exposition_formats/); nothing of what they mean. It is our own because a page
may have ten thousand lines, and calls wait while it is written.
"""

from collections.abc import Iterable, Iterator

from gateway.observe.families import Counts, Reading

MEDIA_TYPE = "text/plain; version=0.0.4; charset=utf-8"


def render(readings: Iterable[Reading]) -> bytes:
    """One page of all metrics."""
    return "".join(line for reading in readings for line in _lines(reading)).encode("utf-8", "replace")


def _lines(reading: Reading) -> Iterator[str]:
    name = reading.name + ("_total" if reading.kind == "counter" else "")
    help_text = reading.help_text.replace("\\", r"\\").replace("\n", r"\n")
    yield f"# HELP {name} {help_text}\n# TYPE {name} {reading.kind}\n"
    for values, value in reading.samples.items():
        labels = ",".join(f'{label}="{_escaped(text)}"' for label, text in zip(reading.labels, values, strict=True))
        if not isinstance(value, Counts):
            shown = value if reading.divisor == 1 else value / reading.divisor
            yield f"{name}{{{labels}}} {shown}\n" if labels else f"{name} {shown}\n"
        else:
            yield from _counted(reading, labels, value)


def _counted(reading: Reading, labels: str, value: Counts) -> Iterator[str]:
    """The samples of one histogram or summary."""
    total, before = 0, f"{labels}," if labels else ""
    for bound, count in zip((*reading.bounds, "+Inf"), value.counts, strict=True):
        total += count
        if reading.kind == "histogram":
            yield f'{reading.name}_bucket{{{before}le="{bound}"}} {total}\n'
    after = f"{{{labels}}}" if labels else ""
    yield f"{reading.name}_count{after} {total}\n{reading.name}_sum{after} {value.sum}\n"


def _escaped(text: str) -> str:
    if "\\" in text or '"' in text or "\n" in text:
        return text.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")
    return text
