"""The language of the `x-simulate` request header: faults on demand.

Directives are separated by `;` or `,`, for example
`x-simulate: chunks=500; chunk-delay=0.02; cut=4096`. Each may stand once, only `odd` may be repeated.
Sizes are bytes of the reply's body before HTTP's own framing; times are seconds.

Timing
  delay=0.5            wait before the reply begins
  chunk-delay=0.02     wait between two writes of the body
  stall=headers        never begin the reply
  stall=first-byte     send the head, then nothing
  stall=N              stop after N bytes; the connection stays open
Shape
  chunks=500           a text of exactly this many pieces, whatever the limit on tokens says
  chunk-bytes=64       size of these pieces (default 8)
  drip=N               write in pieces of N bytes
  created=now|N        time stamps: the clock, or this Unix time (default: fixed)
  fresh                new ids, although the same request was seen before
  odd=crlf             events end with CR LF
  odd=comments         a comment before every event
  odd=unknown-events   an event of a type that nobody knows
  odd=no-done          the stream ends well, but without [DONE] or its terminal event
  odd=big-event        one event of 1 MiB
  odd=split-utf8       the text holds multi-byte characters, and writes end within them
  odd=gzip             the body is compressed although nobody asked
Ends
  cut=N                close the connection (FIN) after N bytes
  reset=N              reset the connection (RST) after N bytes
  fail=N               after N events, end the stream with an in-band error
  status=429           answer with this status (400 to 599) and the error that goes with it
  retry-after=7        with this header
  retry-after-ms=250   and this one
  echo-key             put the Authorization that came in, as it is and as base64, into an error and its headers

This module parses; it neither waits nor writes.
"""

import dataclasses
import re
from collections.abc import Callable
from typing import Any, TypeVar

FIRST_BYTE = 0
ODDITIES = frozenset({"crlf", "comments", "unknown-events", "no-done", "big-event", "split-utf8", "gzip"})


class UnknownFault(ValueError):
    """A directive that is not in the language, or whose value is not."""


@dataclasses.dataclass(frozen=True, slots=True)
class Faults:
    """What one request asked to go wrong; by default nothing."""

    delay_s: float = 0.0
    chunk_delay_s: float = 0.0
    stall_headers: bool = False
    stall_bytes: int | None = None
    chunks: int | None = None
    chunk_bytes: int = 8
    drip_bytes: int | None = None
    created: int | None = None
    created_now: bool = False
    fresh: bool = False
    odd: frozenset[str] = frozenset()
    cut_bytes: int | None = None
    reset_bytes: int | None = None
    fail_events: int | None = None
    status: int | None = None
    retry_after_s: int | None = None
    retry_after_ms: int | None = None
    echo_key: bool = False


def parse(text: str) -> Faults:
    """Read a header's value; raises UnknownFault with a list of what there is."""
    faults = Faults()
    seen: set[str] = set()
    for directive in filter(None, map(str.strip, re.split("[;,]", text))):
        name, _, value = directive.partition("=")
        if name in seen and name != "odd":
            raise UnknownFault(f"'{name}' stands twice")
        seen.add(name)
        faults = _apply(faults, name.strip(), value.strip())
    return faults


def _apply(faults: Faults, name: str, value: str) -> Faults:
    setting = _LANGUAGE.get(name)
    if setting is None:
        raise UnknownFault(f"There is no fault '{name}'. There are: {', '.join(sorted(_LANGUAGE))}.")
    try:
        return dataclasses.replace(faults, **setting(faults, value))
    except ValueError as error:
        raise UnknownFault(f"'{name}={value}': {error}") from error


_Setting = Callable[[Faults, str], dict[str, Any]]


def _seconds(field: str) -> _Setting:
    def read(_: Faults, value: str) -> dict[str, Any]:
        return {field: _within(float(value), 0, 3600)}

    return read


def _count(field: str, low: int, high: int) -> _Setting:
    def read(_: Faults, value: str) -> dict[str, Any]:
        return {field: _within(int(value), low, high)}

    return read


def _flag(field: str) -> _Setting:
    def read(_: Faults, value: str) -> dict[str, Any]:
        if value:
            raise ValueError("takes no value")
        return {field: True}

    return read


_Number = TypeVar("_Number", int, float)


def _within(number: _Number, low: int, high: int) -> _Number:
    if not low <= number <= high:
        raise ValueError(f"write a number from {low} to {high}")
    return number


def _stall(_: Faults, value: str) -> dict[str, Any]:
    if value == "headers":
        return {"stall_headers": True}
    return {"stall_bytes": FIRST_BYTE if value == "first-byte" else _within(int(value), 0, 1 << 40)}


def _created(_: Faults, value: str) -> dict[str, Any]:
    return {"created_now": True} if value == "now" else {"created": _within(int(value), 0, 1 << 40)}


def _odd(faults: Faults, value: str) -> dict[str, Any]:
    wanted = set(value.split("|"))
    if not wanted <= ODDITIES:
        raise ValueError(f"write one or more of {'|'.join(sorted(ODDITIES))}")
    return {"odd": faults.odd | wanted}


_LANGUAGE: dict[str, _Setting] = {
    "delay": _seconds("delay_s"),
    "chunk-delay": _seconds("chunk_delay_s"),
    "stall": _stall,
    "chunks": _count("chunks", 1, 10_000_000),
    "chunk-bytes": _count("chunk_bytes", 2, 1 << 20),
    "drip": _count("drip_bytes", 1, 1 << 20),
    "created": _created,
    "fresh": _flag("fresh"),
    "odd": _odd,
    "cut": _count("cut_bytes", 0, 1 << 40),
    "reset": _count("reset_bytes", 0, 1 << 40),
    "fail": _count("fail_events", 0, 1 << 40),
    "status": _count("status", 400, 599),
    "retry-after": _count("retry_after_s", 0, 1 << 31),
    "retry-after-ms": _count("retry_after_ms", 0, 1 << 31),
    "echo-key": _flag("echo_key"),
}
