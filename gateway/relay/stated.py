"""How much of an answer a call has asked for in its own words.

Knows which members each route reads, and so which say nothing there: whoever states a small number where nobody reads
it would be estimated by it. Refuses to know what models really answer.
"""

from gateway.call import Dialect, Route
from gateway.relay.body import Peek

_CHAT = Dialect.CHAT  # every call asks, and a member of an Enum is slow to find


def stated_output(route: Route, seen: Peek) -> tuple[int | None, int]:
    """The most tokens that each answer may have, and how many answers there are to be.

    None where the call does not say, 0 where its route has no output. Of two bounds that may hold, the larger.
    """
    if route.dialect is _CHAT:
        if route.group == "completions":
            return seen.max_tokens, max(seen.n, seen.best_of) * seen.prompts
        bound, other = seen.max_completion_tokens, seen.max_tokens
        return other if bound is None or (other is not None and other > bound) else bound, seen.n
    if route.group == "images":
        return None, seen.n
    return (seen.max_output_tokens, 1) if route.group == "responses" else (0, 1)
