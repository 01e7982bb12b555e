"""What the simulator tells about the requests that it saw."""

import hashlib
import time
from collections.abc import Iterator
from typing import Any

import pytest
import requests

from gateway.simulator import running_simulator
from tests.simulator.conftest import MODEL
from tests.simulator.wire import ask, connect, request
from tests.support.patience import Stopwatch

STREAM = {"model": MODEL, "messages": [{"role": "user", "content": "Hello!"}], "stream": True}


@pytest.fixture
def url() -> Iterator[str]:
    with running_simulator() as base_url:
        yield base_url


def seen(url: str, query: str = "") -> dict[str, Any]:
    reply = requests.get(f"{url.removesuffix('/v1')}/_seen{query}", timeout=10)
    assert reply.status_code == 200
    report: dict[str, Any] = reply.json()
    return report


def test_a_request_is_told_with_digests_in_place_of_secrets(url: str) -> None:
    headers = {"authorization": "Bearer sk-secret-1", "x-mark": "1", "cookie": "a=secret-2"}
    requests.post(f"{url}/chat/completions?a=b", data=b"{}", headers=headers, timeout=10)
    report = seen(url)
    assert "secret-" not in str(report)
    (told,) = report["requests"]
    assert (told["method"], told["target"]) == ("POST", "/v1/chat/completions?a=b")
    assert (told["body_bytes"], told["body_sha256"]) == (2, hashlib.sha256(b"{}").hexdigest())
    assert (told["status"], told["ended"]) == (400, "completed")
    shown = dict(told["headers"])
    assert shown["x-mark"] == "1"
    assert shown["authorization"] == f"sha256:{hashlib.sha256(b'Bearer sk-secret-1').hexdigest()}"


def test_encoded_targets_are_told_as_they_were_sent(url: str) -> None:
    requests.get(f"{url}/models/openai%2Fgpt-5.2", timeout=10)
    assert seen(url)["requests"][0]["target"] == "/v1/models/openai%2Fgpt-5.2"


@pytest.mark.parametrize(
    "simulate", ["delay=60", "stall=headers", "stall=first-byte", "stall=300", "chunks=1000; chunk-delay=1"]
)
def test_a_client_that_leaves_is_noticed_in_every_phase(url: str, simulate: str) -> None:
    with connect(url) as connection:
        connection.sendall(request("chat/completions", STREAM, simulate))
        assert seen(url, "?total=1&open=1")["open"] == 1
    left_s = time.monotonic()
    (told,) = seen(url, "?open=0")["requests"]
    assert told["ended"] == "client left"
    assert told["ended_s"] - left_s < 1


def test_a_client_that_leaves_before_its_body_is_whole_is_noticed(url: str) -> None:
    with connect(url) as connection:
        connection.sendall(request("chat/completions", STREAM, "")[:-1])
        assert seen(url, "?total=1&open=1")["open"] == 1
    assert seen(url, "?open=0")["requests"][0]["ended"] == "client left"


@pytest.mark.parametrize(("simulate", "ending"), [("cut=100", "cut"), ("reset=100", "reset"), ("", "completed")])
def test_every_ending_is_told_with_the_bytes_that_went_out(url: str, simulate: str, ending: str) -> None:
    heard = ask(url, "chat/completions", STREAM, simulate)
    (told,) = seen(url, "?open=0")["requests"]
    assert (told["ended"], told["sent_bytes"]) == (ending, len(heard.body))


def test_a_report_that_never_comes_true_is_408(url: str) -> None:
    reply = requests.get(f"{url.removesuffix('/v1')}/_seen?total=9&timeout_s=0.05", timeout=10)
    assert reply.status_code == 408


def test_what_was_seen_can_be_forgotten(url: str) -> None:
    requests.get(f"{url}/models", timeout=10)
    requests.delete(f"{url.removesuffix('/v1')}/_seen", timeout=10)
    assert seen(url)["requests"] == []


def test_a_slow_reader_stops_the_stream_instead_of_filling_memory(url: str) -> None:
    with connect(url) as connection:
        connection.sendall(request("chat/completions", STREAM, "chunks=100000; chunk-bytes=65536"))
        connection.recv(1000)
        assert seen(url, "?total=1")["open"] == 1
    (told,) = seen(url, "?open=0")["requests"]
    assert told["sent_bytes"] < 64 * 1024 * 1024


def test_it_stops_at_once_with_calls_open() -> None:
    with running_simulator() as url:
        connection = connect(url)
        connection.sendall(request("chat/completions", STREAM, "stall=headers"))
        assert seen(url, "?total=1")["open"] == 1
        watch = Stopwatch()
    assert watch.took().running_s < 2
    connection.close()


def test_a_port_that_is_taken_is_said_at_once(url: str) -> None:
    port = int(url.rpartition(":")[2].removesuffix("/v1"))
    with pytest.raises(OSError, match="in use"), running_simulator(port=port):
        pass


@pytest.mark.parametrize("seed", [0, 1])
def test_two_simulators_with_one_seed_say_the_same(seed: int) -> None:
    replies = []
    for _ in range(2):
        with running_simulator(seed=seed) as url:
            replies.append(ask(url, "chat/completions", STREAM, "").body)
    assert replies[0] == replies[1]
