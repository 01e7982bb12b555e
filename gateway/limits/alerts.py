"""Tell a webhook when parts of a budget are spent: each part once a window, however many nodes there are.

And once more where a budget was raised so far that a part was no longer spent, and then is. What is to be told is a row
of the store, written in the transaction that adds the spending. Any node sends it, and goes on trying for a day, so an
alert outlives the process that noticed it. Where it goes is settings' business alone; calls never wait for it. It is
sent at least once: the receiver tells repetitions by the event's id.
"""

import asyncio
import contextlib
import hashlib
import hmac
import logging
import socket
import ssl
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec
from sqlalchemy import Table, bindparam, select, tuple_, update
from sqlalchemy.ext.asyncio import AsyncConnection

from gateway.errors import StoreUnavailable
from gateway.limits.budget_id import place
from gateway.limits.rules import Rule
from gateway.store.engine import Store
from gateway.store.tables import alerts, keys, teams
from gateway.store.upsert import insert_into

if TYPE_CHECKING:
    import httpx2

_log = logging.getLogger(__name__)

PERCENTS = (50, 80, 100)
REFUSED_FROM_PERCENT = 80
"""With so much spent, a call that does not fit says that the budget is at its end; with less, that it is large."""
SIGNATURE_HEADER = "x-gateway-signature"

PAUSES_S = (5, 30, 120, 600, 3_600)
"""After each attempt that failed; the last one from then on."""
GIVE_UP_AFTER_S = 86_400

_AT_ONCE = 10
_CLAIM_S = 60
"""For so long an alert is its claimer's; one that dies meanwhile leaves it to the others."""
_MAX_CHECKED = 100_000


class Webhook(NamedTuple):
    """Where to, what to sign with, and how long an attempt may take as a whole."""

    url: str
    secret: str
    timeout_s: float = 10.0


class Reached(NamedTuple):
    """A budget whose spending went from `before_microusd` to `after_microusd`, over all nodes.

    `has_refused`: a call did not fit in what was left.
    """

    rule: Rule
    before_microusd: int
    after_microusd: int
    has_refused: bool = False

    def percents(self, since_microusd: int) -> set[int]:
        """Which of `PERCENTS` were reached after `since_microusd` were spent.

        With a call refused and most of the budget spent, all of it is as good as spent.
        """
        limit, after = self.rule.limit, self.after_microusd * 100
        found = {each for each in PERCENTS if since_microusd * 100 < limit * each <= after}
        is_at_its_end = self.has_refused and after >= limit * REFUSED_FROM_PERCENT
        return found | {PERCENTS[-1]} if is_at_its_end else found


class Claimed(NamedTuple):
    """An alert that is ours to send."""

    subject_id: str
    window_id: str
    percent: int
    event: Mapping[str, Any]
    attempts: int
    created_at: int


class Answer(NamedTuple):
    """What came of one attempt. `problem` is None where it was taken, and never holds the URL."""

    status: int | None
    problem: str | None
    duration_s: float


def sign(secret: str, sent_at_s: int, body: bytes) -> str:
    """The signature's header: `t=<Unix time>,v1=<hex>`, HMAC-SHA256 of the time, a full stop and the body."""
    signed = b"%d.%b" % (sent_at_s, body)
    return f"t={sent_at_s},v1={hmac.new(secret.encode(), signed, hashlib.sha256).hexdigest()}"


