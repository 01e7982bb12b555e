"""What a key or a team may use, and how much of it: plain data, as it is stored and shown.

Knows what each term means, which values are legal, and which names a pattern fits. Who holds which terms, and how they
are enforced, is others' business.
"""

from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from typing import Literal, get_args

import msgspec

Role = Literal["member", "team_admin", "admin"]
"""What a key may do besides calling: nothing, run its own team, run the gateway."""

ROLES: tuple[Role, ...] = get_args(Role)
"""From the least to the most."""

State = Literal["active", "disabled", "revoked"]
"""`disabled` can be undone, `revoked` cannot."""


MOST_WAIT_S = 600
"""The longest that a call may wait for its turn, in seconds."""


class Grants(msgspec.Struct, frozen=True, omit_defaults=True):
    """What may be used. None stands for everything, an empty tuple for nothing."""

    models: tuple[str, ...] | None = None
    """Names of models, `*` for any run of characters: `openai/*`."""
    routes: tuple[str, ...] | None = None
    """Groups of the route table: `chat`, `responses`, `files`."""
    networks: tuple[str, ...] | None = None
    """Where calls may come from: `10.0.0.0/8`, `2001:db8::/32`, single addresses."""

    @property
    def is_everything(self) -> bool:
        """Whether nothing is withheld."""
        return self.models is None and self.routes is None and self.networks is None


class Limits(msgspec.Struct, frozen=True, omit_defaults=True):
    """How much in a time, and at once: positive integers. None stands for no limit.

    `max_wait_s` is no limit, but how long a call over one may wait for its turn: 0 to `MOST_WAIT_S` seconds, None: as
    its team says, or else the settings.
    """

    requests_per_minute: int | None = None
    requests_per_hour: int | None = None
    requests_per_day: int | None = None
    tokens_per_minute: int | None = None
    tokens_per_hour: int | None = None
    tokens_per_day: int | None = None
    parallel: int | None = None
    max_wait_s: int | None = None


class Budgets(msgspec.Struct, frozen=True, omit_defaults=True):
    """Money to spend in a period, in integer micro-dollars. None stands for no bound."""

    day_microusd: int | None = None
    week_microusd: int | None = None
    month_microusd: int | None = None
    total_microusd: int | None = None


LIMITS = Limits.__struct_fields__[:-1]
"""The names of all limits."""

SHORT_NAMES = {
    "rpm": "requests_per_minute",
    "rph": "requests_per_hour",
    "rpd": "requests_per_day",
    "tpm": "tokens_per_minute",
    "tph": "tokens_per_hour",
    "tpd": "tokens_per_day",
    "parallel": "parallel",
}
"""Short names of limits, as options have them, and most gateways' settings."""


def limit_meant(name: str) -> str | None:
    """The limit that `name` was perhaps meant to be: that of `rpm`, `token_per_minute` or `max_parallel`."""
    for short, limit in SHORT_NAMES.items():
        if short in name.lower():
            return limit
    return next(iter(get_close_matches(name.lower(), LIMITS, n=1, cutoff=0.7)), None)


_KINDS = (
    ("requests_per_minute", "requests_per_hour", "requests_per_day"),
    ("tokens_per_minute", "tokens_per_hour", "tokens_per_day"),
    ("parallel",),
)


def with_defaults(own: Limits, defaults: Limits) -> Limits:
    """`own`, and of each kind (requests, tokens, parallel calls) that it says nothing of, what the defaults say."""
    missing = {
        member: getattr(defaults, member)
        for members in _KINDS
        if all(getattr(own, member) is None for member in members)
        for member in members
    }
    return msgspec.structs.replace(own, **missing)


EVERYTHING = Grants()
NO_LIMITS = Limits()
NO_BUDGETS = Budgets()


class Quota(msgspec.Struct, frozen=True):
    """What one key is held to, by itself and with its team. Pass the same object as long as nothing changes."""

    team_id: str
    key_id: str
    key: Limits = NO_LIMITS
    team: Limits = NO_LIMITS
    model_limits: Mapping[str, Limits] = msgspec.field(default_factory=dict)
    """Of the team, by upstream's names of models, `*` as wildcard. What a pattern fits shares the pattern's limits."""
    key_budgets: Budgets = NO_BUDGETS
    team_budgets: Budgets = NO_BUDGETS


def matches(pattern: str, name: str) -> bool:
    """Whether `name` fits `pattern`, in which `*` is any run of characters and all else is itself.

    Callers remember the answers, each within bounds of its own: whoever calls chooses the names.
    """
    return fits(pattern.split("*"), name)


def fits(pieces: Sequence[str], name: str) -> bool:
    """As `matches`, of a pattern that was taken apart at its stars.

    Pieces are looked for from left to right, each as early as it can be, which finds a fit if there is one and never
    goes back.
    """
    first, *rest = pieces
    if not rest:
        return name == first
    *middle, last = rest
    if not name.startswith(first):
        return False
    at = len(first)
    for piece in middle:
        at = name.find(piece, at)
        if at < 0:
            return False
        at += len(piece)
    return len(name) - at >= len(last) and name.endswith(last)
