"""What the doctor says: one finding a line, with its cure."""

from dataclasses import dataclass
from enum import Enum

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


KEY_MISSING = Finding(
    Mark.WARNING,
    "no upstream key, and the gateway was run with one on this database: `serve` refuses to start without",
    f"set GMI_API_KEY, or serve with --simulator; make a key at {KEYS_PAGE}",
)
