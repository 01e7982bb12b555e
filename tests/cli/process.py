"""`gmi-gateway` as a process of its own: started, stopped, and what it prints read and pasted."""

import os
import shlex
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx2

ROOT = Path(__file__).parents[2]
CANARY = "canary-5f2e8c1b9d7a4e60"
OWN_KEY = "0123456789abcdef0123"


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "gateway", *arguments]


def run(*arguments: str, **environ: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, **environ}
    return subprocess.run(command(*arguments), env=environment, capture_output=True, text=True, timeout=30, check=False)


@contextmanager
def serving(*arguments: str, **environ: str) -> Iterator[subprocess.Popen[str]]:
    """`gmi-gateway serve` as a process on a free port; it is told to stop at the end, if it has not been."""
    process = subprocess.Popen(
        command("serve", "--port", "0", *arguments),
        env={**os.environ, **environ},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        yield process
    finally:
        if process.poll() is None:
            process.kill()
        process.communicate(timeout=10)


def stop(process: subprocess.Popen[str]) -> tuple[int, str, str]:
    process.send_signal(signal.SIGTERM)
    out, err = process.communicate(timeout=10)
    return process.returncode, out, err


def without_log(err: str) -> str:
    """What of standard error is for whoever started it: the log's lines are JSON."""
    return "".join(line for line in err.splitlines(keepends=True) if not line.startswith("{"))


def until_curl(process: subprocess.Popen[str]) -> list[str]:
    """The lines that are printed first, up to the one to paste."""
    assert process.stdout is not None
    lines: list[str] = []
    for line in process.stdout:
        lines.append(line.rstrip("\n"))
        if line.startswith("curl "):
            return lines
    raise AssertionError("\n".join([*lines, process.stderr.read() if process.stderr else ""]))


def paste(line: str) -> httpx2.Response:
    """Do what a shell and curl would do with the line."""
    words = shlex.split(line)
    assert words[0] == "curl"
    assert words[2::2] == ["-H", "-H", "-d"]
    headers = dict(header.split(": ", 1) for header in (words[3], words[5]))
    return httpx2.post(words[1], headers=headers, content=words[7], timeout=10, trust_env=False)
