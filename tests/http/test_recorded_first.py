"""A call is recorded and settled before its client has the last of its reply: what a client has seen end is counted."""

import pytest

from gateway.relay.live import LiveCall
from tests.faults.face import CHAT, RESPONSES, TRANSPORTS, ask, connected, post, request
from tests.support.gateway import running_gateway
from tests.support.wire import Reset, Stall, Step, WireUpstream, reply, sse

JSON = [(b"Content-Type", b"application/json")]
CHUNK = {"id": "chatcmpl-1", "choices": [{"index": 0, "delta": {"content": "a"}}]}
USAGE = {"choices": [], "usage": {"prompt_tokens": 5, "completion_tokens": 2, "total_tokens": 7}}
COMPLETED = b'event: response.completed\ndata: {"type":"response.completed","response":{"id":"resp_1"}}\n\n'
PLAIN = reply(200, JSON, b'{"usage":{"prompt_tokens":5,"completion_tokens":2,"total_tokens":7}}')
LARGE = [(b"Content-Length", b"3000000"), (b"Content-Type", b"audio/mpeg")]

ANSWERED: dict[str, tuple[bytes, bytes | list[Step], str]] = {
    "plain": (post(CHAT, {"model": "m"}), PLAIN, "done"),
    "error": (post(CHAT, {"model": "m"}), reply(400, JSON, b'{"error":{}}'), "upstream_error"),
    "refused": (post("/v1/nowhere", {}), b"", "refused"),
    "no body": (post(CHAT, {"model": "m"}), reply(204), "done"),
    "large": (post("/v1/audio/speech", {"model": "m"}), [reply(200, LARGE), bytes(3_000_000)], "done"),
    "models": (request("GET", "/v1/models"), reply(200, JSON, b'{"object":"list","data":[]}'), "done"),
    "list": (request("GET", "/v1/files"), reply(200, JSON, b'{"object":"list","data":[],"has_more":false}'), "done"),
    "stream that upstream does not end": (
        post(CHAT, {"model": "m", "stream": True}),
        [*sse([CHUNK, USAGE, "[DONE]"], end=False), Stall()],
        "done",
    ),
    "stream": (post(RESPONSES, {"model": "m", "stream": True}), sse([COMPLETED]), "done"),
    "stream that broke off": (
        post(CHAT, {"model": "m", "stream": True}),
        [*sse([CHUNK], end=False), Reset()],
        "cut",
    ),
}


@pytest.mark.parametrize("transport", TRANSPORTS)
@pytest.mark.parametrize("what", ANSWERED)
async def test_whoever_has_seen_a_reply_end_finds_it_recorded(what: str, transport: str) -> None:
    data, script, outcome = ANSWERED[what]
    async with WireUpstream(script) as upstream:
        section = {"upstream": {"transport": transport}, "models": {"aliases": {"a": "b"}}}
        with running_gateway(f"{upstream.url}/v1", **section) as gateway:
            answer = await ask(gateway.port, data)
            records = list(gateway.records)
    assert answer.end == "complete"
    assert [record.outcome for record in records] == [outcome]
    assert records[0].sent_bytes > 0 or not answer.body
    if "plain" in what or "upstream does not end" in what:
        assert records[0].usage_source == "reported"


async def test_calls_that_follow_each_other_on_a_connection_are_recorded_in_their_order() -> None:
    async with WireUpstream(PLAIN) as upstream:
        with running_gateway(f"{upstream.url}/v1") as gateway:
            async with connected(gateway.port) as client:
                client.send(post(CHAT, {"model": "m"}) * 5)
                for count in range(1, 6):
                    assert (await client.answer()).status == 200
                    assert len(gateway.records) >= count
            assert len(await gateway.recorded(5)) == 5


@pytest.mark.parametrize("stream", [False, True], ids=["plain", "stream"])
async def test_a_client_that_goes_while_its_call_is_settled_disturbs_nobody(
    stream: bool, caplog: pytest.LogCaptureFixture
) -> None:
    script = sse([CHUNK, USAGE, "[DONE]"]) if stream else PLAIN
    async with WireUpstream(script) as upstream:
        with running_gateway(f"{upstream.url}/v1") as gateway:
            settlement = gateway.app.proxy.settlement
            end = settlement.end

            def end_after_loss(call: LiveCall) -> None:
                settlement.end, call.on_end = end, None  # type: ignore[method-assign]
                for connection in gateway._server.server_state.connections:
                    connection.transport.abort()
                assert gateway.loop is not None
                gateway.loop.call_later(0.01, end, call)

            settlement.end = end_after_loss  # type: ignore[method-assign]
            async with connected(gateway.port) as client:
                client.send(post(CHAT, {"model": "m", "stream": stream}))
                assert b"[DONE]" not in await client.ended()
            served = await ask(gateway.port, post(CHAT, {"model": "m", "stream": stream}))
            assert served.end == "complete"
            assert len(await gateway.recorded(2)) == 2
    assert caplog.text == ""
