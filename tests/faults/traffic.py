"""A run of mixed calls: who makes them through which gateways, and all that is told of them when they have ended.

Knows teams, keys and their limits; what the numbers must be is the tests' business.
"""

import asyncio
import json
import random
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gateway.simulator import running_simulator
from tests.faults.accounts import Accounts, accounts_of, spent
from tests.faults.bills import Tokens, price_file, tokens_of
from tests.faults.face import CHAT, RESPONSES, ask, connected, request
from tests.faults.mixed_calls import ALIAS, EMBEDDING, EMBEDDINGS, FREE, LARGE, SMALL, Caller, Draw, Planned, Seen
from tests.faults.nodes import ADMIN_SECRET, Admin, Made, url_text
from tests.limits.servers import Server
from tests.support.gateway import RunningGateway, running_gateway
from tests.support.stores import fresh_sqlite_url

LANES = 16
LATE_MODEL = LARGE
"""Of responses that are made in the background."""
SEED = 20_261_122
MONEY = {"total_microusd": 10**12}
FIRST_TOKENS = 200_000
"""Of the first call of each, so that a bucket of tokens always holds more than is given back while a call lasts: what a
bucket cannot tell from what has drained, it keeps."""


def households(count: int) -> tuple[dict[str, dict[str, Any]], dict[str, dict[str, Any]]]:
    """Teams, and keys by name, whose limits hold so many calls and not many more: so tokens come back slowly."""
    tokens = {"tokens_per_day": 200 * count + 5 * FIRST_TOKENS}
    teams: dict[str, dict[str, Any]] = {
        "engines": {"limits": {**tokens, "parallel": 1_000}, "model_limits": {"openai/*": tokens}, "budgets": MONEY},
        "sails": {"limits": tokens, "budgets": MONEY},
        "shoestring": {},
        "unbound": {},
    }
    keys: dict[str, dict[str, Any]] = {
        "ada": {"team": "engines", "limits": tokens, "budgets": MONEY},
        "bob": {"team": "engines", "limits": {**tokens, "requests_per_day": 10**6}},
        "cyd": {"team": "sails", "limits": tokens, "grants": {"models": ["openai/*"]}},
        "dot": {"team": "sails", "limits": {"parallel": 1_000}, "budgets": MONEY},
        "eve": {"team": "shoestring", "budgets": {"total_microusd": 3_000}},
        "fay": {"team": "shoestring", "limits": {"requests_per_day": 5}},
        "gus": {"team": "unbound"},
    }
    return teams, keys


WEIGHTS = {"ada": 5, "bob": 4, "cyd": 3, "dot": 3, "eve": 1, "fay": 1, "gus": 3}


@dataclass(frozen=True)
class Run:
    """All that came of it. `late` is what upstream says of responses that were made in the background, by the
    id of its record; `first_s` between which moments the first call of each key was made.
    """

    people: dict[str, Made]
    seen: list[Seen]
    late: dict[str, Tokens]
    first_s: dict[str, tuple[float, float]]
    told: Accounts
    spent: dict[str, int]

    def call_of(self, seen: Seen) -> dict[str, Any]:
        """The record of a call; one without a reply is found by its tag."""
        if seen.call_id is not None:
            return self.told.calls[seen.call_id]
        tags = {"number": str(seen.planned.number)}
        return next(call for call in self.told.calls.values() if call["tags"] == tags)


async def run_of(kind: str, folder: Path, count: int) -> Run:
    """So many calls through one gateway that counts limits in memory, or two that share them in Valkey (`kind`)."""
    (folder / "prices.yaml").write_text(price_file())
    database = fresh_sqlite_url(folder)
    sections: dict[str, Any] = {
        "database": {"url": url_text(database)},
        "admin": {"key": ADMIN_SECRET},
        "prices": {"file": str(folder / "prices.yaml")},
        "models": {"aliases": {ALIAS: SMALL}},
        "upstream": {"first_byte_timeout_s": 2.0},
        "keys": [],
    }
    with ExitStack() as stack:
        if kind == "valkey":
            server = Server()
            stack.callback(server.close)
            server.start()
            sections["redis"] = {"url": server.url}
        base_url = stack.enter_context(running_simulator(seed=SEED))
        nodes = 2 if kind == "valkey" else 1
        gateways = [stack.enter_context(running_gateway(base_url, **sections)) for _ in range(nodes)]
        people = await _made(Admin(gateways[0].port), count)
        traffic = Traffic(gateways, int(base_url.split(":")[2].split("/")[0]), people)
        await traffic.flow(count)
        told = await accounts_of(gateways, list(people.values()))
    return Run(people, traffic.seen, traffic.late, traffic.first_s, told, await spent(database))


