"""The ledger of a running gateway, asked over its admin API: the same questions and answers as those of the store.

What a key may see is the gateway's to say.
"""

from typing import Any
from urllib.parse import quote
from zoneinfo import ZoneInfo

from gateway.cli.api import Api, Refused
from gateway.metering.ledger_query import (
    Call,
    CallsPage,
    CallsQuery,
    Filters,
    GroupValue,
    Sums,
    UsageGroup,
    UsagePage,
    UsageQuery,
)

_MOST = 200
"""Groups or calls of one reply."""
_CLASSES = ("none", "1xx", "2xx", "3xx", "4xx", "5xx")
_TAG = "tag:"


class RemoteLedger:
    """Every method raises `Refused`. A page may have less than was asked for, and then says what is next.

    `is_own`: of the key that asks alone, which is all that a member may ask for.
    """

    def __init__(self, api: Api, *, is_own: bool = False) -> None:
        self._api = api
        self._below = "/me" if is_own else ""

    async def zone(self) -> ZoneInfo:
        """The time zone of its days."""
        told = await self._api.get(f"{self._below}/usage", group_by="", since=0, until=0)
        return ZoneInfo(told["time_zone"])

    async def usage(self, query: UsageQuery) -> UsagePage:
        """One page of sums."""
        told = await self._api.get(
            f"{self._below}/usage",
            **_filters(query),
            group_by=",".join(query.group_by),
            sort=query.sort,
            limit=min(query.limit, _MOST),
            after=query.after,
        )
        groups = (UsageGroup(_group(query.group_by, row["group"]), _sums(row)) for row in told["data"])
        return UsagePage(tuple(groups), _sums(told["totals"]), told["next"], told["source"])

    async def calls(self, query: CallsQuery) -> CallsPage:
        """One page of single calls."""
        statuses = [_CLASSES[first] for first in query.status_classes or ()]
        told = await self._api.get(
            f"{self._below}/calls",
            **_filters(query),
            outcome=None if query.outcomes is None else ",".join(query.outcomes),
            status=_one("--status", statuses),
            error=_one("--error", query.errors),
            limit=min(query.limit, _MOST),
            after=query.after,
        )
        return CallsPage(tuple(map(_call, told["data"])), told["next"])

    async def call(self, call_id: str) -> Call | None:
        """One call, if there is one that the key may see."""
        try:
            return _call(await self._api.get(f"{self._below}/calls/{quote(call_id, safe='')}"))
        except Refused as refusal:
            if refusal.status in (400, 404):  # no call has an id that cannot stand in a path
                return None
            raise


def _filters(query: Filters) -> dict[str, Any]:
    return {
        "since": query.since_us // 1_000_000,
        "until": query.until_us // 1_000_000,
        "team": _one("--team", query.team_ids),
        "key": _one("--key-of", query.key_ids),
        "model": _one("--model", query.models),
        "route": _one("--route", query.routes),
        "tag": _one("--tag", [f"{name}={value}" for name, value in query.tags.items()]),
    }


def _one(option: str, values: Any) -> str | None:
    if values is not None and len(values) > 1:
        raise Refused(f"With --url, {option} can be said once. Ask for one after the other.")
    return values[0] if values else None


def _group(words: tuple[str, ...], told: dict[str, Any]) -> dict[str, GroupValue]:
    return {word: _value(word, told) for word in words}


def _value(word: str, told: dict[str, Any]) -> GroupValue:
    if word.startswith(_TAG):
        found = told["tags"][word.removeprefix(_TAG)]
    else:
        found = told[f"{word}_id" if word in ("team", "key") else word]
    return found if found is None or isinstance(found, int) else str(found)


def _sums(told: dict[str, Any]) -> Sums:
    return Sums(**{name: told[name] for name in Sums.__struct_fields__})


def _call(told: dict[str, Any]) -> Call:
    return Call(**{name: told[name] for name in Call.__struct_fields__})
