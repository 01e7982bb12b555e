"""Look through a file of requests, one a line, before upstream makes them for the account.

A batch names objects as any request does, only later and in a file. What cannot be read as upstream will read it is
refused: a line must be one JSON object (https://platform.openai.com/docs/guides/batch), and one line for all readers.
Whatever else some split at stands in JSON within a text alone, where quotes are escaped: no part of it is an object.
"""

from collections.abc import Iterator

from gateway.access.references import MAX_REFERENCES
from gateway.call import Principal
from gateway.errors import BadRequest
from gateway.relay.body import members, peek
from gateway.relay.failures import as_gateway_error, kind_of
from gateway.relay.live import LiveCall
from gateway.relay.objects import StoredObjects
from gateway.upstream.transport import TransportError, UpstreamReply

MAX_LINE_BYTES = 64 * 1024 * 1024
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"
_IDS_A_CHECK = 500


async def check_batch_input(call: LiveCall, reply: UpstreamReply, objects: StoredObjects, principal: Principal) -> None:
    """Raise `NotFound` unless `principal` may see all that the file in `reply` names.

    Raises `BadRequest` where that cannot be told, StoreUnavailable where nobody can tell, and for upstream's failures.
    """
    lines = Lines()
    in_doubt: set[str] = set()
    while True:
        piece = await _read(call, reply)
        for number, line in lines.feed(piece):
            in_doubt.update(_in_doubt(objects, principal, number, line))
        if len(in_doubt) > (_IDS_A_CHECK if piece else 0):
            await objects.check_ids(principal, in_doubt)
            in_doubt.clear()
        if not piece:
            return


class Lines:
    """Feed pieces, b"" at the end; get back the lines that are complete by now and not blank, with their numbers."""

    def __init__(self) -> None:
        self._begun = bytearray()
        self._number = 0

    def feed(self, piece: bytes) -> Iterator[tuple[int, bytes]]:
        """Raises `BadRequest` for a line that is too long."""
        whole = piece.rfind(b"\n") + 1 if piece else 0
        self._begun += piece[:whole]
        if whole or not piece:
            block, self._begun = bytes(self._begun), bytearray()
            for line in block.split(b"\n")[: None if not piece else -1]:
                self._number += 1
                if self._number == 1:
                    line = line.removeprefix(_BYTE_ORDER_MARK)  # noqa: PLW2901 - the same line, as it is read
                if line.strip():
                    yield self._number, line
        self._begun += piece[whole:]
        if len(self._begun) > MAX_LINE_BYTES:
            raise BadRequest(f"A line of the batch's input file is longer than {MAX_LINE_BYTES} bytes.")


def _in_doubt(objects: StoredObjects, principal: Principal, number: int, line: bytes) -> list[str]:
    try:
        _check_whole(line)
        found: list[str] = []
        for member in members(line):
            if member.name.casefold() == "body" and line.startswith(b"{", member.value_start):
                body = line[member.value_start : member.end]
                found += objects.in_doubt(principal, body, peek(body), items=True)
    except BadRequest as error:
        message = f"Line {number} of the batch's input file cannot be checked. {error.message}"
        raise BadRequest(message, param="input_file_id") from error
    if len(found) > MAX_REFERENCES:
        raise BadRequest(f"Line {number} of the batch's input file names too many stored objects.")
    return found


def _check_whole(line: bytes) -> None:
    if b"\r" in line.strip():
        raise BadRequest(_SPLIT)


_SPLIT = "It has a carriage return in its midst, where some begin a new line. Put each request on a line of its own."


async def _read(call: LiveCall, reply: UpstreamReply) -> bytes:
    try:
        return await reply.read()
    except TransportError as error:
        call.upstream_error = kind_of(error)
        raise as_gateway_error(error) from error
