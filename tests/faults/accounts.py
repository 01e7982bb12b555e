"""What a gateway tells of its calls when all have ended: ledger, metrics, limits, and what it wrote of budgets.

Asks at the face, as those do who read such things; several gateways on one store are asked as one.
"""

import asyncio
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

from prometheus_client.parser import text_string_to_metric_families
from sqlalchemy import URL, select

from gateway.limits.redis import RedisLimiter
from gateway.metering.ledger import Ledger
from gateway.store.engine import Store
from gateway.store.tables import spend
from tests.faults.face import ask, request
from tests.faults.nodes import Admin, Made
from tests.support.gateway import RunningGateway

DAY_S = 86_400


@dataclass(frozen=True, slots=True)
class Standing:
    """A limit as it was shown, between two moments."""

    limit: dict[str, Any]
    asked_s: float
    told_s: float

    def tokens_charged(self, first_s: tuple[float, float]) -> tuple[float, float]:
        """The least and the most tokens that a bucket was charged in all, the first of them between these moments.

        It was never empty since: so when it drains, all of them have had their time since the first.
        """
        a_second = self.limit["limit"] / DAY_S
        drains_in_s = self.limit["resets_in_ms"] / 1_000
        earliest, latest = self.asked_s + drains_in_s - 0.001, self.told_s + drains_in_s
        return (earliest - first_s[1]) * a_second, (latest - first_s[0]) * a_second


@dataclass(frozen=True, slots=True)
class Accounts:
    """`calls` by id, refused ones that the ledger only counted as their gateway knew them; `rows` by team, key, model
    and day; `metrics` by name and labels, summed up over all gateways; `limits` by the id of their rule.
    """

    calls: dict[str, dict[str, Any]]
    rows: list[dict[str, Any]]
    totals: dict[str, Any]
    metrics: Counter[tuple[str, frozenset[tuple[str, str]]]]
    limits: dict[str, Standing]

    def metric(self, name: str, **labels: str) -> float:
        """The sum of all samples of a family that have these labels."""
        wanted = frozenset(labels.items())
        return sum(
            value for (each, has), value in self.metrics.items() if each == f"gmi_gateway_{name}" and wanted <= has
        )


async def accounts_of(gateways: Sequence[RunningGateway], people: Sequence[Made]) -> Accounts:
    """All of it, once nothing waits any more to be written."""
    for gateway in gateways:
        await _written(gateway)
    admin = Admin(gateways[0].port)
    usage = await admin.do("GET", "/usage?group_by=team,key,model,day&limit=200")
    assert not usage["has_more"]
    return Accounts(
        calls=_counted(gateways) | {call["id"]: call for call in await _calls(admin)},
        rows=usage["data"],
        totals=usage["totals"],
        metrics=sum([await _metrics(gateway) for gateway in gateways], Counter()),
        limits=await _limits(admin, people),
    )


async def _written(gateway: RunningGateway) -> None:
    """Have all that waits written to the database, and told to Redis."""
    owners = (getattr(observe, "__self__", None) for observe in gateway.app.proxy.settlement._observers)
    ledger = next(owner for owner in owners if isinstance(owner, Ledger))
    limiter = gateway.app.proxy._allowance.limiter
    assert gateway.loop is not None
    await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(ledger.drain(), gateway.loop))
    if isinstance(limiter, RedisLimiter):
        await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(limiter.flush(), gateway.loop))


def _counted(gateways: Sequence[RunningGateway]) -> dict[str, dict[str, Any]]:
    """Refused calls, which the ledger has some of singly and others in its sums alone."""
    return {
        record.id: {
            "id": record.id,
            "team": record.principal.team,
            "team_id": record.principal.team_id,
            "key": record.principal.key,
            "key_id": record.principal.key_id,
            "model": record.model,
            "route": record.route.path,
            "outcome": record.outcome,
            "status": record.status,
            "started_at_us": int(record.started_at_s * 1e6),
            "usage_source": record.usage_source,
            "usage": None,
            "cost_microusd": record.cost_microusd,
            "tags": {},
        }
        for gateway in gateways
        for record in gateway.records
        if record.outcome == "refused" and record.principal is not None and record.route is not None
    }


async def _calls(admin: Admin) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    after = ""
    while True:
        page = await admin.do("GET", f"/calls?limit=200{after}")
        found += page["data"]
        if not page["has_more"]:
            return found
        after = f"&after={quote(page['next'])}"


async def _metrics(gateway: RunningGateway) -> Counter[tuple[str, frozenset[tuple[str, str]]]]:
    page = (await ask(gateway.port, request("GET", "/metrics"))).body.decode()
    families = text_string_to_metric_families(page)
    samples = (sample for family in families if family.type == "counter" for sample in family.samples)
    return Counter({(sample.name, frozenset(sample.labels.items())): sample.value for sample in samples})


async def _limits(admin: Admin, people: Sequence[Made]) -> dict[str, Standing]:
    found: dict[str, Standing] = {}
    for person in people:
        asked_s = time.time()
        told = await admin.do("GET", f"/limits?key={person.id}")
        told_s = time.time()
        found |= {each["id"]: Standing(each, asked_s, told_s) for each in told["data"]}
    return found


async def spent(database: URL) -> dict[str, int]:
    """Micro-dollars by the rule of the budget that they were spent of, as the store has it when all have stopped."""
    store = Store(database)
    async with store.reading() as connection:
        rows = (await connection.execute(select(spend))).all()
    await store.close()
    return {f"{row.subject_id}/budget/{row.window_id}": row.microusd for row in rows}