class Alerts:
    """Sends to `webhook`, from `start` to `close`. `now` is Unix time in seconds."""

    def __init__(
        self, store: Store, webhook: Webhook, *, poll_s: float = 5.0, now: Callable[[], float] = time.time
    ) -> None:
        self._store = store
        self._webhook = webhook
        self._poll_s = poll_s
        self._now = now
        self._checked: dict[str, int] = {}
        """The budgets, with their limits, whose alerts up to now are known to be in the store."""
        self._transport: httpx2.AsyncHTTPTransport | None = None
        self._wake = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._is_refused = False
        self.sent = self.failed = 0
        """Attempts that the receiver took, and others."""

    def __repr__(self) -> str:
        return f"Alerts({'refused' if self._is_refused else 'working'})"

    async def record(self, connection: AsyncConnection, reached: Sequence[Reached], at: int) -> bool:
        """Note what is to be told, in the transaction of the spending; whether there was any. Then call `recorded`.

        A budget that this process has not seen with this limit is checked from nothing on, in case alerts were
        switched on, or its limit was changed, in mid-window.
        """
        found = [(each, percent) for each in reached for percent in sorted(each.percents(self._since(each)))]
        if found:
            found = await _untold(connection, found)
        if found:
            await connection.execute(self._upsert(), [_row(each, percent, at) for each, percent in found])
        return bool(found)

    def recorded(self, reached: Sequence[Reached], has_alerts: bool) -> None:
        """The transaction was committed."""
        if len(self._checked) > _MAX_CHECKED:
            self._checked.clear()
        self._checked.update((each.rule.id, each.rule.limit) for each in reached)
        if has_alerts:
            self._wake.set()

    def start(self) -> None:
        """Send in the background."""
        self._task = asyncio.get_running_loop().create_task(self._run(), name="alerts")

    async def close(self) -> None:
        """Stop. What is not sent yet, another process sends, or the next one."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        if self._transport is not None:
            await self._transport.aclose()

    async def send_due(self) -> int:
        """Try to send what is due, up to ten at once; how many were tried. Raises StoreUnavailable."""
        claimed = await self._claim()
        if claimed:
            if self._transport is None:
                self._transport = await asyncio.to_thread(_transport, self._webhook)
            names = await self._names(claimed)
            await asyncio.gather(*(self._send(self._transport, alert, names) for alert in claimed))
        return len(claimed)

    def _since(self, reached: Reached) -> int:
        is_checked = self._checked.get(reached.rule.id) == reached.rule.limit
        return reached.before_microusd if is_checked else -1

    def _upsert(self) -> Any:
        statement = insert_into(alerts, self._store.dialect)
        changed = ("event", "attempts", "created_at", "due_at")
        return statement.on_conflict_do_update(
            index_elements=["subject_id", "window_id", "percent"],
            set_={name: statement.excluded[name] for name in changed},
        )

    async def _claim(self) -> list[Claimed]:
        now_s = int(self._now())
        due = alerts.c.due_at <= now_s
        async with self._store.reading() as connection:
            # Without a lock, so that a node with nothing to do is in nobody's way.
            if (await connection.execute(select(alerts.c.percent).where(due).limit(1))).first() is None:
                return []
        identity = (alerts.c.subject_id, alerts.c.window_id, alerts.c.percent)
        some = select(*identity).where(due).order_by(alerts.c.due_at).limit(_AT_ONCE).with_for_update(skip_locked=True)
        async with self._store.writing() as connection:
            picked = [tuple(row) for row in await connection.execute(some)]
            claim = (
                update(alerts)
                .where(tuple_(*identity).in_(picked))
                .values(due_at=now_s + _CLAIM_S, attempts=alerts.c.attempts + 1)
                .returning(*identity, alerts.c.event, alerts.c.attempts, alerts.c.created_at)
            )
            return [Claimed(*row) for row in await connection.execute(claim)]

    async def _names(self, claimed: Sequence[Claimed]) -> dict[str, str]:
        """The names of teams and keys by their ids; those that are gone are left out."""
        ids = sorted({part for alert in claimed for part in alert.subject_id.split("/")})
        async with self._store.reading() as connection:
            return {
                row.id: row.name
                for table in (teams, keys)
                for row in await connection.execute(_NAMES[table.name], {"ids": ids})
            }

    async def _send(self, transport: "httpx2.AsyncHTTPTransport", alert: Claimed, names: Mapping[str, str]) -> None:
        """One attempt, and what came of it."""
        body = msgspec.json.encode(_named(alert, names))
        problem = (await _post(transport, self._webhook, int(self._now()), body)).problem
        self._tell(problem)
        if problem is None:
            self.sent += 1
        else:
            self.failed += 1
        due_at = None if problem is None else self._due_again(alert, problem)
        mine = (
            alerts.c.subject_id == alert.subject_id,
            alerts.c.window_id == alert.window_id,
            alerts.c.percent == alert.percent,
            # Not so where somebody else has claimed it, or a reset has made room for another one.
            alerts.c.attempts == alert.attempts,
            alerts.c.created_at == alert.created_at,
        )
        async with self._store.writing() as connection:
            await connection.execute(update(alerts).where(*mine).values(due_at=due_at))

    def _due_again(self, alert: Claimed, problem: str) -> int | None:
        due_at = int(self._now()) + PAUSES_S[min(alert.attempts, len(PAUSES_S)) - 1]
        if due_at <= alert.created_at + GIVE_UP_AFTER_S:
            return due_at
        _log.error("Alert %s could not be sent for a day, and is given up: %s", alert.event["id"], problem)
        return None

    def _tell(self, problem: str | None) -> None:
        """A line where it begins to fail, and one where that ends."""
        if (problem is not None) == self._is_refused:
            return
        self._is_refused = problem is not None
        if self._is_refused:
            _log.warning("Alerts cannot be sent to alerts.webhook_url, and are tried again for a day: %s", problem)
        else:
            _log.info("Alerts can be sent again.")

    async def _run(self) -> None:
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._poll_s):
                    await self._wake.wait()
            self._wake.clear()
            await self._send_all_due()

    async def _send_all_due(self) -> None:
        try:
            while await self.send_due():
                pass
        except StoreUnavailable:
            pass  # others tell of it, and it is tried again after a pause
        except Exception:  # alerts must come back by themselves
            _log.exception("Alerts cannot be sent for now.")


async def send_test(webhook: Webhook, at: int) -> tuple[str, Answer]:
    """Send an event of type `alerts.test`, which tells of no budget, once: its id, and what came of it."""
    event = {"id": _new_id(), "type": "alerts.test", "created_at": at, "data": {}}
    transport = await asyncio.to_thread(_transport, webhook)
    try:
        return str(event["id"]), await _post(transport, webhook, at, msgspec.json.encode(event))
    finally:
        await transport.aclose()


async def _post(transport: "httpx2.AsyncHTTPTransport", webhook: Webhook, sent_at_s: int, body: bytes) -> Answer:
    """One attempt."""
    began = time.perf_counter()
    status: int | None = None
    try:
        async with asyncio.timeout(webhook.timeout_s):
            reply = await transport.handle_async_request(_request(webhook, sent_at_s, body))
            status = reply.status_code
            # What is answered beside the status is nobody's business here, and could be endless.
            await reply.aclose()
        problem = None if reply.is_success else f"status {status}"
    except TimeoutError:
        problem = f"no answer within {webhook.timeout_s:g} s"
    except Exception as error:  # whatever a receiver does must not keep the other alerts from being sent
        problem = _named_problem(error)
    return Answer(status, problem, time.perf_counter() - began)


def _named_problem(error: BaseException) -> str:
    """Without the address, which may be a secret."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, ConnectionRefusedError):
            return "nobody listens there"
        if isinstance(cause, socket.gaierror):
            return "its name does not resolve"
        cause = cause.__cause__ or cause.__context__
    return type(error).__name__


