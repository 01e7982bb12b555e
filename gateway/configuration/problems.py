"""What is wrong with the settings, said so that a person can put it right.

Knows where a value came from and how a problem reads. Never holds a value: a
message that quoted one could show a secret.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass

Path = tuple[str | int, ...]
"""Where a value sits in the settings: `("keys", 0, "name")`."""

_PLAIN_KEY = re.compile(r"[A-Za-z_][\w.-]{0,39}")


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a value came from: a file (with its line), an environment variable, the command line."""

    where: str
    line: int | None = None
    rank: int = 0
    """Height of the source: of two, the higher one wins."""

    def __str__(self) -> str:
        return self.where if self.line is None else f"{self.where}:{self.line}"


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is wrong: `origin`, the setting, the reason, and what to do about it."""

    path: Path
    reason: str
    cure: str = ""
    origin: Origin | None = None

    @property
    def key(self) -> str:
        """The setting as people write it: `upstream.api_key`, `keys[0].name`; empty for a file as a whole."""
        return spell(self.path)

    def __str__(self) -> str:
        where = "" if self.origin is None else str(self.origin)
        reason = f"{self.reason}; {self.cure}" if self.cure else self.reason
        return ": ".join(part for part in (where, self.key, reason) if part)


class SettingsError(Exception):
    """The settings cannot be used. `problems` holds all that is wrong, in the order of the sources."""

    def __init__(self, problems: Iterable[Problem]) -> None:
        self.problems = sorted(problems, key=_reading_order)
        super().__init__("\n".join(str(problem) for problem in self.problems))


def spell(path: Path) -> str:
    """A path as people write it. A name that may be a secret in the wrong place is left out."""
    spelled = "".join(f"[{part}]" if isinstance(part, int) else f".{showable(part)}" for part in path)
    return spelled.removeprefix(".")


def showable(name: str) -> str:
    """`name`, or three dots where it does not look like the name of a setting."""
    looks_secret = name.startswith(("sk-", "eyJ"))
    return name if _PLAIN_KEY.fullmatch(name) and not looks_secret else "…"


def overlap(one: Path, other: Path) -> bool:
    """Whether one of the two paths leads through the other."""
    length = min(len(one), len(other))
    return one[:length] == other[:length]


def _reading_order(problem: Problem) -> tuple[int, str, int]:
    origin = problem.origin
    return (-1, "", 0) if origin is None else (origin.rank, origin.where, origin.line or 0)
