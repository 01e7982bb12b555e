"""Which limit a rule's id names, without saying whose in particular. Pure.

`team_1/key_1/requests/minute` is `key/requests/minute`, `endpoint/upstream/parallel` is `endpoint/parallel`.
"""

import re
from functools import lru_cache

_RATE = re.compile(r"(.+)/((?:requests|tokens)/(?:minute|hour|day)|parallel)")
_BUDGET = re.compile(r"([^/]+(?:/[^/]+)?)/(budget/(?:day|week|month|total))(?:/[^/]+)?")
"""Its window comes last."""


@lru_cache(maxsize=1_000)
def limit_of(rule_id: str) -> str | None:
    """`whose/dimension/period` of a rule, without a period for calls at once; None for what is no rule's id."""
    found = _RATE.fullmatch(rule_id) or _BUDGET.fullmatch(rule_id)
    return None if found is None else f"{_whose(found[1])}/{found[2]}"


def _whose(subject: str) -> str:
    first, slash, rest = subject.partition("/")
    if not slash:
        return "team"
    if first == "endpoint":
        return "endpoint"
    return "model" if rest.startswith("model/") else "key"
