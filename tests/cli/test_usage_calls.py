"""`gmi-gateway calls` and `tail`: single calls, and calls as they end."""

import json
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from gateway.call import Principal
from tests.cli.conftest import Run, answer, done, plain
from tests.cli.ledger import a_key, call_of, put
from tests.cli.process import command

LIMITED = "rate_limit_exceeded, key/requests/minute"


@pytest.fixture
def ada(run: Run) -> Principal:
    """A key with four calls, each ended in a way of its own."""
    ada = a_key(run, "engines", "ada")
    refused = {"status": 429, "outcome": "refused", "error": "rate_limit_exceeded key/requests/minute"}
    unused = {"usage": None, "usage_source": "none", "cost_microusd": 0}
    put(
        [
            call_of(ada, "req_done", 400, tags={"job": "nightly"}),
            call_of(ada, "req_refused", 300, **refused, **unused),
            call_of(ada, "req_cut", 200, outcome="cut", usage_source="estimated", upstream_error="broken"),
            call_of(ada, "req_unknown", 100, usage=None, usage_source="unknown", cost_microusd=None),
        ]
    )
    return ada


@pytest.mark.usefixtures("ada")
@pytest.mark.parametrize(
    ("words", "ids"),
    [
        ((), ["req_unknown", "req_cut", "req_refused", "req_done"]),
        (("--limit", "1"), ["req_unknown"]),
        (("--last", "1"), ["req_unknown"]),
        (("--errors",), ["req_cut", "req_refused"]),
        (("--outcome", "done", "--outcome", "cut"), ["req_unknown", "req_cut", "req_done"]),
        (("--status", "4xx"), ["req_refused"]),
        (("--error", "rate_limit_exceeded"), ["req_refused"]),
        (("--tag", "job=nightly"), ["req_done"]),
        (("--since", "150s"), ["req_unknown"]),
        (("--key-of", "ada", "--team", "engines", "--until", "250s"), ["req_refused", "req_done"]),
    ],
)
def test_calls_are_listed_newest_first_as_filters_let_them_through(
    run: Run, words: tuple[str, ...], ids: list[str]
) -> None:
    assert [call["id"] for call in answer(run("calls", "list", *words, "--json"))] == ids


@pytest.mark.usefixtures("ada")
def test_a_line_says_how_a_call_ended_and_what_nobody_knows_of_it(run: Run) -> None:
    lines = done(run("calls", "list")).splitlines()[2:]
    cells = [[cell.strip() for cell in line.split("  ") if cell.strip()] for line in lines]
    assert [(row[1], row[2], *row[5:]) for row in cells] == [
        ("req_unknown", "engines/ada", "200", "unknown", "unknown", "unknown", "250", "done"),
        ("req_cut", "engines/ada", "200", "~5", "~2", "~$0.000012", "250", "cut: broken"),
        ("req_refused", "engines/ada", "429", "0", "0", "$0.00", "250", f"refused: {LIMITED}"),
        ("req_done", "engines/ada", "200", "5", "2", "$0.000012", "250", "done"),
    ]


def test_one_call_is_shown_with_where_its_time_went(run: Run, ada: Principal) -> None:
    shown = plain(done(run("calls", "show", "req_done")))
    for text in ("took 250.000 ms", "first byte after 125.000 ms", "gateway's own share 0.500 ms", "tags job=nightly"):
        assert text in shown
    told = answer(run("calls", "show", "req_done", "--json"))
    assert (told["key"], told["key_id"], told["team"]) == ("engines/ada", ada.key_id, "engines")
    assert told["usage"]["cached_tokens"] == 3


def test_a_call_that_is_not_there_is_said_to_be_so(run: Run) -> None:
    result = run("calls", "show", "req_none")
    assert (result.exit_code, result.stderr.startswith("There is no call req_none in ")) == (1, True)


@pytest.mark.parametrize("words", [("--outcome", "well"), ("--status", "200")])
def test_what_is_no_end_of_a_call_is_refused(run: Run, words: tuple[str, ...]) -> None:
    result = run("calls", "list", *words)
    assert (result.exit_code, "must be one of" in plain(result.stderr)) == (2, True)


@contextmanager
def tailing(*words: str) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(command("tail", *words), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        yield process
    finally:
        if process.poll() is None:
            process.kill()
        process.communicate(timeout=10)


def next_line(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline()


def test_calls_are_followed_into_a_pipe_each_once_as_they_end_until_ctrl_c(ada: Principal) -> None:
    with tailing("--json", "--last", "1") as process:
        assert json.loads(next_line(process))["id"] == "req_unknown"
        put([call_of(ada, "req_quick"), call_of(ada, "req_long", 600, duration_s=600.0)])
        ids = {json.loads(next_line(process))["id"] for _ in range(2)}
        assert ids == {"req_quick", "req_long"}
        put([call_of(ada, "req_last")])
        told = json.loads(next_line(process))
        assert (told["id"], told["key"]) == ("req_last", "engines/ada")
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=10)
        assert (process.returncode, out, err) == (0, "", "")


def test_errors_alone_are_followed_where_they_are_asked_for(ada: Principal) -> None:
    with tailing("--errors", "--limit", "1") as process:
        assert next_line(process).rstrip().endswith("cut: broken  req_cut")
        put([call_of(ada, "req_well"), call_of(ada, "req_ill", outcome="failed", error="upstream_timeout", status=504)])
        assert next_line(process).rstrip().endswith("failed: upstream_timeout  req_ill")


def test_who_reads_no_further_ends_it_without_a_word(ada: Principal) -> None:
    with tailing("--last", "1") as process:
        next_line(process)
        assert process.stdout is not None
        process.stdout.close()
        put([call_of(ada, "req_unread")])
        assert process.wait(timeout=20) == 0
        assert process.stderr is not None
        assert process.stderr.read() == ""
        process.stdout = None
