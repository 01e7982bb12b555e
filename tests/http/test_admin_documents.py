"""Exports and imports over HTTP, and how their YAML is read."""

import contextlib
import json
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
import yaml
from hypothesis import assume, example, given
from hypothesis import strategies as st

from gateway.errors import BadRequest
from gateway.http.admin import transfer
from gateway.http.admin.document import read_document, write_document
from tests.http.admin_server import AdminServer, Client, assert_refused

YAML = "application/yaml"
DOCUMENT = b"""\
version: 1
teams:
- name: engines
  limits: {requests_per_minute: 60}
  keys:
  - name: ada
    owner: ada@example.com
  - name: on
    expires_at: 2127-01-31T18:00:00Z
"""


@pytest.fixture
def admin(server: AdminServer) -> Client:
    return server.admin


def load(client: Client, content: bytes, *, query: str = "", kind: str = YAML) -> object:
    reply = client.send("POST", f"/import{query}", content, content_type=kind)
    assert reply.status_code == 200, reply.text
    return reply.json()


def test_what_is_imported_is_there_and_comes_out_again(admin: Client) -> None:
    done = load(admin, DOCUMENT)
    assert isinstance(done, dict)
    assert [team["name"] for team in done["made_teams"]] == ["engines"]
    assert [key["name"] for key in done["made_keys"]] == ["ada", "on"]
    assert all(key["secret"] for key in done["made_keys"])
    exported = admin.get("/export")
    assert exported.headers["content-type"] == YAML
    again = load(admin, exported.content)
    assert isinstance(again, dict)
    assert (again["made_teams"], again["made_keys"], again["changed_keys"], again["changed_teams"]) == ([], [], [], [])
    engines = next(team for team in yaml.safe_load(exported.text)["teams"] if team["name"] == "engines")
    assert [key["name"] for key in engines["keys"]] == ["ada", "on"]
    assert engines["limits"] == {"requests_per_minute": 60}


def test_a_dry_run_says_what_would_be_done_and_does_nothing(admin: Client) -> None:
    done = load(admin, DOCUMENT, query="?dry_run=true")
    assert isinstance(done, dict)
    assert (done["dry_run"], len(done["made_keys"])) == (True, 2)
    assert admin.get("/teams", name="engines").json()["data"] == []
    assert_refused(admin.send("POST", "/import?dry_run=maybe", DOCUMENT, content_type=YAML), 400, param="dry_run")


def test_an_import_is_all_or_nothing(admin: Client) -> None:
    bad = DOCUMENT + b"  - name: x\n    paralel: 3\n"
    message = assert_refused(admin.send("POST", "/import", bad, content_type=YAML), 400)
    assert "paralel" in message
    assert admin.get("/teams", name="engines").json()["data"] == []


def test_what_a_member_sends_is_not_even_read(admin: Client, server: AdminServer) -> None:
    load(admin, DOCUMENT)
    member = server.client(admin.post("/keys", {"team": "engines", "name": "eve"}).json()["secret"])
    for content in (b"", b"a: [", b"[" + b"a," * 100_000 + b"]", DOCUMENT):
        assert_refused(member.send("POST", "/import", content, content_type=YAML), 403, "forbidden")


def test_one_document_is_read_at_a_time(admin: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    both_read = threading.Barrier(2)

    def read(content: bytes) -> object:
        with contextlib.suppress(threading.BrokenBarrierError):
            both_read.wait(0.3)
            raise AssertionError("two documents were read at a time")
        return read_document(content)

    monkeypatch.setattr(transfer, "read_document", read)
    with ThreadPoolExecutor(2) as pool:
        for done in [pool.submit(load, admin, DOCUMENT, query="?dry_run=true") for _ in range(2)]:
            assert isinstance(done.result(), dict)


def test_an_import_takes_no_idempotency_key(admin: Client) -> None:
    reply = admin.send("POST", "/import", DOCUMENT, content_type=YAML, idempotency_key="one")
    assert "no Idempotency-Key" in assert_refused(reply, 400, param="idempotency-key")
    assert admin.get("/teams", name="engines").json()["data"] == []


def test_only_yaml_is_taken(admin: Client) -> None:
    for kind in ("text/plain", "application/x-www-form-urlencoded", ""):
        headers = {"content_type": kind} if kind else {}
        assert_refused(admin.send("POST", "/import", DOCUMENT, **headers), 415, "unsupported_media_type")


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("", None),
        ("a: 1", {"a": 1}),
        ("a: '1'", {"a": "1"}),
        ("a: on", {"a": "on"}),
        ("a: yes", {"a": "yes"}),
        ("a: true", {"a": True}),
        ("a: null", {"a": None}),
        ("a: ~", {"a": None}),
        ("a:", {"a": None}),
        ("a: 2027-01-31", {"a": "2027-01-31"}),
        ("a: 010", {"a": 10}),
        ("a: 1_000", {"a": "1_000"}),
        ("a: 1:30", {"a": "1:30"}),
        ("a: 1.5", {"a": "1.5"}),
        ("1: a", {"1": "a"}),
        ("- a\n- [b, {c: d}]", ["a", ["b", {"c": "d"}]]),
        ('{"a": [1, null, true]}', {"a": [1, None, True]}),
        ("\ufeffa: 1", {"a": 1}),
    ],
)
def test_plain_text_means_what_yaml_1_2_says(text: str, value: object) -> None:
    assert read_document(text.encode()) == value


