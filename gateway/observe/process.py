"""What Prometheus' own libraries tell of every process: time on a CPU, memory, open files.

Knows the usual names (https://prometheus.io/docs/instrumenting/writing_clientlibs/#process-metrics), and what they come
to where several processes are one gateway. Without samples where there is no /proc.
"""

from collections.abc import Iterator

from prometheus_client import ProcessCollector

from gateway.observe.families import Kind, Merge, Reading

_FAMILIES: tuple[tuple[str, Kind, Merge], ...] = (
    ("process_cpu_seconds", "counter", "sum"),
    ("process_resident_memory_bytes", "gauge", "sum"),
    ("process_virtual_memory_bytes", "gauge", "sum"),
    ("process_open_fds", "gauge", "sum"),
    ("process_max_fds", "gauge", "min"),
    ("process_start_time_seconds", "gauge", "min"),
)


class ProcessFamilies:
    """Those of this process."""

    def __init__(self) -> None:
        self._collector = ProcessCollector(registry=None)

    def collect(self) -> Iterator[Reading]:
        """As they are now."""
        found = {family.name: family for family in self._collector.collect()}
        for name, kind, merge in _FAMILIES:
            if name in found:
                samples = {tuple[str, ...](): sample.value for sample in found[name].samples}
                yield Reading(name, found[name].documentation, kind, (), samples, merge)
