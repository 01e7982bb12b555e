"""A webhook is told of each part of a budget that is spent: once a window, signed, and never in a call's way."""

import asyncio
import json
import logging
import re
import ssl
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
import trustme
from sqlalchemy import URL, select

from gateway.configuration import SettingsError, changes, load
from gateway.limits.alerts import GIVE_UP_AFTER_S, PAUSES_S, Alerts, Reached, Webhook, sign
from gateway.limits.rules import Rule
from gateway.limits.spend import KEPT_S, Spend
from gateway.store.engine import Store
from gateway.store.tables import alerts
from tests.access.rows import add_key, add_team
from tests.support.stores import fresh_sqlite_url
from tests.support.wire import Stall, Wait, WireUpstream, reply

ROOT = Path(__file__).parents[2]
SECRET = "a-secret-for-webhooks"
RULE = Rule("team_1/key_1/budget/month/2026-11", "budget", "key", "month", 1_000, resets_at_s=1_796_083_200)
OF_TEAM = Rule("team_1/budget/total", "budget", "team", "total", 2_000, shadow=True)


class Clock:
    """Unix time that a test moves."""

    def __init__(self) -> None:
        self.now_s = 1_795_305_600

    def __call__(self) -> float:
        return self.now_s


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
async def store(store_url: URL) -> AsyncIterator[Store]:
    opened = Store(store_url)
    yield opened
    await opened.close()


@pytest.fixture
async def sqlite(tmp_path: Path) -> AsyncIterator[Store]:
    opened = Store(fresh_sqlite_url(tmp_path))
    yield opened
    await opened.close()


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


async def test_each_part_is_told_when_it_is_spent_and_once(store: Store, clock: Clock) -> None:
    async with WireUpstream() as receiver:
        node = Node(store, receiver.url, clock)
        steps = [(499, []), (1, [50]), (299, [50]), (1, [50, 80]), (199, [50, 80]), (1, [50, 80, 100])]
        for amount, expected in [*steps, (5_000, [50, 80, 100])]:
            await node.spent(RULE, amount)
            assert percents(receiver) == expected
        assert set((await due(store)).values()) == {None}
        await node.alerts.close()


async def test_what_is_told_names_team_and_key_and_says_how_much(store: Store, clock: Clock) -> None:
    await add_team(store)
    await add_key(store)
    async with WireUpstream() as receiver:
        node = Node(store, receiver.url, clock)
        await node.spent(RULE, 612)
        await node.spent(OF_TEAM, 1_000)
        await node.alerts.close()
    key, team = told(receiver)
    assert re.fullmatch("alert_[0-9a-f]{32}", key.pop("id"))
    assert key == {
        "type": "budget.threshold_reached",
        "created_at": clock.now_s,
        "data": {
            "team": {"id": "team_1", "name": "TEAM_1"},
            "key": {"id": "key_1", "name": "KEY_1"},
            "period": "month",
            "window": "month/2026-11",
            "percent": 50,
            "reason": "spent",
            "limit_microusd": 1_000,
            "spent_microusd": 612,
            "resets_at": 1_796_083_200,
            "enforced": True,
        },
    }
    assert team["data"] == {
        "team": {"id": "team_1", "name": "TEAM_1"},
        "key": None,
        "period": "total",
        "window": "total",
        "percent": 50,
        "reason": "spent",
        "limit_microusd": 2_000,
        "spent_microusd": 1_000,
        "resets_at": None,
        "enforced": False,
    }


async def test_names_that_are_gone_are_null(sqlite: Store, clock: Clock) -> None:
    async with WireUpstream() as receiver:
        node = Node(sqlite, receiver.url, clock)
        await node.spent(RULE, 500)
        await node.alerts.close()
    assert told(receiver)[0]["data"]["key"] == {"id": "key_1", "name": None}


async def test_it_is_a_json_post_to_the_settings_url_signed_as_the_page_says(sqlite: Store) -> None:
    async with WireUpstream() as receiver:
        node = Node(sqlite, receiver.url, time.time)
        await node.spent(RULE, 500)
        await node.alerts.close()
    (request,) = receiver.requests
    assert (request.method, request.target) == (b"POST", b"/hook?token=s3cret")
    assert request.header(b"content-type") == b"application/json"
    signature = (request.header(b"x-gateway-signature") or b"").decode()
    assert signature == sign(SECRET, int(signature[2:].partition(",")[0]), request.body)
    shown = re.findall(r"^```python\n(.*?)^```", (ROOT / "docs/prices.md").read_text("utf-8"), re.MULTILINE | re.DOTALL)
    page: dict[str, Any] = {}
    exec(shown[0], page)
    assert page["is_ours"](SECRET, signature, request.body)
    assert not page["is_ours"]("another-secret", signature, request.body)
    assert not page["is_ours"](SECRET, signature, request.body + b" ")
    late = sign(SECRET, int(time.time()) - 301, request.body)
    assert not page["is_ours"](SECRET, late, request.body)


