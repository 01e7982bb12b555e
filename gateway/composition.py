"""The rooms of one gateway process that outlive its calls, made from settings and put to work together.

Knows which room needs which, and in what order they start and stop. What they do is theirs.
"""

import contextlib
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import msgspec
from fastapi import APIRouter

from gateway.access.administration import Administration
from gateway.access.directory import KeyDirectory
from gateway.access.last_used import LastUsed
from gateway.access.lookup import find_makers
from gateway.access.ownership import Ownership
from gateway.access.pruning import Pruning
from gateway.access.reconcile import declared_digests
from gateway.access.watcher import ChangeWatcher
from gateway.call import Principal
from gateway.http.admin import LedgerDesk, admin_app, admin_router
from gateway.http.admin.principals import authenticator
from gateway.http.client_address import compile_networks
from gateway.http.pages import OwnPages
from gateway.http.routes import MAKES_RESPONSES, ROUTE_GROUPS
from gateway.limits.alerts import Alerts, Webhook
from gateway.limits.connection import opened
from gateway.limits.limiter import Limiter
from gateway.limits.memory import MemoryLimiter
from gateway.limits.nodes import Nodes
from gateway.limits.overview import Overview
from gateway.limits.plan import Planner, Policy
from gateway.limits.readings import readings_of_decisions, readings_of_money, readings_of_redis
from gateway.limits.redis import RedisLimiter
from gateway.limits.redis_options import Timing
from gateway.limits.rule_id import limit_of
from gateway.limits.spend import Spend
from gateway.metering.due import DueResponses
from gateway.metering.estimate import Estimator
from gateway.metering.late import LateRecords
from gateway.metering.ledger import Ledger
from gateway.metering.ledger_drain import Drain
from gateway.metering.ledger_queries import LedgerQueries
from gateway.metering.ledger_readings import readings_of_due, readings_of_ledger
from gateway.metering.ledger_retention import Retention
from gateway.metering.meter import Meter
from gateway.metering.price_book import PriceBook, readings_of_prices
from gateway.metering.rollups import Days
from gateway.observe.families import Counted, Family, Gauged
from gateway.relay.allowance import Allowance
from gateway.relay.due import DueAsker, Upstream
from gateway.relay.live import ENDPOINT
from gateway.settings import Settings
from gateway.store.engine import Store
from gateway.store.journal import Journal
from gateway.store.sharers import Sharers, name_of, named
from gateway.store.url import database_url
from gateway.terms import Limits

_MOST_POLL_S = 5.0


