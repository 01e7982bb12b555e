"""One line a call."""

import io
import json
import logging
import shlex
import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import Literal

import pytest
from msgspec.structs import replace

from gateway.call import CallRecord, Principal
from gateway.observe.logs import HumanFormatter, JsonFormatter, call_logger
from gateway.settings.telemetry import Log
from tests.observe.test_metrics import RECORD

FAILED = replace(RECORD, status=502, outcome="failed", error="upstream_unreachable", upstream_error="connect")
STRANGER = replace(
    RECORD, status=401, outcome="refused", error="invalid_api_key", principal=None, duration_s=0.0, usage=None
)
LEFT = replace(RECORD, outcome="client_left")


@pytest.fixture
def lines() -> Iterator[Callable[[logging.Formatter], io.StringIO]]:
    logger = logging.getLogger("gateway.calls")
    handlers: list[logging.Handler] = []

    def listen(formatter: logging.Formatter) -> io.StringIO:
        stream = io.StringIO()
        handler = logging.StreamHandler(stream)
        handler.setFormatter(formatter)
        handlers.append(handler)
        logger.addHandler(handler)
        logger.setLevel(logging.INFO)
        return stream

    yield listen
    for handler in handlers:
        logger.removeHandler(handler)


Listen = Callable[[logging.Formatter], io.StringIO]


def test_what_a_library_warns_of_is_a_line_as_all_others_are() -> None:
    program = """
import logging
from gateway.observe.logs import configure
from gateway.settings.telemetry import Log
configure(Log(format="json"))
try:
    raise LookupError("gone")
except LookupError:
    logging.getLogger("sqlalchemy.pool").exception("during reset")
logging.getLogger("asyncio").info("of no interest")
"""
    told = subprocess.run([sys.executable, "-c", program], capture_output=True, check=True, timeout=60).stderr
    line = json.loads(told)
    assert (line["level"], line["logger"], line["message"]) == ("error", "sqlalchemy.pool", "during reset")
    assert line["exception"].endswith("LookupError: gone")


@pytest.mark.parametrize(("calls", "count"), [("all", 3), ("errors", 1)])
def test_the_setting_says_which_calls_get_a_line(lines: Listen, calls: str, count: int) -> None:
    stream = lines(JsonFormatter())
    observe = call_logger(Log.model_validate({"calls": calls}))
    assert observe is not None
    for record in (RECORD, FAILED, LEFT):
        observe(record, "")
    assert len(stream.getvalue().splitlines()) == count


def strangers(calls: Literal["errors", "all"], *times_s: float) -> Callable[[CallRecord, str], None]:
    """A log of `calls` that has seen a call by nobody at each of these times."""
    observe = call_logger(Log(calls=calls))
    assert observe is not None
    for number, at_s in enumerate(times_s):
        observe(replace(STRANGER, id=f"req_{number}", started_at_s=at_s), "")
    return observe


def test_who_tries_keys_out_gets_ten_lines_a_second_and_the_rest_are_counted(lines: Listen) -> None:
    stream = lines(JsonFormatter())
    observe = strangers("errors", *([1_000.0] * 500))
    observe(replace(FAILED, started_at_s=1_000.0), "")
    observe(replace(RECORD, started_at_s=1_002.0), "")
    written = [json.loads(line) for line in stream.getvalue().splitlines()]
    assert [line["call"] for line in written[:10]] == [f"req_{number}" for number in range(10)]
    assert written[10]["status"] == 502, "a call with a key has its line whatever strangers do"
    assert written[11]["message"] == "more calls without a valid key were refused within a second"
    assert written[11]["left_out"] == 490
    assert len(written) == 12


def test_strangers_who_come_later_have_lines_of_their_own(lines: Listen) -> None:
    stream = lines(JsonFormatter())
    strangers("errors", *(1_000 + second for second in range(30)))
    assert len(stream.getvalue().splitlines()) == 30


def test_all_calls_are_all_calls(lines: Listen) -> None:
    stream = lines(JsonFormatter())
    strangers("all", *([1_000.0] * 500))
    assert len(stream.getvalue().splitlines()) == 500


def test_off_means_no_observer_at_all() -> None:
    assert call_logger(Log(calls="off")) is None


def test_a_json_line_holds_the_fields_of_the_call(lines: Listen) -> None:
    stream = lines(JsonFormatter())
    observe = call_logger(Log(calls="all"))
    assert observe is not None
    observe(replace(FAILED, principal=Principal("ada", "engines", key_id="key_1")), "connection refused")
    line = json.loads(stream.getvalue())
    assert line["level"] == "warning"
    assert (line["call"], line["key"], line["team"]) == ("req_1", "ada", "engines")
    assert line["key_id"] == "key_1"
    assert (line["status"], line["upstream_error"], line["detail"]) == (502, "connect", "connection refused")


@pytest.mark.parametrize("formatter", [JsonFormatter(), HumanFormatter()], ids=["json", "human"])
def test_no_field_can_break_a_line_or_forge_another(lines: Listen, formatter: logging.Formatter) -> None:
    stream = lines(formatter)
    observe = call_logger(Log(calls="all"))
    assert observe is not None
    observe(replace(RECORD, model="evil\n2026-01-01 error forged\r\x1b[31m\u2028"), "")
    text = stream.getvalue()
    assert text.count("\n") == 1
    assert "\r" not in text
    assert "\x1b" not in text
    assert "\u2028" not in text


def _human(lines: Listen, model: str, detail: str = "") -> str:
    stream = lines(HumanFormatter())
    observe = call_logger(Log(calls="all"))
    assert observe is not None
    observe(replace(RECORD, model=model), detail)
    return stream.getvalue()


@pytest.mark.parametrize(
    ("model", "shown"),
    [
        ("openai/gpt-5.2", "openai/gpt-5.2"),
        ("x status=200 key=root", '"x status=200 key=root"'),
        ("x=1", '"x=1"'),
        ('"x"', r'"\"x\""'),
        ("'x y'", "\"'x y'\""),
        ("", '""'),
        ("x\\", r'"x\\"'),
        ("x\u00a0key=root\x7f", r'"x\u00a0key=root\u007f"'),
    ],
)
def test_a_value_that_is_no_plain_word_is_quoted_in_a_human_line(lines: Listen, model: str, shown: str) -> None:
    assert f" model={shown} status=" in _human(lines, model)


def test_no_model_can_forge_a_field_of_a_human_line(lines: Listen) -> None:
    words = shlex.split(_human(lines, "x status=200 key=root", 'a "b" key=root'))
    assert [word for word in words if word.startswith("key=")] == ["key=ada"]
    assert "model=x status=200 key=root" in words
    assert 'detail=a "b" key=root' in words
