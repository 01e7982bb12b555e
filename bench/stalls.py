"""How long a core stands still for a program that wants nothing but to run: what the machine adds to a slow call.

A process of its own looks at the clock again and again; where more than a millisecond passed between two looks, the
kernel or the host of a virtual machine had something else to do.
"""

import os
import subprocess
import sys
from collections.abc import Sequence

from bench.alarm import now_ns

_STALL_NS = 1_000_000


def stalls_ms(cores: Sequence[int], seconds: float) -> list[float]:
    """Every stall of more than a millisecond while `cores` are kept busy and nothing else runs, in milliseconds."""
    spinning = [
        subprocess.Popen(  # noqa: S603 - this very module
            [sys.executable, "-m", "bench.stalls", str(core), str(seconds)], stdout=subprocess.PIPE, text=True
        )
        for core in cores
    ]
    return [float(each) for process in spinning for each in process.communicate()[0].split()]


def described(stalls: Sequence[float], seconds: float) -> str:
    """A sentence for the report."""
    if not stalls:
        return "With all cores busy and nothing measured, no core stood still for more than 1 ms."
    return (
        "With all cores busy and nothing measured, a core stood still for more than 1 ms "
        f"{len(stalls) / seconds:.1f} times a second, for {sum(stalls) / seconds:.1f} ms of each second in all, "
        f"and for {max(stalls):.1f} ms at most."
    )


def _spin(core: int, seconds: float) -> None:
    os.sched_setaffinity(0, {core})
    before = now_ns()
    end = before + int(seconds * 1e9)
    while before < end:
        now = now_ns()
        if now - before > _STALL_NS:
            sys.stdout.write(f"{(now - before) / 1e6}\n")
        before = now


if __name__ == "__main__":
    _spin(int(sys.argv[1]), float(sys.argv[2]))