class Doorkeepers:
    """Who may: the store and all that remembers, follows and changes what is in it."""

    def __init__(self, settings: Settings) -> None:
        database, redis = settings.database, settings.redis
        name = name_of(settings.server.state_dir)
        url = named(database_url(settings), name)
        self.store = Store(url, pool_size=database.pool_size, timeout_s=database.timeout_s)
        self.directory = KeyDirectory(self.store)
        self.directory.pin(declared_digests(settings.keys, settings.admin.key))
        self.last_used = LastUsed(self.store)
        journal = Journal(Path(settings.server.state_dir), "owners")
        self.ownership = Ownership(self.store, journal, share_within_team=settings.access.share_within_team)
        self._watcher = ChangeWatcher(self.store, self.directory, redis_url=redis.url)
        sharers = (Sharers(self.store, name),) if redis.url is None else ()
        self._chores = (Pruning(self.store), *sharers)
        self._administration = Administration(
            self.store,
            on_change=self._watcher.publish,
            route_groups=ROUTE_GROUPS,
            defaults=_key_defaults(settings),
        )
        trusted = compile_networks(settings.server.trusted_proxies)
        self._authenticate = authenticator(self.directory, self._administration, trusted, self.last_used.note)

    def admin_routes(self, overview: Overview, desk: LedgerDesk) -> APIRouter:
        """/admin/v1 as a part of the gateway's own application."""
        return admin_router(self._administration, self._authenticate, overview, desk)

    def admin_app(self, overview: Overview, desk: LedgerDesk) -> OwnPages:
        """/admin/v1 as an application of its own."""
        return admin_app(self._administration, self._authenticate, overview, desk)

    async def makers(self, key_ids: Iterable[str]) -> Mapping[str, Principal]:
        """Whom these keys stand for, by id, also those that work no more. Raises `StoreUnavailable`."""
        async with self.store.reading() as connection:
            return await find_makers(connection, sorted(key_ids))

    def readings(self) -> Iterator[Family]:
        """What is measured of all this."""
        directory = self.directory

        def look_ups() -> dict[tuple[str, ...], int]:
            return {(result,): count for result, count in directory.look_ups.items()}

        yield Counted("key_lookups", "Keys of calls that were not in memory.", ("result",), look_ups)
        yield Counted("key_hits", "Keys of calls that were in memory.", (), lambda: {(): directory.hits})
        yield Gauged("known_keys", "Keys in memory.", (), lambda: {(): len(directory)}, "max")
        yield Gauged(
            "journal_bytes",
            "What waits in the journal for the database.",
            (),
            lambda: {(): self.ownership.pending_bytes},
        )
        yield Gauged(
            "database_up",
            "Whether changes of keys can be read from the database.",
            (),
            lambda: {(): not self._watcher.is_away},
            "min",
        )

    @contextlib.asynccontextmanager
    async def at_work(self) -> AsyncIterator[None]:
        """Everything follows the store meanwhile."""
        try:
            await self._watcher.start()
            await self.ownership.start()
            self.last_used.start()
            for chore in self._chores:
                chore.start()
            yield
        finally:
            for chore in self._chores:
                await chore.close()
            await self._watcher.close()
            await self.directory.close()
            await self.last_used.close()
            await self.ownership.close()
            await self.store.close()


class Bounds:
    """How much: the limiter, the money that was spent, and who is told of it. Raises PricesError."""

    def __init__(self, settings: Settings, store: Store) -> None:
        self._alerts = _alerts(settings, store)
        self._spend = Spend(store, alerts=self._alerts)
        self.limiter = _limiter(settings, self._spend)
        self.planner = Planner(_policy(settings))
        self._prices = PriceBook(None if settings.prices.file is None else Path(settings.prices.file))
        meter = Meter(self._prices, Estimator())
        self.overview = Overview(
            self.planner,
            self.limiter,
            self._spend,
            endpoints=(ENDPOINT,),
            has_prices=lambda: self._prices.priced > 0,
        )
        self.allowance = Allowance(
            self.planner,
            self.limiter,
            meter,
            self._spend,
            max_wait_s=settings.limits.max_wait_s,
            refuses_unpriced=settings.limits.unpriced == "refuse",
            is_shared=settings.redis.url is not None,
        )

    def readings(self, team_names: Mapping[str, str]) -> Iterator[Family]:
        """What is measured of all this. `team_names`: those that are known, by id."""
        yield from readings_of_decisions(self.allowance.tally, self.overview, lambda: self.allowance.room.waiting)
        yield from readings_of_redis(self.limiter)
        yield from readings_of_money(self._spend, self._alerts, team_names)
        yield from readings_of_prices(self._prices)

    @contextlib.asynccontextmanager
    async def at_work(self) -> AsyncIterator[None]:
        """Leases are renewed and spending is written meanwhile."""
        try:
            if self._alerts is not None:
                self._alerts.start()
            self._spend.start()
            self._prices.start()
            self.limiter.start()
            yield
        finally:
            await self._prices.close()
            await self.limiter.close()
            await self._spend.close()
            if self._alerts is not None:
                await self._alerts.close()


