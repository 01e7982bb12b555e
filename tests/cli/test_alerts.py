"""`gmi-gateway alerts test`: whether the webhook that budgets tell takes what it is told."""

import asyncio
import json
import re

import pytest

from gateway.limits.alerts import SIGNATURE_HEADER, sign
from tests.cli.conftest import answer, call, done
from tests.support.ports import free_port
from tests.support.wire import WireUpstream, reply

SECRET = "a-secret-for-webhooks"


def environ(url: str) -> dict[str, str]:
    return {"GATEWAY_ALERTS_WEBHOOK_URL": f"{url}/hook?token=s3cret", "GATEWAY_ALERTS_WEBHOOK_SECRET": SECRET}


async def test_one_signed_event_is_sent_and_the_answer_is_told() -> None:
    async with WireUpstream(reply(204)) as receiver:
        told = done(await asyncio.to_thread(call, "alerts", "test", **environ(receiver.url)))
    (request,) = receiver.requests
    event = json.loads(request.body)
    signature = request.header(SIGNATURE_HEADER.encode()) or b""
    assert (request.method, request.target) == (b"POST", b"/hook?token=s3cret")
    assert (event["type"], event["data"]) == ("alerts.test", {})
    assert signature.decode() == sign(SECRET, event["created_at"], request.body)
    assert told.startswith(f"The webhook has taken {event['id']}: status 204 after ")
    assert "s3cret" not in told


async def test_a_script_gets_the_answer_as_json() -> None:
    async with WireUpstream(reply(200)) as receiver:
        told = answer(await asyncio.to_thread(call, "alerts", "test", "--json", **environ(receiver.url)))
    assert (told["status"], told["problem"]) == (200, None)
    assert told["id"] == json.loads(receiver.requests[0].body)["id"]
    assert told["ms"] > 0


@pytest.mark.parametrize("status", [302, 404, 500])
async def test_what_is_not_taken_is_said_once_and_ends_with_1(status: int) -> None:
    async with WireUpstream(reply(status)) as receiver:
        result = await asyncio.to_thread(call, "alerts", "test", **environ(receiver.url))
    assert (result.exit_code, result.stdout, len(receiver.requests)) == (1, "", 1)
    assert f": status {status} after " in result.stderr
    assert "s3cret" not in result.stderr


def test_a_webhook_that_is_not_there_is_said_without_its_address() -> None:
    result = call("alerts", "test", **environ(f"http://127.0.0.1:{free_port()}"))
    assert result.exit_code == 1
    assert re.match(r"The webhook has not taken alert_\w+: nobody listens there after ", result.stderr)
    assert "s3cret" not in result.output
    assert "127.0.0.1" not in result.output


def test_a_webhook_whose_name_is_nobodys_is_said() -> None:
    result = call("alerts", "test", **environ("http://nobody.invalid"))
    assert ": its name does not resolve after " in result.stderr
    assert "nobody.invalid" not in result.output


def test_without_a_webhook_it_says_what_to_set() -> None:
    result = call("alerts", "test")
    assert result.exit_code == 1
    assert "alerts.webhook_url" in result.stderr
