"""Stored objects in one call: those that it names must be the caller's, those that it makes become so.

Knows where a call names objects (path, body, cursors) and when a reply names new ones. Whose they are is
`gateway.access.ownership`'s to know.
"""

from collections.abc import Iterable, Mapping
from functools import partial
from urllib.parse import unquote_to_bytes

from gateway.access import references
from gateway.access.ownership import Owner, Ownership
from gateway.access.references import Reference
from gateway.call import Makes, Principal, Route
from gateway.relay.body import Peek
from gateway.relay.labels import label_spans
from gateway.relay.new_ids import NewIds

WITH_ITEMS = frozenset({"responses", "conversations"})
"""Groups of routes whose bodies hold `input` or `items`."""
_NOTHING: list[str] = []
_MAKES_NOTHING, _MAKES_CHAT = Makes.NOTHING, Makes.CHAT
"""As every call asks for them: to find a member of an Enum takes longer than to compare it."""


class StoredObjects:
    """Checks what calls name and notes what they make, all of them by `ownership`."""

    def __init__(self, ownership: Ownership) -> None:
        self._ownership = ownership

    async def check_path(self, principal: Principal, route: Route, ids: Mapping[str, bytes]) -> Owner | None:
        """Raise `NotFound` unless `principal` may see what the path names; whose that is.

        `ids` are percent-encoded, as they were sent: what upstream will read is looked up.
        """
        named = [unquote_to_bytes(ids[name]).decode("utf-8", "replace") for name in route.owned]
        await self._ownership.check(principal, named)
        return self._ownership.owner_of(named[0])

    def in_doubt(self, principal: Principal, body: bytes, seen: Peek, *, items: bool) -> list[str]:
        """The ids in a JSON body that are not known at once to be of objects that `principal` may see.

        `items`: the route takes `input` or `items`. Raises `BadRequest` where it is not sure what the ids are.
        """
        found = references.find(body, items=items)
        if not found and seen.previous_response_id is None and seen.conversation is None:
            return _NOTHING
        named = [each for each in (seen.previous_response_id, seen.conversation) if each]
        return named + self._unseen(principal, body, found) if found else named

    def named(self, body: bytes) -> list[str]:
        """All ids that a JSON body names."""
        return [each.id for each in references.find(body)]

    async def check_ids(self, principal: Principal, ids: Iterable[str]) -> None:
        """Raise `NotFound` unless `principal` may see all of these, StoreUnavailable if nobody can tell."""
        await self._ownership.check(principal, list(ids))

    async def seen(self, principal: Principal, ids: Iterable[str]) -> set[str]:
        """Those of `ids` that `principal` may see."""
        return await self._ownership.seen(principal, list(ids))

    def note_below(self, parent: str, ids: Iterable[str]) -> None:
        """These have come out of an object that was just seen: its owner is theirs."""
        owner = self._ownership.owner_of(parent)
        if owner is not None:
            self._ownership.note(owner, ids)

    def expected(self, principal: Principal, route: Route, seen: Peek | None, parent: Owner | None) -> NewIds | None:
        """What is to look at the reply of a call, so that what it makes is known to be `principal`'s.

        None where it names no new object. `parent` owns what the path names, and what comes out of that. Raises
        StoreUnavailable where a call would make something that could not be noted afterwards.
        """
        makes = route.makes
        if makes is _MAKES_NOTHING or (makes is _MAKES_CHAT and (seen is None or not (seen.store or seen.audio))):
            return None
        stored = None if seen is None else seen.store
        if makes is _MAKES_CHAT:
            stored = bool(stored)
        if route.method == "POST" and stored is not False:
            self._ownership.check_room()
        owner = parent or Owner(principal.team_id, principal.key_id)
        return NewIds(makes, partial(self._ownership.note, owner), is_stored=stored is not False)

    def _unseen(self, principal: Principal, body: bytes, found: list[Reference]) -> list[str]:
        """Those that are not known to be visible, without what only looks like an id."""
        unseen = [each for each in found if each.id and not self._ownership.sees(principal, each.id)]
        labels = label_spans(body) if any(each.at >= 0 for each in unseen) else []
        return [each.id for each in unseen if not any(start <= each.at < end for start, end in labels)]
