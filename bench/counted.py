"""A program whose bytecodes are counted: `python -m bench.counted FILE MODULE ARGUMENT ...` runs `MODULE`.

SIGUSR1 begins to count what its main thread runs, SIGUSR2 ends that and writes to FILE, as JSON, `[[function, path,
times called, bytecodes], ...]`. Counting is slow, so nothing else is to be measured meanwhile; the numbers depend on no
clock and no cache, only on the program and its input.
"""

import json
import runpy
import signal
import sys
from collections import Counter
from pathlib import Path
from types import CodeType, FrameType
from typing import Any

_calls: Counter[CodeType] = Counter()
_bytecodes: Counter[CodeType] = Counter()


def main() -> None:
    found, module = Path(sys.argv[1]), sys.argv[2]
    signal.signal(signal.SIGUSR1, lambda *_: sys.settrace(_enter))
    signal.signal(signal.SIGUSR2, lambda *_: _write(found))
    sys.argv = sys.argv[2:]
    runpy.run_module(module, run_name="__main__", alter_sys=True)


def _enter(frame: FrameType, event: str, _: Any) -> Any:
    if event != "call":
        return None
    frame.f_trace_lines, frame.f_trace_opcodes = False, True
    _calls[frame.f_code] += 1
    return _count


def _count(frame: FrameType, event: str, _: Any) -> Any:
    if event == "opcode":
        _bytecodes[frame.f_code] += 1
    return _count


def _write(found: Path) -> None:
    sys.settrace(None)
    rows = [(code.co_qualname, code.co_filename, _calls[code], count) for code, count in _bytecodes.most_common()]
    partial = found.with_suffix(".partial")
    partial.write_text(json.dumps(rows))
    partial.rename(found)


if __name__ == "__main__":
    main()
