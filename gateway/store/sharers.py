"""Which gateways work on one PostgreSQL database: each says so in the name of its connections.

Knows such names, and what the server tells of connections. Behind a pooler nobody is seen for sure, nor is who names
connections in `database.url`. On SQLite nobody has to be: `gateway.store.residents` knows who is on one folder.
"""

import contextlib
import hashlib
import logging
import socket
from pathlib import Path

from sqlalchemy import URL, text

from gateway.store.chores import Chore
from gateway.store.engine import Store
from gateway.store.url import is_sqlite

_log = logging.getLogger("gateway")

_SERVES = "gmi-gateway serve "
_OTHERS = text(
    "SELECT DISTINCT application_name FROM pg_stat_activity WHERE datname = current_database()"
    " AND starts_with(application_name, :prefix) AND application_name <> :mine"
    # Each gateway asks twice a second what has changed; a machine that died leaves connections for hours.
    " AND (state_change IS NULL OR state_change > now() - make_interval(secs => :alive_s)) ORDER BY 1"
)


def name_of(state_dir: str) -> str:
    """`gmi-gateway serve 1f2e3d4c web-1`: a gateway, with all its workers, that runs on this folder of this machine."""
    host, boot = socket.gethostname().encode("ascii", "replace"), b""
    with contextlib.suppress(OSError):  # machines may have the same name
        boot = Path("/proc/sys/kernel/random/boot_id").read_bytes()
    place = hashlib.sha256(b"\n".join((boot, host, bytes(Path(state_dir).resolve()))))
    return f"{_SERVES}{place.hexdigest()[:8]} {host.decode()}"[:63]  # as PostgreSQL cuts it


def named(url: URL, name: str) -> URL:
    """`url` with `name` for connections to PostgreSQL, where it does not say another."""
    return url if is_sqlite(url) else url.update_query_dict({"application_name": name, **url.query})


async def others(store: Store, mine: str, *, alive_s: float = 60.0) -> list[str]:
    """Gateways on the same database but that of the name `mine`: `1f2e3d4c web-1`. Raises `StoreUnavailable`.

    Those that were heard of within `alive_s`.
    """
    if store.dialect == "sqlite":
        return []
    async with store.reading() as connection:
        found = await connection.execute(_OTHERS, {"prefix": _SERVES, "mine": mine, "alive_s": alive_s})
        return [str(name).removeprefix(_SERVES) for name in found.scalars()]


class Sharers(Chore):
    """Logs, from `start` to `close`, when others come to the database of a gateway that counts limits in memory."""

    def __init__(self, store: Store, mine: str) -> None:
        failed = "Whether other gateways use this database cannot be seen."
        super().__init__(self.look, failed=failed, first_after_s=1.0, every_s=60.0)
        self._store = store
        self._mine = mine
        self._seen: set[str] = set()

    async def look(self) -> None:
        """Once, now. Raises `StoreUnavailable`."""
        found = set(await others(self._store, self._mine))
        if found - self._seen:
            what = "Another gateway uses this database (%s): without redis.url each admits all that limits allow. %s"
            _log.warning(what, ", ".join(sorted(found)), "Set redis.url for each, or stop all but one.")
        elif self._seen and not found:
            _log.info("No other gateway uses this database any more.")
        self._seen = found
