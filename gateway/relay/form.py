"""The name of the model in a form (RFC 7578), read as the form passes by.

Knows where the parts of a form begin and what the head of a part says, and holds no more than that at a time: files
pass unread. What it finds is for prices and sums. Nobody is authorised by it, since the bytes are on their way already.
"""

import re

_BOUNDARY = re.compile(rb';[ \t]*boundary="?([^";,\r\n]{1,70})', re.IGNORECASE)
_IS_MODEL = re.compile(
    rb'^content-disposition:[^\r\n]*;[ \t]*name="?model"?[ \t]*(?:;|\r|$)', re.IGNORECASE | re.MULTILINE
)
_LONGEST_HEAD = 8 * 1024
_LONGEST_VALUE = 1024
_BREAK = b"\r\n"


class FormModel:
    """Feed it the body of a form with this content type, in pieces of any size; `name` is the model by then.

    None where the form has no such field, or fields that contradict each other, or is no form.
    """

    __slots__ = ("_delimiter", "_found", "_held", "_is_model", "_look")

    def __init__(self, content_type: bytes) -> None:
        boundary = _BOUNDARY.search(content_type)
        self._delimiter = b"" if boundary is None else b"\r\n--" + boundary[1].rstrip(b" ")
        self._found: set[bytes] = set()
        self._held = _BREAK  # the first delimiter may begin the body, and then no line break comes before it
        self._is_model = False
        self._look = self._look_for_part

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
        if self._delimiter:
            self._held += piece
            while self._look():
                pass

    def _look_for_part(self) -> bool:
        """Skip to the next part. False: more bytes are needed, here and below."""
        at = self._held.find(self._delimiter)
        size = at if at >= 0 else len(self._held) - len(self._delimiter)
        if self._is_model and size > _LONGEST_VALUE:
            self._give_up()
            return False
        if at < 0:
            if not self._is_model:
                self._held = self._held[1 - len(self._delimiter) :]
            return False
        if self._is_model:
            self._found.add(self._held[:at])
        self._held = self._held[at + len(self._delimiter) :]
        self._look = self._look_for_head
        return True

    def _look_for_head(self) -> bool:
        """Read the head of a part, from the byte after the delimiter on; `--` there is the end of the form."""
        if self._held.startswith(b"--"):
            self._stop()
            return False
        end = self._held.find(b"\r\n\r\n")
        if (len(self._held) if end < 0 else end) > _LONGEST_HEAD:
            self._give_up()
            return False
        if end < 0:
            return False
        self._is_model = _IS_MODEL.search(self._held, 0, end) is not None
        self._held = self._held[end + 4 :]
        self._look = self._look_for_part
        return True

    def _give_up(self) -> None:
        """Servers differ on such a form, or there may be a second name in what is not held: nothing is said."""
        self._found.clear()
        self._stop()

    def _stop(self) -> None:
        self._delimiter = self._held = b""