async def _untold(connection: AsyncConnection, found: Sequence[tuple[Reached, int]]) -> list[tuple[Reached, int]]:
    """Those that were not told yet. Whoever else adds to these budgets waits for this transaction, and then sees it."""
    places = sorted({place(each.rule) for each, _ in found})
    query = select(alerts).where(tuple_(alerts.c.subject_id, alerts.c.window_id).in_(places))
    told = {(row.subject_id, row.window_id, row.percent): row.event["data"] for row in await connection.execute(query)}
    return [
        (each, percent) for each, percent in found if _is_new(each, percent, told.get((*place(each.rule), percent)))
    ]


def _is_new(reached: Reached, percent: int, told: Mapping[str, Any] | None) -> bool:
    """Whether it says more than what was `told` of this part, if anything was.

    It does where the limit was raised above what was spent then and now is reached again: with this very spending,
    since calls that began under the old limit still end under it.
    """
    if told is None:
        return True
    limit = reached.rule.limit
    before: int = max(told["spent_microusd"], reached.before_microusd)
    return before * 100 < limit * percent and told["limit_microusd"] != limit


def _names_query(table: Table) -> Any:
    return select(table.c.id, table.c.name).where(table.c.id.in_(bindparam("ids", expanding=True)))


_NAMES = {table.name: _names_query(table) for table in (teams, keys)}


def _transport(webhook: Webhook) -> "httpx2.AsyncHTTPTransport":
    """In a thread: the library takes 50 ms to load, the certificate authorities another 20.

    No proxy from the environment, and no client, which would log the URL: it goes where settings say, and nowhere else.
    """
    import httpx2  # noqa: PLC0415

    verify = ssl.create_default_context() if webhook.url.startswith("https:") else False
    return httpx2.AsyncHTTPTransport(verify=verify, trust_env=False)


def _request(webhook: Webhook, sent_at_s: int, body: bytes) -> "httpx2.Request":
    import httpx2  # noqa: PLC0415 - as above

    headers = {"content-type": "application/json", SIGNATURE_HEADER: sign(webhook.secret, sent_at_s, body)}
    return httpx2.Request("POST", webhook.url, content=body, headers=headers)


def _row(reached: Reached, percent: int, at: int) -> dict[str, object]:
    subject_id, window_id = place(reached.rule)
    return {
        "subject_id": subject_id,
        "window_id": window_id,
        "percent": percent,
        "event": _event(reached, percent, at),
        "attempts": 0,
        "created_at": at,
        "due_at": at,
    }


def _event(reached: Reached, percent: int, at: int) -> dict[str, object]:
    """All but the names, which are looked up when it is sent."""
    rule = reached.rule
    is_spent = reached.after_microusd * 100 >= rule.limit * percent
    return {
        "id": _new_id(),
        "type": "budget.threshold_reached",
        "created_at": at,
        "data": {
            "period": rule.period,
            "window": place(rule)[1],
            "percent": percent,
            "reason": "spent" if is_spent else "call_refused",
            "limit_microusd": rule.limit,
            "spent_microusd": reached.after_microusd,
            "resets_at": rule.resets_at_s,
            "enforced": not rule.shadow,
        },
    }


def _new_id() -> str:
    return f"alert_{uuid.uuid4().hex}"


def _named(alert: Claimed, names: Mapping[str, str]) -> dict[str, Any]:
    team_id, _, key_id = alert.subject_id.partition("/")
    team = {"id": team_id, "name": names.get(team_id)}
    key = {"id": key_id, "name": names.get(key_id)} if key_id else None
    return {**alert.event, "data": {"team": team, "key": key, **alert.event["data"]}}
