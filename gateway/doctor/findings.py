"""What the doctor says: one finding a line, with its cure."""

from dataclasses import dataclass
from enum import Enum

from gateway.settings import Server

KEYS_PAGE = "https://console.gmicloud.ai/user-setting/api-keys"
"""Where GMI Cloud makes API keys (docs.gmicloud.ai, API Key Management)."""


class Mark(Enum):
    """How a check ended."""

    GOOD = "✓"
    WARNING = "!"
    BAD = "✗"


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of the doctor's; `cure` is empty where all is well."""

    mark: Mark
    text: str
    cure: str = ""


def cannot_listen(server: Server, error: OSError) -> Finding:
    """What to say when `server`'s address cannot be had."""
    # asyncio's and socket's helpers append the address, which stands in the line already.
    reason = (error.strerror or "no such address").partition(" (while")[0]
    cure = "choose another with --port or --host, or stop what listens there (see: ss -ltnp)"
    return Finding(Mark.BAD, f"cannot listen on {server.host}:{server.port}: {reason}", cure)