@pytest.mark.parametrize(
    ("text", "what"),
    [
        (b"a: &x 1\nb: *x", "alias"),
        (b"a: *x", "alias"),
        (b"a: &x 1", "anchor"),
        (b"a: !!python/object:os.system 1", "tag"),
        (b"!x [1]", "tag"),
        (b"a: !!int 1", "tag"),
        (b"!!map {a: 1}", "tag"),
        (b"a: 1\na: 2", "second time"),
        (b"? [a]\n: b", "no text"),
        (b"[" * 100_000, "nested too deep"),
        (b"\xff", "UTF-8"),
        (b"a: [", "not YAML"),
        (b"a: \x00", "not YAML"),
        (b"--- a\n--- b", "more than one"),
        (b"--- a\n" * 50_000, "too many"),
        (b"[" + b"a," * 100_000 + b"]", "too many"),
        (b"- a\n" * 100_000, "too many"),
        (b"- [[]]\n" * 100_000, "too many"),
        (b"".join(b"k%d: 1\n" % number for number in range(50_000)), "too many"),
        (b'"\\U99999999"', "not YAML"),
        (b'{"a": "\\ud83d"}', "half of a surrogate pair"),
        (b'{"\\ude80": 1}', "half of a surrogate pair"),
        (b'{"a": 1, "a": 2}', "second time"),
        (b'{"a":' + b"[" * 100_000, "nested too deep"),
        (b'{"a":' + b"[" * 20_000 + b"]" * 20_000 + b"}", "nested too deep"),
        (b'{"a":' * 8 + b"1" + b"}" * 8, "nested too deep"),
        (b'{"a": [' + b"0," * 100_000 + b"0]}", "too many"),
        (b'{"a": [' + b"[]," * 100_000 + b"0]}", "too many"),
    ],
)
def test_what_could_grow_or_be_read_in_two_ways_is_refused(text: bytes, what: str) -> None:
    with pytest.raises(BadRequest) as refusal:
        read_document(text)
    assert what in refusal.value.message


_PLAIN = st.text(st.characters(exclude_categories=["Cs", "Cc"]), max_size=20)
_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**15), 10**15) | _PLAIN,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_PLAIN, inner, max_size=3),
    max_leaves=10,
)


@given(_VALUES)
def test_what_is_written_is_read_as_it_was(value: object) -> None:
    assume(_depth(value) <= 8)
    assert read_document(write_document(value)) == value


@given(st.text("0123456789+-_.:eExo~=<>&*#?|'\"{}[], nulytrefaONTF", min_size=1, max_size=8) | _PLAIN)
@example("00981")
@example("-08")
@example("\U0001f680")
@example("1e3")
@example("=")
@example("<<")
@example("a b " * 100)
def test_text_is_written_so_that_it_is_read_as_text(text: str) -> None:
    assert read_document(write_document([text])) == [text]
    for value in ({"k": text}, {text: "v"}):
        assert read_document(write_document(value)) == value
        assert read_document(json.dumps(value).encode()) == value
        assert read_document(json.dumps(value, ensure_ascii=False).encode()) == value


@given(_VALUES)
def test_json_is_read_as_it_was_meant(value: object) -> None:
    document = {"a": value}
    assume(_depth(document) <= 8)
    for indent in (None, 1, "\t"):
        assert read_document(json.dumps(document, indent=indent).encode()) == document


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ('{"a": "\\ud83d\\ude80 \\u00e9 \\/ \\\\ud83d"}', {"a": "\U0001f680 é / \\ud83d"}),
        ('\ufeff \n{"a": [1, -2, 1e3, 1.5, 1' + "0" * 30 + "]}", {"a": [1, -2, "1e3", "1.5", "1" + "0" * 30]}),
        ('{"' + "\\u00e9" * 300 + '": 1}', {"é" * 300: 1}),
        ("{a: 1, 'b': x}", {"a": 1, "b": "x"}),
        ('{"a": NaN}', {"a": "NaN"}),
    ],
)
def test_what_begins_as_json_is_read_as_json_or_else_as_yaml(text: str, value: object) -> None:
    assert read_document(text.encode()) == value


def _depth(value: object) -> int:
    inner = list(value.values()) if isinstance(value, dict) else value if isinstance(value, list) else []
    return 1 + max(map(_depth, inner), default=0)
