"""One page of a list, of which the caller sees what is theirs.

Upstream lists what the whole account has, so as many of its pages are read as it takes to fill the one that was asked
for. Elements go out byte for byte as they came, in upstream's order; `first_id`, `last_id` and `has_more` are true of
what goes out. Clients stop at an empty page, so there is none where something follows.

Knows the cursors of the OpenAI API (`limit`, `after`, `before`). What else a query asks for is upstream's business.
"""

from collections.abc import Iterator
from typing import NamedTuple
from urllib.parse import quote, unquote_plus

import msgspec

from gateway.call import Makes, Principal, Route
from gateway.errors import NEVER_RETRY, BadRequest, GatewayError, UpstreamProtocolError
from gateway.relay.body import Member, members
from gateway.relay.new_ids import files_of_batch, id_of
from gateway.relay.objects import StoredObjects

MAX_PAGE_BYTES = 16 * 1024 * 1024
MAX_PAGES = 100
"""Of upstream's, for one of ours: ten thousand objects are looked through."""
PAGE_SIZE = 100
"""The most that every list of the API gives at once."""

_USUAL_LIMIT, _USUAL_LIMIT_OF_FILES = 20, 10_000
_MOST_DIGITS = 5
_CURSORS = ("after", "before", "limit")
_list = msgspec.json.Decoder(list[msgspec.Raw]).decode
_flag = msgspec.json.Decoder(bool | None).decode


class ListIncomplete(GatewayError):
    """Nothing of the caller's was found as far as one call looks, and there is more."""

    status, type, code = 503, "server_error", "list_incomplete"
    headers = NEVER_RETRY


class Query(NamedTuple):
    """What a client asks for; `rest` are the other parameters as they were sent."""

    rest: tuple[bytes, ...]
    limit: str | None
    after: str | None
    before: str | None

    @property
    def cursors(self) -> list[str]:
        """The objects that it names."""
        return [each for each in (self.after, self.before) if each]


def read_query(query: bytes) -> Query:
    """Raises `BadRequest` where a cursor could be read in two ways."""
    found: dict[str, str] = {}
    rest = []
    for part in query.split(b"&") if query else ():
        key, _, value = part.partition(b"=")
        name = _plain(key).partition("[")[0].strip().casefold()
        if name not in _CURSORS:
            rest.append(part)
        elif name != _plain(key) or name in found:
            raise BadRequest(f"Send the query parameter {name} once, spelled exactly so.", param=name)
        else:
            found[name] = _plain(value)
    return Query(tuple(rest), found.get("limit"), found.get("after"), found.get("before"))


def _plain(text: bytes) -> str:
    return unquote_plus(text.decode("latin-1"), errors="replace")


