"""The list of models with the aliases in it."""

import json
from collections.abc import MutableMapping
from typing import Any

import pytest

from gateway.relay.catalogue import add_aliases, keep_allowed, relay_models
from gateway.relay.client import ClientReply
from gateway.relay.live import LiveCall
from gateway.relay.mask import SecretMask
from gateway.upstream.transport import RawHeaders, Sink

LIST = b'{ "object":"list", "data":[ {"id":"openai/gpt-5.2","object":"model","x":1e2} ] }\n'


def test_an_alias_is_described_as_its_target_is_and_the_rest_stays_byte_for_byte() -> None:
    out = add_aliases(LIST, {"gpt-5.2": "openai/gpt-5.2"})
    entry = b',{"id":"gpt-5.2","object":"model","x":100.0}'
    assert entry in out
    assert out.replace(entry, b" ") == LIST


def test_an_alias_whose_target_upstream_does_not_list_is_listed_by_its_name() -> None:
    models = json.loads(add_aliases(b'{"data":[]}', {"a": "b"}))["data"]
    assert models == [{"object": "model", "created": 0, "owned_by": "gateway", "id": "a"}]


def test_an_alias_that_upstream_lists_itself_is_not_listed_twice() -> None:
    assert add_aliases(LIST, {"openai/gpt-5.2": "x"}) == LIST


def test_what_is_not_allowed_is_taken_out_and_what_stays_keeps_its_bytes() -> None:
    body = b'{"data" : [ {"id":"a","x":1e2} , {"id":"b"},{"name":"c"},{"id":7},"d", {"id": "e"}], "z":null}'
    assert keep_allowed(body, lambda name: name in "ae") == b'{"data" : [{"id":"a","x":1e2},{"id": "e"}], "z":null}'
    assert keep_allowed(LIST, lambda _: True) == LIST


@pytest.mark.parametrize(
    "body", [b"", b"nonsense", b"[]", b'{"data":{}}', b'{"data":1}', b'{"object":"list"}', b"\xff"]
)
def test_what_is_no_list_of_models_stays_as_it_is(body: bytes) -> None:
    assert add_aliases(body, {"a": "b"}) == body


def test_odd_entries_do_no_harm() -> None:
    out = add_aliases(b'{"data":[null,1,{"id":3},{}]}', {"a": "b"})
    assert json.loads(out)["data"][:4] == [None, 1, {"id": 3}, {}]


@pytest.mark.parametrize("found_first", [b'"x":[]', b'"has_more":{"x":[ ]}', b'"x":"[]"'])
def test_aliases_go_into_the_list_of_models_and_not_into_an_equal_text_before_it(found_first: bytes) -> None:
    body = b'{%b,"data":[]}' % found_first
    out = json.loads(add_aliases(body, {"a": "b"}))
    assert [model["id"] for model in out.pop("data")] == ["a"]
    assert out == {name: value for name, value in json.loads(body).items() if name != "data"}


@pytest.mark.parametrize("identity", ["[]", "{}", '[{"a":1}]', "null", "1.5"])
def test_an_id_that_is_no_text_names_no_model(identity: str) -> None:
    out = add_aliases(b'{"data":[{"id":%b}]}' % identity.encode(), {"a": "b"})
    assert json.loads(out)["data"] == [
        {"id": json.loads(identity)},
        {"object": "model", "created": 0, "owned_by": "gateway", "id": "a"},
    ]


@pytest.mark.parametrize("model", [b'{"id":"b","x":1e999}', b'{"id":"b","x":"\\ud800"}', b'{"id":"b","x":"\xff"}'])
def test_a_list_that_cannot_be_written_again_stays_as_it_is(model: bytes) -> None:
    body = b'{"data":[%b]}' % model
    assert add_aliases(body, {"a": "b"}) == body


@pytest.mark.parametrize(
    "body", [b"[" * 100_000, b'{"data":' + b"[" * 100_000, b'{"data":' + b"[" * 100_000 + b"]" * 100_000 + b"}"]
)
def test_a_list_that_is_nested_too_deep_stays_as_it_is(body: bytes) -> None:
    assert add_aliases(body, {"a": "b"}) == body


KEY = "account-key-5f2e8c1b9d7a"


class Pieces:
    """An upstream reply whose body comes in these pieces."""

    status = 200
    headers: RawHeaders = []  # noqa: RUF012 - the protocol's own shape

    def __init__(self, pieces: list[bytes]) -> None:
        self._pieces = [*pieces, b""]

    async def read(self) -> bytes:
        return self._pieces.pop(0)

    def whole(self) -> None:
        """Nothing is known to be there."""

    async def pump(self, sink: Sink) -> None:
        while (piece := await self.read()) and sink(piece):
            pass

    def close(self) -> None:
        """Nothing is open."""


class FullWire:
    """A client that takes nothing at once, so that all goes by `send`."""

    holds_end = False

    def respond_now(self, status: int, headers: RawHeaders, body: bytes, length: bytes | None) -> bool:  # noqa: ARG002
        return False

    def write_now(self, piece: bytes) -> bool:  # noqa: ARG002
        return False

    def let_go(self) -> None:
        """Nothing waits."""

    def abort(self) -> None:
        """There is no connection."""


async def _relayed(pieces: list[bytes]) -> bytes:
    sent: list[bytes] = []

    async def send(message: MutableMapping[str, Any]) -> None:
        sent.append(message.get("body", b""))

    call = LiveCall(b"req_1", "GET", FullWire())

    def with_alias(body: bytes) -> bytes:
        return add_aliases(body, {"a": "b"})

    await relay_models(call, Pieces(pieces), ClientReply(call, send, 200, []), with_alias, SecretMask([KEY.encode()]))
    assert call.outcome == "done"
    return b"".join(sent)


async def test_the_list_comes_out_whole_however_it_was_cut() -> None:
    assert await _relayed([bytes([byte]) for byte in b'{"data":[]}']) == add_aliases(b'{"data":[]}', {"a": "b"})


@pytest.mark.parametrize("spelled", [KEY, "\\u0061" + KEY[1:]])
async def test_the_upstream_key_in_a_list_is_masked_in_the_entry_of_an_alias_too(spelled: str) -> None:
    body = b'{"data":[{"id":"b","owned_by":"%b"}]}' % spelled.encode()
    alias = json.loads(await _relayed([body[:30], body[30:]]))["data"][1]
    assert alias == {"id": "a", "owned_by": "*" * len(KEY)}
