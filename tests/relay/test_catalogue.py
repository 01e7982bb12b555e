"""The list of models with the aliases in it."""

import json

import pytest

from gateway.relay.catalogue import add_aliases

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


@pytest.mark.parametrize(
    "body", [b"", b"nonsense", b"[]", b'{"data":{}}', b'{"data":1}', b'{"object":"list"}', b"\xff"]
)
def test_what_is_no_list_of_models_stays_as_it_is(body: bytes) -> None:
    assert add_aliases(body, {"a": "b"}) == body


def test_odd_entries_do_no_harm() -> None:
    out = add_aliases(b'{"data":[null,1,{"id":3},{}]}', {"a": "b"})
    assert json.loads(out)["data"][:4] == [None, 1, {"id": 3}, {}]