async def _made(admin: Admin, count: int) -> dict[str, Made]:
    teams, keys = households(count)
    for name, terms in teams.items():
        await admin.do("POST", "/teams", {"name": name, **terms})
    made = {name: await admin.do("POST", "/keys", {"name": name, **terms}) for name, terms in keys.items()}
    return {name: Made(each["id"], keys[name]["team"], name, each["secret"]) for name, each in made.items()}


class Traffic:
    """Calls through gateways in front of the simulator on that port, and what was seen of them."""

    def __init__(self, gateways: list[RunningGateway], simulator: int, people: dict[str, Made]) -> None:
        self._gateways, self._people = gateways, people
        self._seen: list[list[Seen]] = [[] for _ in gateways]
        self._besides = [0 for _ in gateways]
        self.late: dict[str, Tokens] = {}
        self.first_s: dict[str, tuple[float, float]] = {}
        self._callers = [
            Caller(gateways[lane % len(gateways)].port, simulator, random.Random(lane)) for lane in range(LANES)
        ]

    @property
    def seen(self) -> list[Seen]:
        return [each for of_node in self._seen for each in of_node]

    async def flow(self, count: int) -> None:
        """So many calls, and some before and after them; returns when all are on record."""
        await self._begin()
        weighted = {name: (who, WEIGHTS[name]) for name, who in self._people.items()}
        draw = Draw(random.Random(SEED), weighted, bounded=frozenset(("eve", "fay")), unbound=frozenset(("gus",)))
        drawn = list(draw.calls(count))
        calls = (call for call in drawn if call.fate != "unanswered")
        await asyncio.gather(*(self._lane(lane, calls) for lane in range(LANES)))
        for call in drawn:
            if call.fate == "unanswered":
                self._seen[0].append(await self._callers[0].leave_unanswered(call))
        for number in range(max(3, count // 500)):
            await self._in_background(number)
        await self._strangers()
        for gateway, seen, besides in zip(self._gateways, self._seen, self._besides, strict=True):
            await gateway.recorded(len(seen) + besides, within_s=10)

    async def _lane(self, lane: int, calls: Iterator[Planned]) -> None:
        await self._callers[lane].make(calls, self._seen[lane % len(self._gateways)])

    async def _begin(self) -> None:
        """Every gateway sees every model at work, and each key's first call makes its buckets as full as need be."""
        for lane in range(len(self._gateways)):
            bodies = [{"model": name, "messages": [{"role": "user", "content": "Hi"}]} for name in (LARGE, SMALL, FREE)]
            firsts = [Planned(0, self._people["gus"], CHAT, body) for body in bodies]
            firsts.append(Planned(0, self._people["gus"], EMBEDDINGS, {"model": EMBEDDING, "input": "Hi"}))
            await self._lane(lane, iter(firsts))
        body = {"model": LARGE, "messages": [{"role": "user", "content": "Hi! " * FIRST_TOKENS}], "max_tokens": 8}
        for name in ("ada", "bob", "cyd", "dot"):
            began_s = time.time()
            await self._lane(0, iter([Planned(0, self._people[name], CHAT, body)]))
            self.first_s[name] = (began_s, time.time())

    async def _in_background(self, number: int) -> None:
        """A response that is made after its reply, and asked for twice."""
        body = {"model": LATE_MODEL, "input": f"Think of {number}.", "background": True}
        headers = [("Authorization", f"Bearer {self._people['gus'].secret}"), ("Content-Type", "application/json")]
        async with connected(self._gateways[0].port) as client:
            client.send(request("POST", RESPONSES, json.dumps(body).encode(), headers))
            response_id = json.loads((await client.answer()).body)["id"]
            for _ in range(2):
                client.send(request("GET", f"{RESPONSES}/{response_id}", headers=headers))
                told = json.loads((await client.answer()).body)["usage"]
                self.late[f"late_{response_id}"] = tokens_of(told)
        self._besides[0] += 3

    async def _strangers(self) -> None:
        """Calls that are nobody's, which no ledger has."""
        stranger = [("Authorization", "Bearer sk-of-nobody-0123456789")]
        for data in (request("POST", CHAT, b"{}", stranger), request("GET", "/v1/nowhere")):
            assert (await ask(self._gateways[0].port, data)).status in (401, 404)
            self._besides[0] += 1
