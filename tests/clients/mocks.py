"""The mock servers that others wrote, each a process of its own on a free port of loopback.

Knows how they are started and what they print when they listen; nothing of what they answer.
"""

import re
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_HERE = Path(__file__).parent
FIXTURES = _HERE / "aimock.json"
STOP_TIMEOUT_S = 10


@contextmanager
def running_aimock(node: str) -> Iterator[str]:
    """npm's @copilotkit/aimock; yields its base URL."""
    script = _HERE / "node_modules/@copilotkit/aimock/dist/cli.js"
    with _running([node, str(script), "--port", "0", "--fixtures", str(FIXTURES)]) as url:
        yield f"{url}/v1"


@contextmanager
def running_llmock() -> Iterator[str]:
    """Python's llmock; yields its base URL."""
    with _running([str(Path(sys.executable).parent / "llmock"), "serve", "--port", "0"]) as url:
        yield f"{url}/v1"


@contextmanager
def _running(command: list[str]) -> Iterator[str]:
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        try:
            yield _listening(process)
        finally:
            process.terminate()
            process.wait(STOP_TIMEOUT_S)


def _listening(process: subprocess.Popen[str]) -> str:
    """The URL that the process says it listens on; what it says after that is thrown away."""
    assert process.stdout is not None
    said = []
    for line in process.stdout:
        said.append(line)
        if found := re.search(r"(?:listening|running) on (http://127\.0\.0\.1:[1-9]\d*)", line):
            threading.Thread(target=deque, args=(process.stdout, 0), daemon=True).start()
            return found[1]
    raise AssertionError(f"it did not start: {''.join(said)}")