class Listing:
    """Fills the page that `query` asks for. Ask for `query`, `take` what comes until it is complete, then `page`."""

    def __init__(self, objects: StoredObjects, principal: Principal, route: Route, query: Query) -> None:
        self._objects = objects
        self._principal = principal
        self._is_batches = route.makes is Makes.BATCH
        self._asked = query
        self._usual = _USUAL_LIMIT_OF_FILES if route.group == "files" else _USUAL_LIMIT
        self._cursor = query.after
        self._pages = 0
        self._found: list[tuple[str, msgspec.Raw]] = []
        self._envelope = b""
        self._has_more: bool | None = None
        """What is known of upstream's rest; None where upstream does not speak of pages."""

    @property
    def query(self) -> bytes:
        """The query for upstream's next page."""
        limit = str(PAGE_SIZE) if self._wanted is not None else self._asked.limit or ""
        cursors = {"limit": limit, "after": self._cursor, "before": self._asked.before}
        own = [f"{name}={quote(value, safe='')}".encode() for name, value in cursors.items() if value is not None]
        return b"&".join((*self._asked.rest, *own))

    @property
    def _wanted(self) -> int | None:
        """How many objects the page holds; None for a limit that upstream alone can judge."""
        limit = self._asked.limit
        if limit is None:
            return self._usual
        if not limit.isascii() or not limit.isdecimal() or len(limit) > _MOST_DIGITS:
            return None
        return int(limit) if 1 <= int(limit) <= max(PAGE_SIZE, self._usual) else None

    def check_refusal(self, status: int) -> None:
        """Whether upstream's refusal is the answer to what the client has asked. Raises `GatewayError` if not."""
        if status < 300:
            raise _no_list()  # a part of one, or one by another name: it must not pass unread
        if self._pages and 400 <= status < 500 and status != 429:
            # It speaks of a cursor that the client has never seen.
            raise UpstreamProtocolError("The upstream API's list changed while it was read. Please try again.")

    async def take(self, body: bytes) -> bool:
        """Take upstream's page; whether ours is complete. Raises `GatewayError`."""
        envelope = _members(body)
        elements = _elements(body, envelope)
        self._pages += 1
        self._envelope = self._envelope or body
        self._has_more = _has_more(body, envelope)
        await self._keep(elements)
        last = elements[-1][0] if elements else None
        if not self._has_more or last is None or last == self._cursor:
            self._has_more = None if self._has_more is None else False
            return True
        self._cursor = last
        wanted = self._wanted
        if wanted is None or self._asked.before or len(self._found) > wanted:
            return True
        if self._pages >= MAX_PAGES and not self._found:
            raise ListIncomplete(
                f"None of your objects is among the {MAX_PAGES * PAGE_SIZE} that were looked through, and there are"
                " more. Narrow the list by its filters, or begin it at one of yours with the parameter after."
            )
        return self._pages >= MAX_PAGES

    async def _keep(self, elements: list[tuple[str, msgspec.Raw]]) -> None:
        seen = await self._objects.seen(self._principal, [object_id for object_id, _ in elements])
        for object_id, raw in elements:
            if object_id in seen:
                self._found.append((object_id, raw.copy()))  # else it keeps all of its page
                if self._is_batches:
                    self._objects.note_below(object_id, files_of_batch(raw))

    def page(self) -> bytes:
        """The page for the client: upstream's first one, with what has changed put in place."""
        wanted = self._wanted
        found, has_more = self._found, self._has_more
        if has_more is not None and wanted is not None and len(found) > wanted:
            found, has_more = found[:wanted], True
        values = {
            "data": b"[" + b",".join(bytes(raw) for _, raw in found) + b"]",
            "first_id": msgspec.json.encode(found[0][0] if found else None),
            "last_id": msgspec.json.encode(found[-1][0] if found else None),
            "has_more": msgspec.json.encode(bool(has_more)),
        }
        return _with(self._envelope, values)


def _members(body: bytes) -> list[Member]:
    try:
        return list(members(body))
    except BadRequest as error:
        raise _no_list() from error


def _elements(body: bytes, envelope: list[Member]) -> list[tuple[str, msgspec.Raw]]:
    """The elements that have an id, of the last `data`, as clients read it."""
    for member in reversed(envelope):
        if member.name == "data":
            try:
                elements = _list(body[member.value_start : member.end])
            except (ValueError, RecursionError) as error:
                raise _no_list() from error
            return list(_with_ids(elements))
    raise _no_list()


def _with_ids(elements: list[msgspec.Raw]) -> Iterator[tuple[str, msgspec.Raw]]:
    for raw in elements:
        object_id = id_of(raw)
        if object_id is not None:
            yield object_id, raw


def _has_more(body: bytes, envelope: list[Member]) -> bool | None:
    for member in reversed(envelope):
        if member.name == "has_more":
            try:
                return bool(_flag(body[member.value_start : member.end]))
            except (ValueError, RecursionError) as error:
                raise _no_list() from error
    return None


def _with(envelope: bytes, values: dict[str, bytes]) -> bytes:
    """`envelope` with other values for those members that it has, all other bytes as they are."""
    pieces, at = [], 0
    for member in members(envelope):
        if member.name in values:
            pieces += [envelope[at : member.value_start], values[member.name]]
            at = member.end
    return b"".join((*pieces, envelope[at:]))


def _no_list() -> UpstreamProtocolError:
    return UpstreamProtocolError("The upstream API's list cannot be read, so what is yours in it cannot be told.")
