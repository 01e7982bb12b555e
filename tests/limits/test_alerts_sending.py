"""What a webhook is told is sent until it is taken, by whichever node, and holds nobody up."""

import asyncio
import logging
import ssl
from pathlib import Path

import pytest
import trustme

from gateway.limits.alerts import GIVE_UP_AFTER_S, PAUSES_S, Alerts, Webhook
from gateway.limits.spend import Spend
from gateway.store.engine import Store
from tests.limits.receiver import RULE, SECRET, Clock, Node, due, percents, told
from tests.support.wire import Stall, Wait, WireUpstream, reply


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
