"""The numbered list of what changed, by which nodes learn what to read again.

Knows revisions. They have no gaps and become visible in order, because whoever changes something holds the one row of
`revision` until its transaction ends. What a change means to a cache is `gateway.access`'s business.
"""

from collections.abc import Sequence
from typing import NamedTuple

from sqlalchemy import delete, insert, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from gateway.store.tables import changes, revision


class Change(NamedTuple):
    """A key that changed; or, with `key_id` None, a team and so all of its keys; or, with neither, everything."""

    revision: int
    team_id: str | None
    key_id: str | None


async def bump(connection: AsyncConnection, *, team_id: str | None, key_id: str | None, at: int) -> int:
    """Note a change in the transaction that makes it; returns its number. `at` is Unix time.

    Others who change something wait for this transaction to end, so that is best done last.
    """
    return await bump_each(connection, [(team_id, key_id)], at=at)


async def bump_each(connection: AsyncConnection, touched: Sequence[tuple[str | None, str | None]], *, at: int) -> int:
    """As `bump` for all changes of a transaction, one or more, each a `team_id` and a `key_id`: the last number."""
    raised = update(revision).values(value=revision.c.value + len(touched)).returning(revision.c.value)
    last: int = (await connection.execute(raised)).scalar_one()
    rows = [
        {"revision": number, "team_id": team_id, "key_id": key_id, "at": at}
        for number, (team_id, key_id) in enumerate(touched, last - len(touched) + 1)
    ]
    await connection.execute(insert(changes), rows)
    return last


async def current_revision(connection: AsyncConnection) -> int:
    """The number of the newest change, 0 before the first."""
    return int((await connection.execute(select(revision.c.value))).scalar_one())


async def changes_since(connection: AsyncConnection, since: int) -> list[Change]:
    """What came after revision `since`, oldest first.

    A first number other than `since + 1` says that older ones have been pruned.
    """
    query = select(changes.c.revision, changes.c.team_id, changes.c.key_id)
    rows = await connection.execute(query.where(changes.c.revision > since).order_by(changes.c.revision))
    return [Change(*row) for row in rows]


async def prune_changes(connection: AsyncConnection, before_at: int) -> int:
    """Drop what changed before `before_at`, Unix time; returns how many. The count of revisions goes on."""
    return (await connection.execute(delete(changes).where(changes.c.at < before_at))).rowcount
