"""Take out of a chat stream what asking for usage has added to it.

Knows the two things that `stream_options.include_usage` adds (OpenAI API reference, chat
completion chunks): a `"usage":null` member in every chunk, and one last chunk with
`choices: []` and the usage. Refuses to know anything else of a chunk: all other bytes
stay as they are, and so does every event that cannot be read in one way only.

Left as they are: `"usage":null` in an event whose JSON is spread over several `data` fields,
a `usage` key spelled with escapes, and usage in a chunk that has choices.
"""

import re
from collections.abc import Sequence

from gateway.errors import BadRequest
from gateway.relay.body import Member, members, splice
from gateway.relay.events import data_spans, split_events

# The member, and after it up to the end of the event scalar members only and one brace. At the end of the last data
# field that brace closes the whole JSON, so the member stands at its top level. A quote after a comma opens a key.
_NULL_NEAR_THE_END = re.compile(
    rb',\x20?+"usage"\x20?+:\x20?+null(?='
    rb'(?:,\x20?+"[^"\\]*+"\x20?+:\x20?+(?:"[^"\\]*+"|[-+.eE0-9]++|true|false|null))*+'
    rb"\}(?:\n\n|\r\n\r\n)\Z)"
)
_NO_CHOICES = re.compile(rb"\[[ \t\r\n]*+\]")
_USAGE = b'"usage"'
_DATA_OBJECT = (b"data: {", b"data:{")


class UsageRemover:
    """Feed blocks of whole events; get them back without the usage that the client did not ask for."""

    __slots__ = ()

    def feed(self, block: bytes) -> bytes:
        """`block` without `"usage":null` members and usage-only chunks; `block` itself if it has none."""
        at = block.rfind(_USAGE)
        if at < 0:
            return block
        if block.find(b"\n") == len(block) - 2 and block.find(b"\r") < 0:
            return _cleared(block, at, 0)
        return b"".join([_cleared(event, event.rfind(_USAGE)) for event in split_events(block)])


def _cleared(event: bytes, at: int, line: int | None = None) -> bytes:
    """`event` without its usage; the last "usage" in it is found `at`, its last line that is not empty at `line`."""
    if at < 0:
        return event
    start = _last_line(event) if line is None else line
    if event.startswith(_DATA_OBJECT, start) and event.find(_USAGE, start) == at:
        # The usual case in a tenth of the time.
        member = _NULL_NEAR_THE_END.match(event, event.rfind(b",", 0, at))
        if member:
            return event[: member.start()] + event[member.end() :]
    return _without_usage(event)


def _last_line(event: bytes) -> int:
    end = len(event) - (4 if event.endswith(b"\r\n\r\n") else 2)
    return max(event.rfind(b"\n", 0, end), event.rfind(b"\r", 0, end)) + 1


def _without_usage(event: bytes) -> bytes:
    """Every case, by reading the event's JSON."""
    spans = data_spans(event)
    data = b"\n".join([event[start:end] for start, end in spans])
    try:
        ordered = list(members(data))
    except BadRequest:
        return event
    found = {member.name: member for member in ordered}
    usage = found.get("usage")
    if usage is None or len(found) < len(ordered):
        return event
    if data.startswith(b"{", usage.value_start):
        return b"" if _has_no_choices(data, found.get("choices")) else event
    if data[usage.value_start : usage.end] != b"null" or len(spans) > 1:
        return event
    start, end = _with_its_comma(data, ordered, ordered.index(usage))
    return splice(event, spans[0][0] + start, spans[0][0] + end, b"")


def _has_no_choices(data: bytes, choices: Member | None) -> bool:
    return choices is not None and bool(_NO_CHOICES.fullmatch(data, choices.value_start, choices.end))


def _with_its_comma(data: bytes, ordered: Sequence[Member], at: int) -> tuple[int, int]:
    """From where to where a member goes if it is to leave a well-formed object behind."""
    member = ordered[at]
    if at > 0:
        return data.index(b",", ordered[at - 1].end), member.end
    return member.start, ordered[1].start if len(ordered) > 1 else member.end
