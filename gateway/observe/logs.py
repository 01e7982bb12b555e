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
        return json.dumps(line, ensure_ascii=True, separators=(",", ":"))


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
    """Send the gateway's and uvicorn's logs to standard error in the chosen format."""
    human = settings.format == "human" or (settings.format == "auto" and sys.stderr.isatty())
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(HumanFormatter() if human else JsonFormatter())
    for name, level in (("gateway", logging.INFO), ("uvicorn", logging.WARNING)):
        logger = logging.getLogger(name)
        logger.handlers = [handler]
        logger.setLevel(level)
        logger.propagate = False


def call_logger(settings: Log) -> Callable[[CallRecord, str], None] | None:
    """An observer that writes a line for the calls that `settings.calls` names, None if it names none."""
    if settings.calls == "off":
        return None
    logger = logging.getLogger("gateway.calls")
    every = settings.calls == "all"

    def observe(record: CallRecord, detail: str) -> None:
        failed = record.outcome in _FAILED or record.status >= 400
        if every or failed:
            level = logging.WARNING if failed else logging.INFO
            logger.log(level, "call", extra={"fields": _fields(record, detail)})

    return observe


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