def test_the_page_shows_every_member_of_what_is_told() -> None:
    shown = re.findall(r"^```json\n(.*?)^```", (ROOT / "docs/prices.md").read_text("utf-8"), re.MULTILINE | re.DOTALL)
    event = json.loads(shown[0])
    assert list(event) == ["id", "type", "created_at", "data"]
    assert list(event["data"]) == [
        *("team", "key", "period", "window", "percent", "reason"),
        *("limit_microusd", "spent_microusd", "resets_at", "enforced"),
    ]


async def test_nodes_that_spend_and_send_at_once_tell_each_part_once(store_url: URL, clock: Clock) -> None:
    stores = [Store(store_url) for _ in range(3)]
    rules = [Rule(f"team_1/key_{number}/budget/total", "budget", "key", "total", 1_000) for number in range(10)]
    async with WireUpstream() as receiver:
        nodes = [Node(store, receiver.url, clock) for store in stores]
        for _ in range(4):
            for node in nodes:
                for rule in rules:
                    node.spend.note(rule, 100)
            await asyncio.gather(*(node.spend.flush() for node in nodes))
            while sum(await asyncio.gather(*(node.alerts.send_due() for node in nodes))):
                pass
        for node in nodes:
            await node.alerts.close()
    assert percents(receiver) == [50] * 10 + [80] * 10 + [100] * 10
    assert len({event["id"] for event in told(receiver)}) == 30
    for store in stores:
        await store.close()


async def test_parts_that_are_reached_together_are_all_told(sqlite: Store, clock: Clock) -> None:
    async with WireUpstream() as receiver:
        node = Node(sqlite, receiver.url, clock)
        await node.spent(RULE, 3_000)
        await node.alerts.close()
    assert percents(receiver) == [50, 80, 100]


async def test_a_refusal_for_want_of_room_counts_as_spent_and_is_told_once(store: Store, clock: Clock) -> None:
    async with WireUpstream() as receiver:
        node = Node(store, receiver.url, clock)
        await node.spent(RULE, 990)
        for _ in range(3):
            node.spend.note_refusal(RULE)
            await node.spent(RULE, 0)
        assert percents(receiver) == [50, 80, 100]
        assert [event["data"]["reason"] for event in told(receiver)] == ["spent", "spent", "call_refused"]
        assert told(receiver)[-1]["data"]["spent_microusd"] == 990
        await Node(store, receiver.url, clock).spent(RULE, 20)
        assert len(receiver.requests) == 3
        await node.alerts.close()


async def test_alerts_that_are_switched_on_in_mid_window_tell_what_is_spent_already(store: Store, clock: Clock) -> None:
    before = Spend(store, now=clock)
    before.note(RULE, 900)
    await before.flush()
    async with WireUpstream() as receiver:
        node = Node(store, receiver.url, clock)
        await node.spent(RULE, 1)
        assert percents(receiver) == [50, 80]
        await node.alerts.close()


async def test_a_limit_that_is_lowered_in_mid_window_is_told_of(store: Store, clock: Clock) -> None:
    wide = Rule(RULE.id, "budget", "key", "month", 10_000)
    async with WireUpstream() as receiver:
        node = Node(store, receiver.url, clock)
        await node.spent(wide, 900)
        assert percents(receiver) == []
        await node.spent(RULE, 1)
        assert percents(receiver) == [50, 80]
        await node.alerts.close()


async def test_after_a_reset_each_part_is_told_again(store: Store, clock: Clock) -> None:
    async with WireUpstream() as receiver:
        node, other = Node(store, receiver.url, clock), Node(store, receiver.url, clock)
        await node.spent(RULE, 600)
        node.spend.note_refusal(RULE)
        await node.spent(RULE, 0)
        await other.spent(RULE, 1)
        await node.spend.reset([RULE])
        assert percents(receiver) == [50, 100]
        await other.spent(RULE, 600)
        node.spend.note_refusal(RULE)
        await node.spent(RULE, 0)
        assert percents(receiver) == [50, 50, 100, 100]
        for each in (node, other):
            await each.alerts.close()


