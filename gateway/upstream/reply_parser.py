"""Read HTTP/1.1 replies: bytes go in, a head and pieces of a body come out.

Knows which bytes are a legal reply (RFC 9112; llhttp's strict mode and a few
rules on top) and where a reply ends. Knows nothing of sockets, time or calls,
so a test is a list of byte strings.
"""

from httptools import HttpParserError, HttpParserUpgrade, HttpResponseParser

from gateway.upstream.transport import ConnectionBroken, ProtocolViolation, RawHeaders

_VERSION = b"HTTP/1."
_MAX_INTERIM_REPLIES = 16
_MAX_KNOWN_NAMES = 512


class _Illegal(Exception):
    """Raised inside the parser's callbacks; its text holds nothing that upstream sent."""


class ReplyParser:
    """Call `begin` before each reply, `feed` with what comes, `finish` when the connection has ended.

    `status` is 0 until the head is complete; then `headers` are there too, names in lower case. `pieces` is one
    list for the parser's whole life, and its owner takes the pieces out. `ended`: the reply is complete;
    `reusable`: another reply may follow on this connection.
    `names`: lower-case spellings seen so far, to be shared between the connections to one upstream.
    """

    __slots__ = (
        "_chunked",
        "_fields",
        "_framed",
        "_head_bytes",
        "_head_only",
        "_interim_replies",
        "_max_head_bytes",
        "_names",
        "_parser",
        "_quiet_bytes",
        "_start",
        "ended",
        "headers",
        "on_body",
        "pieces",
        "reusable",
        "status",
    )

    def __init__(self, *, max_head_bytes: int, names: dict[bytes, bytes] | None = None) -> None:
        self._max_head_bytes = max_head_bytes
        self._names = {} if names is None else names
        self.pieces: list[bytes] = []
        self.on_body = self.pieces.append  # straight into the list: no Python frame a piece
        self._parser = HttpResponseParser(self)
        self._head_only = False
        self._fields: RawHeaders = []
        self.headers: RawHeaders = []
        self._start = b""
        self.reusable = False
        self.begin(head_only=False)

    def begin(self, *, head_only: bool) -> None:
        """The next reply is about to come; `head_only`: it answers HEAD and has no body, whatever it says."""
        if self._fields or self._head_only:
            # Trailers came last time, or a body that never was is still expected: nothing of it may be left.
            self._parser = HttpResponseParser(self)
            self._fields = []
        self._head_only = head_only
        self.status = self._head_bytes = self._quiet_bytes = self._interim_replies = 0
        self.ended = self._framed = self._chunked = False

    @property
    def is_untouched(self) -> bool:
        """Not a byte of the reply has come."""
        return self._head_bytes == 0

    def feed(self, data: bytes) -> None:
        """Take in what the socket gave. Raises ProtocolViolation, though not for what follows a complete reply."""
        if not self.status:
            if self._head_bytes or not data.startswith(_VERSION):
                self._check_start(data)
            self._head_bytes += len(data)
        try:
            self._parser.feed_data(data)
        except (HttpParserError, HttpParserUpgrade) as error:
            if not self.ended:
                raise ProtocolViolation(_describe(error)) from None
            self.reusable = False
        if self.ended:
            if self._head_only:
                self._refuse_body()
        elif self.pieces:
            self._quiet_bytes = 0
        else:
            self._count_quiet(len(data))

    def finish(self) -> None:
        """The connection has ended, which completes a body that has no other end (RFC 9112, 6.3, 8.).

        Raises ConnectionBroken for any other reply that was not complete.
        """
        if self.ended:
            return
        if self.is_untouched:
            raise ConnectionBroken("upstream closed the connection without a reply")
        if not self.status or self._framed:
            raise ConnectionBroken("upstream closed the connection before its reply was complete")
        self.ended, self.reusable = True, False

    def on_message_begin(self) -> None:
        if self.ended:
            raise _Illegal("bytes after the end of the reply")

    def on_header(self, name: bytes, value: bytes) -> None:
        self._fields.append((self._names.get(name) or self._learn(name, value), value))

    def on_headers_complete(self) -> None:
        status = self._parser.get_status_code()
        if status < 200:
            self._skip_interim(status)
            return
        if self._head_bytes > self._max_head_bytes:
            self._check_head_size()
        if (self._chunked or self._interim_replies) and self._parser.get_http_version() != "1.1":
            raise _Illegal("chunks or an interim reply in another version than HTTP/1.1")
        self.status = status
        self.headers = self._fields
        self._fields = []  # for trailers, and for the next reply
        if self._head_only:
            self.on_message_complete()

    def on_message_complete(self) -> None:
        if self.status and not self.ended:
            self.ended = True
            self.reusable = self._parser.should_keep_alive()

    def _learn(self, name: bytes, value: bytes) -> bytes:
        """Lower the name's case, once a name; those that frame the body are looked at each time."""
        lower = name.lower()
        if lower in (b"content-length", b"transfer-encoding"):
            if not self.status:  # else it is a trailer
                self._frame(lower, value)
        elif len(self._names) < _MAX_KNOWN_NAMES:
            self._names[name] = lower
        return lower

    def _frame(self, name: bytes, value: bytes) -> None:
        """One of Content-Length and Transfer-Encoding, once: two are how replies are smuggled (RFC 9112, 6.3)."""
        if self._framed:
            raise _Illegal("more than one of Content-Length and Transfer-Encoding")
        self._framed = True
        if name == b"transfer-encoding":
            if value.strip(b" \t").lower() != b"chunked":
                raise _Illegal("a transfer coding other than chunked")
            self._chunked = True

    def _skip_interim(self, status: int) -> None:
        if status < 100:
            raise _Illegal("a status under 100")
        if status == 101:
            raise _Illegal("a switch of protocols that nobody asked for")
        if self._framed:
            raise _Illegal("an interim reply with a body")
        self._interim_replies += 1
        if self._interim_replies > _MAX_INTERIM_REPLIES:
            raise _Illegal(f"more than {_MAX_INTERIM_REPLIES} interim replies")
        self._fields = []

    def _check_start(self, data: bytes) -> None:
        """The parser itself would take RTSP, HTTP/2.0 and empty lines too."""
        if self._head_bytes >= len(_VERSION):
            return
        start = self._start + data if self._head_bytes else data
        self._start = start[: len(_VERSION)]
        if not _VERSION.startswith(self._start):
            raise ProtocolViolation("upstream's reply does not start as one of HTTP/1.1 does")

    def _check_head_size(self) -> None:
        """The bytes fed are over the cap, but a piece of the body may be among them."""
        if sum(len(name) + len(value) + 4 for name, value in self._fields) > self._max_head_bytes:
            raise _Illegal(f"a head of more than {self._max_head_bytes} bytes")

    def _count_quiet(self, size: int) -> None:
        """Bytes that bring the body no further (a head, trailers, chunk extensions) are held up to the cap."""
        self._quiet_bytes += size
        if self._quiet_bytes > self._max_head_bytes:
            part = "trailers" if self.status else "a head"
            raise ProtocolViolation(f"upstream sent {part} of more than {self._max_head_bytes} bytes")

    def _refuse_body(self) -> None:
        if self.pieces:
            self.pieces.clear()
            self.reusable = False


def _describe(error: Exception) -> str:
    reason = error.__context__ if isinstance(error.__context__, _Illegal) else error
    return f"upstream's reply is no legal HTTP/1.1: {reason}"
