"""The key of a first try, which works in front of the simulator alone.

Its secret is kept in a file, unlike those of other keys: so whoever starts the simulator again, or a second one in the
same folder, ends nobody's first try. A start in front of a real upstream disables it.
"""

import fcntl
import os
from pathlib import Path

from gateway.access.keys import is_well_formed, new_secret

FILE = "demo.key"
_MOST = 1_000
"""Characters that are read: a key has fewer."""


def demo_secret(folder: Path) -> str:
    """The secret that `folder` keeps, made if there is none. Raises OSError."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    descriptor = os.open(folder / FILE, os.O_RDWR | os.O_CREAT, 0o600)
    with os.fdopen(descriptor, "r+", encoding="utf-8", errors="replace") as file:
        fcntl.flock(file, fcntl.LOCK_EX)  # two starts at once agree
        found = file.read(_MOST).strip()
        if is_well_formed(found):
            return found
        file.seek(0)
        file.truncate()
        made = new_secret()
        file.write(f"{made}\n")
        return made
