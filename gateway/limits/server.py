"""What a limiter needs of Redis: run a script, within a time.

Knows scripts and failures; connections are others' business. What fails is `Away`, whatever the reason was: nobody
waits for a server that has none to give.
"""

import functools
import hashlib
from importlib.resources import files
from typing import Any, Protocol

from gateway.limits.patience import Patience

Argument = str | bytes | int


class Away(Exception):
    """The server did not do what it was asked, or not in time. The text names no address and no password."""


class Script:
    """Some Lua."""

    __slots__ = ("sha", "text")

    def __init__(self, text: bytes) -> None:
        self.text = text
        self.sha = hashlib.sha1(text, usedforsecurity=False).hexdigest()


@functools.cache
def script(file_name: str) -> Script:
    """A file beside this module."""
    return Script((files(__package__) / file_name).read_bytes())


class Server(Protocol):
    """Where scripts run. `is_cluster`: the keys of one run must share a hash tag."""

    is_cluster: bool

    async def run(self, script: Script, keys: list[str], *arguments: Argument, patience: Patience) -> Any:
        """What `script` returns. Raises Away; it may have been run all the same, and even later."""

    async def close(self) -> None:
        """Let go of connections."""
