"""Logs to standard error: JSON or human lines, one a call, never a secret.

Knows what a record looks like as a line. What is logged holds ids, names, numbers and fixed words; no header, no body
and no exception text of a client's or upstream's making reaches it unquoted.
"""

import json
import logging
import re
import sys
import time
from collections.abc import Callable
from typing import Any

from gateway.call import CallRecord
from gateway.settings.telemetry import Log

_PLAIN = re.compile(r"[!#-&(-<>-\[\]-~]+")
"""Visible ASCII without quotes, backslash and equals sign."""

_STRANGERS_A_SECOND = 10
_LEFT_OUT = "more calls without a valid key were refused within a second"

_log = logging.getLogger("gateway.calls")
_to_json = json.JSONEncoder(separators=(",", ":")).encode
"""To ASCII: what else a name may hold, a terminal need not show."""

_FAILED = ("failed", "upstream_error", "cut", "drained")


class _Formatter(logging.Formatter):
    def formatTime(self, record: logging.LogRecord, datefmt: str | None = None) -> str:  # noqa: N802
        seconds = time.strftime(datefmt or "%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
        return f"{seconds}.{int(record.msecs):03d}Z"


class JsonFormatter(_Formatter):
    """One JSON object a line: time, level, logger, message, and the fields of a call."""

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, Any] = {
            "time": self.formatTime(record),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        line |= getattr(record, "fields", {})
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return _to_json(line)


class HumanFormatter(_Formatter):
    """A line that a person reads: `name=value`, with the value as a JSON string where it is no plain word.

    Control characters are escaped, so that a line stays a line, and no value looks like another field.
    """

    def format(self, record: logging.LogRecord) -> str:
        fields = getattr(record, "fields", {})
        shown = [f"{name}={_word(str(value))}" for name, value in fields.items() if value is not None]
        text = " ".join([record.getMessage().encode("unicode_escape").decode(), *shown])
        line = f"{self.formatTime(record)} {record.levelname.lower():7} {text}"
        return f"{line}\n{self.formatException(record.exc_info)}" if record.exc_info else line


def _word(value: str) -> str:
    if _PLAIN.fullmatch(value):
        return value
    return json.dumps(value).replace("\x7f", "\\u007f")  # json leaves this one control character as it is


def configure(settings: Log) -> None:
    """Send the logs of the gateway and uvicorn, and warnings of all others, to standard error in the chosen format."""
    human = settings.format == "human" or (settings.format == "auto" and sys.stderr.isatty())
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(HumanFormatter() if human else JsonFormatter())
    for name, level in (("", logging.WARNING), ("gateway", logging.INFO), ("uvicorn", logging.WARNING)):
        logger = logging.getLogger(name)
        logger.handlers = [handler]
        logger.setLevel(level)
        logger.propagate = False


def call_logger(settings: Log) -> Callable[[CallRecord, str], None] | None:
    """An observer that writes a line for the calls that `settings.calls` names, None if it names none."""
    if settings.calls == "off":
        return None
    every = settings.calls == "all"
    strangers = _Strangers()

    def observe(record: CallRecord, detail: str) -> None:
        if strangers.left_out:
            strangers.tell(record)
        failed = record.outcome in _FAILED or record.status >= 400
        if every or (failed and (record.principal is not None or strangers.may_log(record))):
            level = logging.WARNING if failed else logging.INFO
            _log.log(level, "call", extra={"fields": _fields(record, detail)})

    return observe


class _Strangers:
    """Calls without a valid key, of which a few each second get a line: to write all of them costs more than to refuse
    them, and whoever tries keys out would fill the disk.

    `left_out` is how many in the last second got none. Time is that of the records.
    """

    def __init__(self) -> None:
        self._second = self._seen = 0
        self.left_out = 0

    def may_log(self, record: CallRecord) -> bool:
        """Whether this call gets a line; if not, it is counted."""
        second = _ended_at(record)
        if second != self._second:
            self._second, self._seen = second, 0
        self._seen += 1
        if self._seen <= _STRANGERS_A_SECOND:
            return True
        self.left_out += 1
        return False

    def tell(self, now: CallRecord) -> None:
        """How many got no line, once their second is over."""
        if _ended_at(now) != self._second:
            _log.warning(_LEFT_OUT, extra={"fields": {"left_out": self.left_out}})
            self.left_out = 0


def _ended_at(record: CallRecord) -> int:
    return int(record.started_at_s + record.duration_s)


def _fields(record: CallRecord, detail: str) -> dict[str, Any]:
    usage = record.usage
    principal = record.principal
    return {
        "call": record.id,
        "upstream_request": record.upstream_request_id,
        "key": None if principal is None else principal.key,
        "key_id": None if principal is None else principal.key_id,
        "team": None if principal is None else principal.team,
        "method": record.method,
        "route": None if record.route is None else record.route.path,
        "model": record.model,
        "status": record.status,
        "outcome": record.outcome,
        "streamed": record.streamed,
        "duration_s": round(record.duration_s, 4),
        "first_byte_s": None if record.first_byte_s is None else round(record.first_byte_s, 4),
        "sent_bytes": record.sent_bytes,
        "input_tokens": None if usage is None else usage.input_tokens,
        "output_tokens": None if usage is None else usage.output_tokens,
        "error": record.error,
        "upstream_error": record.upstream_error,
        "detail": detail or None,
    }
