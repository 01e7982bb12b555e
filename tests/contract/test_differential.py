"""Two parsers that nobody here wrote, llhttp and h11, must see the same in every reply, or we know why not."""

import asyncio
from dataclasses import dataclass

import pytest

from gateway.upstream.transport import Timeouts, TransportError
from tests.contract.corpus import CORPUS, FIN
from tests.contract.transports import KINDS, Outcome, call, get, load, make
from tests.support.wire import Fin, Step, WireUpstream, reply


async def outcome(kind: str, raw: bytes) -> Outcome | str:
    """Status, headers and body, or the class of the error; the call after it must be clean in any case."""
    steps: list[Step] = [raw.removesuffix(FIN), Fin()] if raw.endswith(FIN) else [raw]
    async with WireUpstream(steps, reply(body=b"clean")) as upstream:
        transport = make(kind, upstream.url, timeouts=Timeouts(5, 0.5, 0.5, 5))
        try:
            return await call(transport, get())
        except TransportError as error:
            return type(error).__name__
        finally:
            assert load(transport)[0] == 0
            assert (await call(transport, get()))[2] == b"clean"
            await transport.close()


@dataclass(frozen=True)
class Difference:
    """What each makes of a reply, and why that may stay."""

    native: Outcome | str
    httpx2: Outcome | str
    why: str


REFUSED = "ProtocolViolation"
LATE = "TransportTimeout"


def seen(*headers: tuple[bytes, bytes], body: bytes = b"ok") -> Outcome:
    return 200, list(headers), body


TWO = (b"content-length", b"2")
CHUNKED = (b"transfer-encoding", b"chunked")

KNOWN = {
    "reason with NUL": Difference(seen(TWO), REFUSED, "llhttp skips the reason; it is handed to nobody"),
    "blanks around the value": Difference(
        seen((b"x", b"y \t "), TWO), seen((b"x", b"y"), TWO), "llhttp leaves blanks at a value's end; they mean nothing"
    ),
    "length with blanks": Difference(seen((b"content-length", b"2  ")), seen(TWO), "as blanks around a value"),
    "chunked in blanks": Difference(
        seen((b"transfer-encoding", b"chunked ")), seen(CHUNKED), "as blanks around a value"
    ),
    "Chunked in capitals": Difference(
        seen((b"transfer-encoding", b"CHUNKED")), seen(CHUNKED), "h11 writes it in its own way; it is hop-by-hop"
    ),
    "folded value": Difference(
        REFUSED, seen((b"x", b"a b"), TWO), "a client may refuse a fold or put a blank in its place (RFC 9112, 5.2)"
    ),
    "line feeds alone": Difference(REFUSED, seen(TWO), "a recipient may take LF for CRLF (RFC 9112, 2.2)"),
    "line feed alone once": Difference(REFUSED, seen((b"x", b"y"), TWO), "as line feeds alone"),
    "same length twice": Difference(REFUSED, seen(TWO), "one valid length may be taken for both (RFC 9112, 6.3)"),
    "same length twice in a list": Difference(REFUSED, seen(TWO), "as the same length twice"),
    "chunk extension without a name": Difference(REFUSED, seen(CHUNKED), "h11 reads no extensions"),
    "chunk size and a blank": Difference(REFUSED, seen(CHUNKED), "some servers pad the size, and h11 lets them"),
    "chunk size over 64 bits": Difference(REFUSED, LATE, "h11 takes 20 digits and waits for so many bytes"),
    "last chunk and line feeds": Difference(REFUSED, LATE, "h11 waits for the CRLF"),
    "trailer that frames": Difference(REFUSED, seen(CHUNKED), "trailers are dropped, whatever they say"),
    "100 in version 1.0": Difference(REFUSED, seen(TWO), "HTTP/1.0 has no interim replies; h11 skips it all the same"),
}


@pytest.mark.parametrize("name", CORPUS)
async def test_both_transports_see_the_same_reply_or_it_is_known_why_not(name: str) -> None:
    native, httpx2 = await asyncio.gather(*(outcome(kind, CORPUS[name]) for kind in KINDS))
    if (known := KNOWN.get(name)) is None:
        assert native == httpx2
    else:
        assert (native, httpx2) == (known.native, known.httpx2), known.why


def test_every_known_difference_is_of_the_corpus_and_is_one() -> None:
    assert set(KNOWN) <= set(CORPUS)
    assert all(known.native != known.httpx2 and known.why for known in KNOWN.values())