@pytest.mark.parametrize("answer", [reply(500), reply(404), reply(302, [(b"Location", b"/hook")]), b"nonsense\r\n\r\n"])
async def test_what_is_not_taken_is_sent_again_with_pauses_until_it_is(
    store: Store, clock: Clock, caplog: pytest.LogCaptureFixture, answer: bytes
) -> None:
    caplog.set_level(logging.INFO)
    async with WireUpstream(*[[answer]] * 7, reply(204)) as receiver:
        node = Node(store, receiver.url, clock)
        await node.spent(RULE, 500)
        for count, pause_s in enumerate([*PAUSES_S, PAUSES_S[-1], PAUSES_S[-1]], 1):
            assert len(receiver.requests) == count
            clock.now_s += pause_s - 1
            assert await node.alerts.send_due() == 0
            clock.now_s += 1
            assert await node.alerts.send_due() == 1
        clock.now_s += GIVE_UP_AFTER_S
        assert await node.alerts.send_due() == 0
        await node.alerts.close()
    assert len(receiver.requests) == 8
    assert len({event["id"] for event in told(receiver)}) == 1
    assert [record.levelname for record in caplog.records if record.name == "gateway.limits.alerts"] == [
        "WARNING",
        "INFO",
    ]
    assert "s3cret" not in caplog.text
    assert SECRET not in caplog.text


async def test_after_a_day_it_is_given_up_with_a_line_that_says_so(
    sqlite: Store, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    async with WireUpstream(reply(500)) as receiver:
        node = Node(sqlite, receiver.url, clock)
        await node.spent(RULE, 500)
        while list((await due(sqlite)).values()) != [None]:
            clock.now_s += PAUSES_S[-1]
            await node.alerts.send_due()
        await node.alerts.close()
    assert clock.now_s - told(receiver)[0]["created_at"] <= GIVE_UP_AFTER_S
    assert len(receiver.requests) >= GIVE_UP_AFTER_S // PAUSES_S[-1]
    assert "could not be sent for a day, and is given up: status 500" in caplog.text


async def test_a_receiver_that_does_not_answer_or_is_not_there_is_tried_again(sqlite: Store, clock: Clock) -> None:
    async with WireUpstream([Stall()], [reply(200, [(b"Content-Length", b"9")]), Stall()]) as receiver:
        node = Node(sqlite, receiver.url, clock, timeout_s=0.2)
        await node.spent(RULE, 500)
        assert list((await due(sqlite)).values()) == [clock.now_s + PAUSES_S[0]]
        clock.now_s += PAUSES_S[0]
        # Nobody waits for the body.
        await node.spent(RULE, 1)
        assert list((await due(sqlite)).values()) == [None]
        await receiver.closed(2)
        receiver.stop_listening()
        await node.spent(RULE, 400)
        assert (await due(sqlite))[80] == clock.now_s + PAUSES_S[0]
        await node.alerts.close()


async def test_a_slow_receiver_holds_up_no_spending(sqlite: Store, clock: Clock) -> None:
    go_on = asyncio.Event()
    async with WireUpstream([Wait(go_on), reply()]) as receiver:
        node = Node(sqlite, receiver.url, clock)
        node.alerts.start()
        await node.alerts.send_due()
        node.spend.note(RULE, 500)
        await node.spend.flush()
        await receiver.received(1)
        node.spend.note(RULE, 1)
        async with asyncio.timeout(2):
            await node.spend.flush()
            assert await node.spend.load([RULE]) == {RULE.id: 501}
        go_on.set()
        await node.alerts.close()


async def test_one_that_was_claimed_by_a_process_that_died_is_sent_by_another_a_minute_later(
    store: Store, clock: Clock
) -> None:
    async with WireUpstream([Stall()], reply()) as receiver:
        dying, other = Node(store, receiver.url, clock), Node(store, receiver.url, clock)
        dying.spend.note(RULE, 500)
        await dying.spend.flush()
        sending = asyncio.create_task(dying.alerts.send_due())
        await receiver.received(1)
        sending.cancel()
        await asyncio.gather(sending, return_exceptions=True)
        clock.now_s += 59
        assert await other.alerts.send_due() == 0
        clock.now_s += 1
        assert await other.alerts.send_due() == 1
        assert list((await due(store)).values()) == [None]
        for node in (dying, other):
            await node.alerts.close()


async def test_it_is_sent_in_the_background_as_soon_as_it_is_spent(store: Store) -> None:
    async with WireUpstream() as receiver:
        webhook = Webhook(receiver.url, SECRET)
        node = Alerts(store, webhook, poll_s=60)
        spent = Spend(store, alerts=node, every_s=0.01)
        node.start()
        spent.start()
        spent.note(RULE, 500)
        await receiver.received(1)
        await spent.close()
        await node.close()
        # What an earlier process left is sent without a word.
        left = Spend(store, alerts=Alerts(store, webhook))
        left.note(RULE, 400)
        await left.close()
        heir = Alerts(store, webhook, poll_s=0.01)
        heir.start()
        await receiver.received(2)
        await heir.close()
    assert percents(receiver) == [50, 80]


async def test_a_receiver_with_tls_must_show_a_certificate_that_is_trusted(
    sqlite: Store, clock: Clock, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    authority = trustme.CA()
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    server = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("127.0.0.1").configure_cert(server)
    async with WireUpstream(ssl_context=server) as receiver:
        node = Node(sqlite, receiver.url, clock)
        await node.spent(RULE, 500)
        assert receiver.requests == []
        await node.alerts.close()
        monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "ca.pem"))
        clock.now_s += PAUSES_S[0]
        trusting = Node(sqlite, receiver.url, clock)
        assert await trusting.alerts.send_due() == 1
        assert percents(receiver) == [50]
        await trusting.alerts.close()