class Books:
    """What it was: the ledger of calls in the store."""

    def __init__(self, settings: Settings, store: Store, meter: Meter) -> None:
        kept = settings.ledger
        days = Days(ZoneInfo(settings.limits.time_zone))
        journal = Journal(Path(settings.server.state_dir), "usage", max_bytes=kept.max_journal_bytes)
        drain = Drain(store, days, cost_of=meter.cost_of, due_after_s=kept.ask_due_after_s)
        self.due = DueResponses(store, first_after_s=kept.ask_due_after_s)
        self._asks_after_s = 0.0 if settings.upstream.is_simulated else kept.ask_due_after_s
        self.ledger = Ledger(journal, drain, kept_days=kept.calls_retention_days, limit_of=limit_of)
        self.late = LateRecords(self.ledger.note)
        drain.written = self.late.written
        self.queries = LedgerQueries(store, days)
        self.desk = LedgerDesk(store, days, self.queries, timeout_s=settings.database.timeout_s)
        self._retention = Retention(
            store, days, calls_days=kept.calls_retention_days, sums_days=kept.days_retention_days
        )

    def readings(self) -> Iterator[Family]:
        """What is measured of all this."""
        yield from readings_of_ledger(self.ledger)
        yield from readings_of_due(self.due)

    def asker(self, bounds: Bounds, doorkeepers: Doorkeepers, upstream: Upstream) -> DueAsker | None:
        """What asks `upstream` for responses that nobody else asks for; None where settings say that nothing does.

        Nor is a simulator asked that stands in for the models: what they owe is asked for once they answer again.
        """
        if not self._asks_after_s:
            return None
        meter = bounds.allowance.meter
        poll_s = min(self._asks_after_s, _MOST_POLL_S)
        return DueAsker(self.due, upstream, MAKES_RESPONSES, meter, doorkeepers.makers, self.late.note, poll_s=poll_s)

    @contextlib.asynccontextmanager
    async def at_work(self, asker: DueAsker | None) -> AsyncIterator[None]:
        """Records of calls are written to the store meanwhile, and those that are too old deleted; `asker` asks."""
        try:
            await self.ledger.start()
            self._retention.start()
            if asker is not None:
                asker.start()
            yield
        finally:
            if asker is not None:
                await asker.close()
            await self._retention.close()
            await self.ledger.close()


@contextlib.asynccontextmanager
async def shared_overview(settings: Settings, store: Store) -> AsyncIterator[Overview | None]:
    """Limits as whoever runs no gateway sees them: those in Redis. None: there is none."""
    if settings.redis.url is None:
        yield None
        return
    spend = Spend(store)
    # A command connects first, and somebody waits for it who has more patience than a call.
    timing = Timing(budget_s=settings.database.timeout_s)
    server = opened(settings.redis.url)
    limiter = RedisLimiter(server, on_failure="closed", load_spent=spend.load, timing=timing)
    try:
        yield Overview(Planner(_policy(settings)), limiter, spend, endpoints=(ENDPOINT,))
    finally:
        await limiter.close()


def _limiter(settings: Settings, spend: Spend) -> Limiter:
    if settings.redis.url is None:
        return MemoryLimiter(load_spent=spend.load)
    nodes = Nodes(Path(settings.server.state_dir) / "limits.nodes", at_least=settings.server.workers)
    return RedisLimiter(
        opened(settings.redis.url), on_failure=settings.limits.on_redis_failure, load_spent=spend.load, nodes=nodes
    )


def _alerts(settings: Settings, store: Store) -> Alerts | None:
    url, secret = settings.alerts.webhook_url, settings.alerts.webhook_secret
    return (
        None
        if url is None or secret is None
        else Alerts(store, Webhook(url.get_secret_value(), secret.get_secret_value()))
    )


def _policy(settings: Settings) -> Policy:
    limits = settings.limits
    return Policy(
        key=_limits(limits.each_key),
        team=_limits(limits.each_team),
        endpoint=_limits(limits.endpoint),
        zone=ZoneInfo(limits.time_zone),
        shadow=frozenset(limits.shadow),
    )


def _key_defaults(settings: Settings) -> Limits:
    limits = settings.limits
    return msgspec.structs.replace(_limits(limits.each_key), max_wait_s=int(limits.max_wait_s))


def _limits(table: Mapping[Any, int]) -> Limits:
    return msgspec.convert(dict(table), Limits)
