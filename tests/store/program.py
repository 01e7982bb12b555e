"""What a process of its own does to a database: `python -m tests.store.program URL migrate|bump [times]`.

Says that it is ready, and begins when it is told on standard input, so that several begin at once.
"""

import asyncio
import sys
import time

from sqlalchemy import URL

from gateway.store.changes import bump
from gateway.store.engine import Store
from gateway.store.migrate import migrate
from gateway.store.url import parse


async def bump_often(url: URL, times: int) -> None:
    store = Store(url, timeout_s=30)
    for _ in range(times):
        async with store.writing() as connection:
            await bump(connection, team_id=None, key_id=None, at=int(time.time()))
    await store.close()


def main() -> None:
    url, task, *rest = sys.argv[1:]
    print("ready", flush=True)
    sys.stdin.readline()
    asyncio.run(migrate(parse(url)) if task == "migrate" else bump_often(parse(url), int(rest[0])))


if __name__ == "__main__":
    main()
