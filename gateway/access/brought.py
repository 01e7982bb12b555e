"""Secrets that come with an import, as digests: what is written of them, and whose they are already.

Knows no secret and makes none. Only an admin brings any: a team admin could give a key the secret of one that was
revoked after a leak, or that somebody else is to have, and would learn from the refusal which secrets there are.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from sqlalchemy import Row, Select, select
from sqlalchemy.ext.asyncio import AsyncConnection

from gateway.access.drafts import Brought
from gateway.access.records import Key
from gateway.errors import BadRequest, Conflict
from gateway.store.tables import keys, secrets, teams

SECRET, HINT = MEMBERS = ("secret_sha256", "hint")
_SHA256 = re.compile(r"[0-9a-f]{64}")
_HINT = re.compile(r"[!-~]{0,4}")


class _Holder(NamedTuple):
    key_id: str
    name: str
    is_newest: bool
    is_marked: bool


def taken_from(given: dict[str, Any]) -> Brought | None:
    """What a key's entry says of its secret, which is taken out of it. Raises `BadRequest`."""
    sha256, hint = given.pop(SECRET, None), given.pop(HINT, None)
    if sha256 is None and hint is not None:
        raise BadRequest("hint goes with secret_sha256, and there is none. Take it out.", param=HINT)
    if sha256 is None:
        return None
    if not isinstance(sha256, str) or not _SHA256.fullmatch(sha256):
        raise BadRequest("secret_sha256 must be the SHA-256 of a whole key: 64 digits of 0-9 and a-f.", param=SECRET)
    if hint is not None and not (isinstance(hint, str) and _HINT.fullmatch(hint)):
        raise BadRequest("hint must be the last characters of the secret, four at most.", param=HINT)
    return Brought(bytes.fromhex(sha256), hint)


def digests_in(entries: Iterable[object]) -> list[bytes]:
    """Of these entries of keys. What is wrong is refused when its turn comes."""
    found = (entry.get(SECRET) for entry in entries if isinstance(entry, Mapping))
    return [bytes.fromhex(sha256) for sha256 in found if isinstance(sha256, str) and _SHA256.fullmatch(sha256)]


def with_newest(query: Select[Any]) -> Select[Any]:
    """Rows of keys with the digest of their newest secret, for `shown_of`: read at once with the hint of it."""
    newest = secrets.alias("newest")
    is_newest = (newest.c.key_id == keys.c.id) & newest.c.valid_until.is_(None)
    return query.add_columns(newest.c.digest.label(SECRET)).outerjoin(newest, is_newest)


def shown_of(row: Row[Any], key: Key) -> dict[str, str]:
    """What an export says of the secret of `key`, which such a row holds."""
    sha256 = row._mapping[SECRET]  # noqa: SLF001 - public in spite of its name
    return {} if sha256 is None else {SECRET: bytes(sha256).hex(), HINT: key.hint}


class Holders:
    """Whose the secrets of one import are: those that are stored, and those of the import itself."""

    def __init__(self, stored: dict[bytes, _Holder]) -> None:
        self._stored = stored
        self._seen: set[bytes] = set()

    @classmethod
    async def of(cls, connection: AsyncConnection, digests: Sequence[bytes]) -> "Holders":
        """Read whose these are, in one query or none."""
        if not digests:
            return cls({})
        of_secret = secrets.c.digest, secrets.c.valid_until, secrets.c.is_imported
        query = select(*of_secret, keys.c.id, keys.c.name, teams.c.name.label("team"))
        query = query.join_from(secrets, keys, secrets.c.key_id == keys.c.id)
        query = query.join(teams, teams.c.id == keys.c.team_id).where(secrets.c.digest.in_(digests))
        rows = await connection.execute(query)
        return cls({bytes(row.digest): _holder(row) for row in rows})

    def check(self, brought: Brought, key: Key | None) -> None:
        """Raises `Conflict` unless the secret is nobody's, for a key to be made, or is `key`'s own newest already."""
        if brought.digest in self._seen:
            raise BadRequest("Another key of this document has the same secret_sha256.", param=SECRET)
        self._seen.add(brought.digest)
        holder = self._stored.get(brought.digest)
        if holder is not None and (key is None or holder.key_id != key.id):
            raise Conflict(f"The key {holder.name} has this secret already. No two keys can have one.", param=SECRET)
        if key is not None and (holder is None or not holder.is_newest):
            raise Conflict(
                "There is a key of this name already, with another secret, and an import replaces none. Take"
                " secret_sha256 out, give the key another name, or revoke the one that is there.",
                param=SECRET,
            )
        if key is not None and brought.hint not in (None, key.hint):
            raise Conflict("This key is there already, and its hint is another. Take hint out.", param=HINT)

    def is_marked(self, brought: Brought) -> bool:
        """Whether the store knows of a secret that is there that it may have any form, as imported ones may.

        A database that was of an older schema for a while has forgotten it.
        """
        holder = self._stored.get(brought.digest)
        return holder is None or holder.is_marked


def _holder(row: Any) -> _Holder:
    return _Holder(row.id, f"{row.team}/{row.name}", row.valid_until is None, row.is_imported)
