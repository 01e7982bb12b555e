"""A node that spends, and what the webhook that it tells has been told."""

import json
from collections.abc import Callable
from typing import Any

from sqlalchemy import select

from gateway.limits.alerts import Alerts, Webhook
from gateway.limits.rules import Rule
from gateway.limits.spend import Spend
from gateway.store.engine import Store
from gateway.store.tables import alerts
from tests.support.wire import WireUpstream

SECRET = "a-secret-for-webhooks"
RULE = Rule("team_1/key_1/budget/month/2026-11", "budget", "key", "month", 1_000, resets_at_s=1_796_083_200)
OF_TEAM = Rule("team_1/budget/total", "budget", "team", "total", 2_000, shadow=True)


class Clock:
    """Unix time that a test moves."""

    def __init__(self) -> None:
        self.now_s = 1_795_305_600

    def __call__(self) -> float:
        return self.now_s


class Node:
    """Spending and alerts of one process, which does nothing by itself."""

    def __init__(self, store: Store, url: str, clock: Callable[[], float], timeout_s: float = 10.0) -> None:
        self.alerts = Alerts(store, Webhook(f"{url}/hook?token=s3cret", SECRET, timeout_s), now=clock)
        self.spend = Spend(store, alerts=self.alerts, now=clock)

    async def spent(self, rule: Rule, *amounts: int) -> None:
        """Each amount in a batch of its own, then everything is sent that is due."""
        for amount in amounts:
            self.spend.note(rule, amount)
            await self.spend.flush()
        while await self.alerts.send_due():
            pass


def told(receiver: WireUpstream) -> list[dict[str, Any]]:
    return [json.loads(request.body) for request in receiver.requests]


def percents(receiver: WireUpstream) -> list[int]:
    return sorted(event["data"]["percent"] for event in told(receiver))


async def due(store: Store) -> dict[int, int | None]:
    async with store.reading() as connection:
        return {row.percent: row.due_at for row in await connection.execute(select(alerts))}
