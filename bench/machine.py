"""What the kernel says about processes and about the machine, read from /proc (Linux only).

CPU time is what the scheduler charged to every thread of a process and of its
children, in nanoseconds; memory is the resident set, in bytes.
"""

import os
import platform
from pathlib import Path

_PROC = Path("/proc")


def process_tree(pid: int) -> list[int]:
    """The process and all its descendants that are alive."""
    children = [int(child) for task in _tasks(pid) for child in _read(task / "children").split()]
    return [pid, *(found for child in children for found in process_tree(child))]


def cpu_ns(pids: list[int]) -> int:
    """CPU time that the threads of these processes have used, user and system, in nanoseconds."""
    return sum(_task_cpu_ns(task) for pid in pids for task in _tasks(pid))


def rss_bytes(pids: list[int]) -> int:
    """Resident memory of these processes together; pages that they share count for each."""
    return sum(_rss_kib(pid) for pid in pids) * 1024


def cpu_ns_by_process() -> dict[int, int]:
    """CPU time that each process has used which is alive, in nanoseconds; by process id.

    The kernel's own processes too, but for those that carry the packets of whoever sends them (ksoftirqd).
    """
    pids = [int(folder.name) for folder in _PROC.iterdir() if folder.name.isdigit()]
    return {pid: cpu_ns([pid]) for pid in pids if not _read(_PROC / str(pid) / "comm").startswith("ksoftirqd/")}


def stolen_ns() -> int:
    """Time that the host of a virtual machine gave to others while a core wanted to run, all cores, in nanoseconds."""
    return int(_read(_PROC / "stat").split()[8]) * (1_000_000_000 // os.sysconf("SC_CLK_TCK"))


def pin(pid: int, core: int) -> None:
    """Keep a process, and what it starts later, on one core."""
    for found in process_tree(pid):
        os.sched_setaffinity(found, {core})


def describe() -> dict[str, str]:
    """The machine, in words."""
    cpu = next((line.split(":")[1].strip() for line in _lines("cpuinfo") if line.startswith("model name")), "unknown")
    memory_kib = int(next(line.split()[1] for line in _lines("meminfo") if line.startswith("MemTotal")))
    return {
        "cpu": f"{cpu}, {os.cpu_count()} cores",
        "memory": f"{memory_kib / 1024 / 1024:.0f} GiB",
        "kernel": platform.release(),
        "python": platform.python_version(),
        "load before": f"{os.getloadavg()[0]:.2f}",
    }


def _tasks(pid: int) -> list[Path]:
    try:
        return list((_PROC / str(pid) / "task").iterdir())
    except (FileNotFoundError, ProcessLookupError):
        return []


def _task_cpu_ns(task: Path) -> int:
    fields = _read(task / "schedstat").split()
    return int(fields[0]) if fields else 0


def _rss_kib(pid: int) -> int:
    lines = _read(_PROC / str(pid) / "smaps_rollup").splitlines()
    return next((int(line.split()[1]) for line in lines if line.startswith("Rss:")), 0)


def _lines(name: str) -> list[str]:
    return _read(_PROC / name).splitlines()


def _read(path: Path) -> str:
    try:
        return path.read_text()
    except (FileNotFoundError, ProcessLookupError):
        return ""  # the process or thread has ended