async def test_proxies_of_the_environment_are_not_asked(
    sqlite: Store, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
    monkeypatch.setenv("NO_PROXY", "")
    async with WireUpstream() as receiver:
        node = Node(sqlite, receiver.url, clock)
        await node.spent(RULE, 500)
        await node.alerts.close()
    assert percents(receiver) == [50]


async def test_alerts_of_windows_that_never_end_are_kept_and_others_deleted(sqlite: Store, clock: Clock) -> None:
    async with WireUpstream() as receiver:
        node = Node(sqlite, receiver.url, clock)
        await node.spent(RULE, 1_000)
        await node.spent(OF_TEAM, 1_000)
        clock.now_s = 1_796_083_200 + KEPT_S + 1
        await node.spend.tidy()
        async with sqlite.reading() as connection:
            assert list((await connection.execute(select(alerts.c.subject_id))).scalars()) == ["team_1"]
        await Node(sqlite, receiver.url, clock).spent(OF_TEAM, 1)
        await node.alerts.close()
    assert percents(receiver) == [50, 50, 80, 100]


@pytest.mark.parametrize(
    ("limit", "since", "after", "expected"),
    [
        (1_000, -1, 499, set()),
        (1_000, 0, 500, {50}),
        (1_000, 500, 799, set()),
        (1_000, 499, 800, {50, 80}),
        (1, 0, 1, {50, 80, 100}),
        (3, 1, 2, {50}),
        (3, 2, 3, {80, 100}),
    ],
)
def test_a_part_is_reached_with_its_last_micro_dollar(limit: int, since: int, after: int, expected: set[int]) -> None:
    rule = Rule("team_1/budget/total", "budget", "team", "total", limit)
    assert Reached(rule, since, after).percents(since) == expected


# Settings.


def settings(text: str, folder: Path) -> list[str]:
    """What is wrong with them."""
    (folder / "gateway.yaml").write_text(text)
    try:
        load(folder / "gateway.yaml", {}, {})
    except SettingsError as error:
        return [str(problem).partition(": ")[2] for problem in error.problems]
    return []


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("{webhook_url: 'https://a.example/x?y=z'}", "alerts.webhook_url: is set, but there is no secret to sign"),
        ("{webhook_url: 'ftp://a.example', webhook_secret: 0123456789abcdef}", "alerts.webhook_url: is not a URL that"),
        (
            "{webhook_url: 'https://a:b@c', webhook_secret: 0123456789abcdef}",
            "alerts.webhook_url: must not have a frag",
        ),
        ("{webhook_secret: short}", "alerts.webhook_secret: must be 16 or more visible ASCII characters"),
        ("{webhook_secret: 0123456789abcdef, webhook_secret_file: x}", "alerts.webhook_secret_file: is set beside"),
        ("{webhook_secret_file: nowhere}", "alerts.webhook_secret_file: cannot be read"),
    ],
)
def test_settings_without_which_nothing_could_be_sent_are_refused(tmp_path: Path, text: str, problem: str) -> None:
    (said,) = settings(f"alerts: {text}", tmp_path)
    assert said.startswith(problem)


def test_the_secret_may_stand_in_a_file_and_neither_it_nor_the_url_is_shown(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text(f"{SECRET}\n")
    file = tmp_path / "gateway.yaml"
    file.write_text(
        f"alerts: {{webhook_url: 'https://hooks.example/t0ken', webhook_secret_file: {tmp_path / 'secret'}}}"
    )
    loaded = load(file, {}, {})
    assert loaded.settings.alerts.webhook_secret is not None
    assert loaded.settings.alerts.webhook_secret.get_secret_value() == SECRET
    shown = "\n".join(changes(loaded.settings, loaded.origins)) + repr(loaded.settings)
    assert "t0ken" not in shown
    assert SECRET not in shown
