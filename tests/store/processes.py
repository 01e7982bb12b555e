"""Several processes on one database at once."""

import subprocess
import sys

from sqlalchemy import URL


def run_at_once(count: int, url: URL, *task: str) -> list[tuple[int, str]]:
    """Exit status and error output of `count` processes that were let go together."""
    text = url.set(drivername=url.get_backend_name()).render_as_string(hide_password=False)
    command = [sys.executable, "-m", "tests.store.program", text, *task]
    pipe = subprocess.PIPE
    children = [subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe, text=True) for _ in range(count)]
    for child in children:
        assert child.stdout is not None
        assert child.stdout.readline() == "ready\n"
    return [_finished(child) for child in _let_go(children)]


def _let_go(children: list[subprocess.Popen[str]]) -> list[subprocess.Popen[str]]:
    for child in children:
        assert child.stdin is not None
        child.stdin.write("go\n")
        child.stdin.flush()
    return children


def _finished(child: subprocess.Popen[str]) -> tuple[int, str]:
    _, errors = child.communicate(timeout=60)
    return child.returncode, errors
