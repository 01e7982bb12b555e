"""See that a reply's head is none while it still comes.

h11 looks at a head once all of it is there, and at no interim reply at all: an upstream that speaks another protocol
would be waited for until the time-out, and one that never comes to its final reply too. Knows lines, not what they
say; what is refused here h11 would refuse later, but for the number of interim replies. Pure: bytes go in.
"""

import re

from gateway.upstream.transport import ProtocolViolation

MAX_INTERIM_REPLIES = 16
"""As many as `native` takes."""

_LOOKED_AT_BYTES = 256
"""So much of an unfinished line is looked at, each time that more of it comes."""

_STATUS_LINE = re.compile(rb"HTTP/1\.[01] ([1-9][0-9]{2})(?: [^\x00\n\r\f\v]*)?")
_SAMPLE = b"HTTP/1.1 200"
_STATUS_AT = 9
_TOKEN = rb"[-!#$%&'*+.^_`|~0-9A-Za-z]"
_FIELD_LINE = re.compile(_TOKEN + rb"+:|[ \t]")  # a blank begins a folded value, which h11 takes
_UNFINISHED_FIELD_LINE = re.compile(_TOKEN + rb"+(?::.*)?|[ \t].*|", re.DOTALL)


class HeadCheck:
    """Feed what is read, in any pieces; what follows the final head is not looked at."""

    def __init__(self) -> None:
        self.begun = False
        """A byte has come."""
        self._line = bytearray()
        self._status = 0
        self._interim_replies = 0
        self._ended = False

    @property
    def final_begun(self) -> bool:
        """What comes is no interim reply, as far as its status shows that by now."""
        if self._status:
            return self._ended or self._status >= 200
        return len(self._line) > _STATUS_AT and not self._line.startswith(b"1", _STATUS_AT)

    def feed(self, data: bytes) -> None:
        """ProtocolViolation as soon as no head of HTTP/1.0 or 1.1 can come of it."""
        self.begun = True
        if not self._ended:
            self._look_at(data)

    def _look_at(self, data: bytes) -> None:
        first, *others = data.split(b"\n")
        self._line += first
        for other in others:
            self._take(bytes(self._line.removesuffix(b"\r")))
            if self._ended:
                self._line.clear()
                return
            self._line = bytearray(other)
        self._check_unfinished(bytes(self._line[:_LOOKED_AT_BYTES].removesuffix(b"\r")))

    def _take(self, line: bytes) -> None:
        if not self._status:
            self._status = _status(line)
        elif not line:
            self._end()
        elif not _FIELD_LINE.match(line):
            raise ProtocolViolation("a line of the reply's head is no header")

    def _end(self) -> None:
        if self._status >= 200 or self._status == 101:
            self._ended = True
            return
        self._status = 0
        self._interim_replies += 1
        if self._interim_replies > MAX_INTERIM_REPLIES:
            raise ProtocolViolation(f"more than {MAX_INTERIM_REPLIES} interim replies")

    def _check_unfinished(self, line: bytes) -> None:
        if not self._status:
            _status(line + _SAMPLE[len(line) :])  # its first bytes have fixed places
        elif not _UNFINISHED_FIELD_LINE.fullmatch(line):
            raise ProtocolViolation("a line of the reply's head cannot become a header")


def _status(line: bytes) -> int:
    found = _STATUS_LINE.fullmatch(line)
    if found is None:
        raise ProtocolViolation("the reply does not begin with a status line of HTTP/1.0 or 1.1")
    return int(found[1])
