"""Creates that are asked for twice make one object: the `Idempotency-Key` of a request, and what came of it.

Knows the table and how long its rows count. Two at once are safe because changes come one after the other.
"""

import json
from hashlib import sha256

import msgspec
from sqlalchemy import delete, insert, select

from gateway.access.change import Change
from gateway.access.validity import is_plain
from gateway.errors import BadRequest, Conflict
from gateway.store.tables import idempotency

KEPT_S = 86_400
_LONGEST = 255


class Repeats:
    """Whether `request`, which came with `key`, has come before, of the same actor. Without a key it never has."""

    def __init__(self, change: Change, key: str | None, kind: str, request: msgspec.Struct) -> None:
        if key is not None and (not 1 <= len(key) <= _LONGEST or not is_plain(key)):
            raise BadRequest(f"Idempotency-Key must be 1 to {_LONGEST} printable characters.")
        self._change = change
        self._key = key
        told = json.dumps([kind, msgspec.to_builtins(request)], sort_keys=True)
        self._sha256 = sha256(told.encode()).digest()

    async def earlier(self) -> str | None:
        """The id of the object that it has made, None if it is new. Raises `Conflict`."""
        if self._key is None:
            return None
        await self._prune()
        mine = (idempotency.c.actor == self._change.actor.name, idempotency.c.idempotency_key == self._key)
        row = (await self._change.connection.execute(select(idempotency).where(*mine))).first()
        if row is None:
            return None
        if row.request_sha256 != self._sha256:
            raise Conflict("This Idempotency-Key has come with another request. Send a new one with each request.")
        return str(row.object_id)

    async def remember(self, object_id: str) -> None:
        """Note what it has made."""
        if self._key is None:
            return
        row = {
            "actor": self._change.actor.name,
            "idempotency_key": self._key,
            "request_sha256": self._sha256,
            "object_id": object_id,
            "at": self._change.now,
        }
        await self._change.connection.execute(insert(idempotency).values(row))

    async def _prune(self) -> None:
        await self._change.connection.execute(delete(idempotency).where(idempotency.c.at <= self._change.now - KEPT_S))
