"""One line a call."""

import io
import json
import logging
import shlex
from collections.abc import Callable, Iterator

import pytest
from msgspec.structs import replace

from gateway.call import Principal
from gateway.observe.logs import HumanFormatter, JsonFormatter, call_logger
from gateway.settings.telemetry import Log
from tests.observe.test_metrics import RECORD

FAILED = replace(RECORD, status=502, outcome="failed", error="upstream_unreachable", upstream_error="connect")
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


@pytest.mark.parametrize(("calls", "count"), [("all", 3), ("errors", 1)])
def test_the_setting_says_which_calls_get_a_line(lines: Listen, calls: str, count: int) -> None:
    stream = lines(JsonFormatter())
    observe = call_logger(Log.model_validate({"calls": calls}))
    assert observe is not None
    for record in (RECORD, FAILED, LEFT):
        observe(record, "")
    assert len(stream.getvalue().splitlines()) == count


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
