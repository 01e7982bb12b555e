"""The name of the model in a form (RFC 7578), and how many answers it asks for, read as the form passes by.

Knows where the parts of a form begin and what the head of a part says, and holds no more than that at a time: files
pass unread. What it finds is for prices and sums. Nobody is authorised by it, since the bytes are on their way already.
"""

import re

from gateway.relay.body import answers_of

_BOUNDARY = re.compile(rb';[ \t]*boundary="?([^";,\r\n]{1,70})', re.IGNORECASE)
_IS_READ = re.compile(
    rb'^content-disposition:[^\r\n]*;[ \t]*name="?(model|n)"?[ \t]*(?:;|\r|$)', re.IGNORECASE | re.MULTILINE
)
_LONGEST_HEAD = 8 * 1024
_LONGEST_VALUE = 1024
_MOST_PARTS = 1000


class FormModel:
    """Feed it the body of a form with this content type, in pieces of any size; `name` is the model by then.

    None where the form has no such field, or fields that contradict each other, or is no form. `answers` is the most
    that a field `n` asks for.
    """

    __slots__ = ("_at", "_delimiter", "_field", "_found", "_held", "_in_head", "_parts", "answers")

    def __init__(self, content_type: bytes) -> None:
        boundary = _BOUNDARY.search(content_type)
        self._delimiter = b"" if boundary is None else b"\r\n--" + boundary[1].rstrip(b" ")
        self._found: set[bytes] = set()
        self._held = b"\r\n"  # the first delimiter may begin the body, and then no line break comes before it
        self._at = 0
        """Where in `_held` what is not understood yet begins: the head of a part, or what it holds."""
        self._in_head = False
        self._field: bytes | None = None
        """Which field's content comes next, of those that are read."""
        self._parts = 0
        self.answers = 1

    def __repr__(self) -> str:
        return f"FormModel({self.name!r}, {len(self._held)} bytes held)"

    @property
    def name(self) -> str | None:
        """The model, as the form spells it."""
        if len(self._found) != 1:
            return None
        (value,) = self._found
        return value.decode("utf-8", "replace")

    def feed(self, piece: bytes) -> None:
        """The next bytes of the body."""
        if not self._delimiter:
            return
        self._held += piece
        while self._read_head() if self._in_head else self._read_content():
            pass
        self._held = self._held[self._at :]
        self._at = 0

    def _read_content(self) -> bool:
        """Go on to the next part. False: more bytes are needed, or no more are; here and below."""
        end = self._held.find(self._delimiter, self._at)
        size = (end if end >= 0 else len(self._held) - len(self._delimiter)) - self._at
        if self._field and size > _LONGEST_VALUE:
            return self._give_up()
        if end < 0:
            if not self._field:
                self._at = max(len(self._held) - len(self._delimiter) + 1, self._at)
            return False
        self._note(self._held[self._at : end])
        self._at = end + len(self._delimiter)
        self._in_head = True
        self._parts += 1
        return self._parts <= _MOST_PARTS or self._give_up()

    def _read_head(self) -> bool:
        """Read the head of a part, from the byte after the delimiter on; `--` there is the end of the form."""
        if self._held.startswith(b"--", self._at):
            return self._stop()
        end = self._held.find(b"\r\n\r\n", self._at)
        if (len(self._held) if end < 0 else end) - self._at > _LONGEST_HEAD:
            return self._give_up()
        if end < 0:
            return False
        read = _IS_READ.search(self._held, self._at, end)
        self._field = None if read is None else read[1].lower()
        self._at = end + 4
        self._in_head = False
        return True

    def _note(self, content: bytes) -> None:
        if self._field == b"model":
            self._found.add(content)
        elif self._field == b"n":
            self.answers = max(self.answers, answers_of(content))

    def _give_up(self) -> bool:
        """Servers differ on such a form, or there may be a second name in what is not held: nothing is said."""
        self._found.clear()
        return self._stop()

    def _stop(self) -> bool:
        self._delimiter, self._at = b"", len(self._held)
        return False
