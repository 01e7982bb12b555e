r"""The YAML of exports and imports, which may be JSON too.

Reads what YAML 1.2's core schema means (`on` and `2027-01-31` are text) out of the parser's events, since what whoever
imports sends must not grow: no aliases, no tags, no duplicate keys, few levels, so many values and no more. Messages
never quote the text. What begins with a brace and is JSON is read as that, within the same bounds: libyaml takes no
surrogate pairs (`\ud83d\ude80`), which is how most that write JSON write what lies beyond U+FFFF.
"""

import contextlib
import json
import re
from collections.abc import Iterable, Iterator
from typing import Any

import yaml

from gateway.errors import BadRequest

_MAX_DEPTH = 8
_MAX_EVENTS = 50_000
"""A hundred for each team or key of the largest import; whoever sends more makes others wait for the processor."""
_NULLS = frozenset(("", "~", "null", "Null", "NULL"))
_BOOLEANS = {"true": True, "True": True, "TRUE": True, "false": False, "False": False, "FALSE": False}
_INTEGER = re.compile(r"[-+]?[0-9]{1,20}")
_HALF = re.compile("[\ud800-\udfff]")
_TOO_DEEP = "{} is nested too deep. No member has so many levels."

# The C parser is ten times as fast where libyaml is there; both give the same events.
_LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_DUMPER: Any = getattr(yaml, "CSafeDumper", yaml.SafeDumper)


class _Dumper(_DUMPER):  # type: ignore[misc]
    """Quotes what the reader below would not take for text, besides what YAML 1.1 would not."""


def _write_text(dumper: Any, text: str) -> object:
    style = None if _plain(text) == text else "'"
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=style)


_Dumper.add_representer(str, _write_text)


def read_document(data: bytes) -> object:
    """The value of one document in UTF-8, YAML or JSON. Raises `BadRequest`."""
    try:
        text = data.decode("utf-8-sig")
        if text.lstrip().startswith("{") and _is_small(text):
            with contextlib.suppress(json.JSONDecodeError):
                return _read_json(text)
        return _Reader(_bounded(yaml.parse(text, Loader=_LOADER))).read()
    except UnicodeDecodeError:
        raise BadRequest("The document is not UTF-8. Save it as UTF-8.") from None
    except yaml.MarkedYAMLError as error:
        where = "" if error.problem_mark is None else f" at line {error.problem_mark.line + 1}"
        raise BadRequest(f"The document is not YAML{where}. Send it as /admin/v1/export gives it.") from None
    except (yaml.YAMLError, ValueError, OverflowError):
        raise BadRequest("The document is not YAML. Send it as /admin/v1/export gives it.") from None


def write_document(value: object) -> bytes:
    """`value` as YAML."""
    text = yaml.dump(value, Dumper=_Dumper, sort_keys=False, allow_unicode=True, default_flow_style=False, width=120)
    return str(text).encode()


def _is_small(text: str) -> bool:
    """Whether it has few values for sure. All of JSON is read in one go, in which other threads do nothing."""
    return sum(map(text.count, ",[{")) < _MAX_EVENTS // 2


def _read_json(text: str) -> object:
    try:
        value = json.loads(text, object_pairs_hook=_members_once, parse_int=_plain, parse_float=str, parse_constant=str)
    except RecursionError:
        raise BadRequest(_TOO_DEEP.format("The document")) from None
    _check_json(value, 1)
    return value


def _members_once(members: list[tuple[str, object]]) -> dict[str, object]:
    found = dict(members)
    if len(found) < len(members):
        raise BadRequest("The document says a second time what was said before. Keep one of them.")
    return found


def _check_json(value: object, depth: int) -> None:
    if depth > _MAX_DEPTH:
        raise BadRequest(_TOO_DEEP.format("The document"))
    if isinstance(value, str) and _HALF.search(value) is not None:
        raise BadRequest("The document has half of a surrogate pair. Write out the character.")
    if isinstance(value, dict):
        for name, member in value.items():
            _check_json(name, depth)
            _check_json(member, depth + 1)
    if isinstance(value, list):
        for item in value:
            _check_json(item, depth + 1)


def _bounded(events: Iterable[yaml.Event]) -> Iterator[yaml.Event]:
    for number, event in enumerate(events):
        if number == _MAX_EVENTS:
            raise BadRequest("The document has too many values to be read at once. Send it in parts.")
        yield event


class _Reader:
    def __init__(self, events: Iterator[yaml.Event]) -> None:
        self._events = events

    def read(self) -> object:
        value: object = None
        documents = 0
        for event in self._events:
            if isinstance(event, yaml.NodeEvent):
                value = self._value(event, 1)
                documents += 1
        if documents > 1:
            raise BadRequest("There is more than one YAML document. Send one.")
        return value

    def _value(self, event: yaml.Event, depth: int) -> object:
        line = _line_of(event)
        if isinstance(event, yaml.AliasEvent) or getattr(event, "anchor", None) is not None:
            raise BadRequest(f"Line {line} has an anchor or an alias (&name, *name). Write it out.")
        if getattr(event, "tag", None) is not None:
            raise BadRequest(f"Line {line} has a tag. Take the `!tag` out.")
        if depth > _MAX_DEPTH:
            raise BadRequest(_TOO_DEEP.format(f"Line {line}"))
        if isinstance(event, yaml.ScalarEvent):
            return _scalar(event)
        if isinstance(event, yaml.SequenceStartEvent):
            return self._list(depth)
        return self._mapping(depth)

    def _list(self, depth: int) -> list[object]:
        items = []
        while not isinstance(event := next(self._events), yaml.SequenceEndEvent):
            items.append(self._value(event, depth + 1))
        return items

    def _mapping(self, depth: int) -> dict[str, object]:
        members: dict[str, object] = {}
        while not isinstance(event := next(self._events), yaml.MappingEndEvent):
            line = _line_of(event)
            if not isinstance(event, yaml.ScalarEvent):
                raise BadRequest(f"Line {line} has a key that is no text. Write `name: value`.")
            name = str(event.value)
            if name in members:
                raise BadRequest(f"Line {line} says a second time what was said before. Keep one of them.")
            members[name] = self._value(next(self._events), depth + 1)
        return members


def _line_of(event: yaml.Event) -> int:
    return 1 if event.start_mark is None else event.start_mark.line + 1


def _scalar(event: yaml.ScalarEvent) -> object:
    text = str(event.value)
    return _plain(text) if event.implicit[0] else text


def _plain(text: str) -> object:
    """What text without quotation marks means."""
    if text in _NULLS:
        return None
    if text in _BOOLEANS:
        return _BOOLEANS[text]
    return int(text) if _INTEGER.fullmatch(text) else text
