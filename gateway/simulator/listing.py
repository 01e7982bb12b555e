"""Pages of lists, with the cursors of OpenAI's API (`limit`, `order`, `after`, `before`).

Knows query parameters and ids; refuses to know what is listed.
See https://platform.openai.com/docs/api-reference/chat/list.
"""

from collections.abc import Mapping, Sequence

from gateway.simulator.call import Json, Reply, json_reply
from gateway.simulator.refusals import Refusal, invalid

DEFAULT_LIMIT = 20
MAX_LIMIT = 100


def list_reply(items: Sequence[Json], query: Mapping[str, list[str]], order: str = "desc") -> Reply:
    """One page of `items` (oldest first) as `{"object": "list", data, first_id, last_id, has_more}`."""
    ordered = list(items) if _one(query, "order", order) == "asc" else list(reversed(items))
    rest = _between(ordered, _one(query, "after"), _one(query, "before"))
    limit = _limit(_one(query, "limit"))
    data = rest[:limit]
    return json_reply(
        {
            "object": "list",
            "data": data,
            "first_id": data[0]["id"] if data else None,
            "last_id": data[-1]["id"] if data else None,
            "has_more": len(rest) > limit,
        }
    )


def _one(query: Mapping[str, list[str]], name: str, default: str = "") -> str:
    return query.get(name, [default])[-1]


def _limit(text: str) -> int:
    if not text:
        return DEFAULT_LIMIT
    if not text.isascii() or not text.isdigit() or not 1 <= int(text[:9]) <= MAX_LIMIT:
        raise invalid("limit", f"Invalid 'limit': expected an integer from 1 to {MAX_LIMIT}.")
    return int(text)


def _between(items: list[Json], after: str, before: str) -> list[Json]:
    start = _position(items, after) + 1 if after else 0
    end = _position(items, before) if before else len(items)
    return items[start:end]


def _position(items: list[Json], object_id: str) -> int:
    for index, item in enumerate(items):
        if item["id"] == object_id:
            return index
    raise Refusal(404, f"No object found with id '{object_id}'.", param="after")
