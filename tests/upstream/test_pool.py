"""The pool's decisions, without a socket: a connection is whatever can be dropped."""

import pytest

from gateway.upstream.pool import Pool
from gateway.upstream.transport import PoolExhausted


class Spare:
    """A connection as the pool sees it."""

    def __init__(self) -> None:
        self.is_open = True

    def is_usable(self) -> bool:
        return self.is_open

    def drop(self) -> None:
        self.is_open = False


def pool_of(count: int, max_connections: int) -> tuple[Pool[Spare], list[Spare]]:
    """A pool with so many idle connections, the first one idle for longest."""
    pool: Pool[Spare] = Pool("upstream.test", max_connections=max_connections, idle_close_s=60)
    connections = [Spare() for _ in range(count)]
    for connection in connections:
        pool.reserve()
        pool.add(connection)
    for at_s, connection in enumerate(connections):
        pool.give_back(connection, at_s)
    return pool, connections


async def test_a_reserved_slot_takes_the_place_of_the_longest_idle_connection_at_the_cap() -> None:
    pool, (oldest, newest) = pool_of(2, max_connections=2)
    pool.reserve()
    assert (oldest.is_open, newest.is_open) == (False, True)
    assert (pool.in_use, pool.idle) == (1, 1)


async def test_a_reserved_slot_under_the_cap_drops_nothing() -> None:
    pool, connections = pool_of(2, max_connections=3)
    pool.reserve()
    assert all(connection.is_open for connection in connections)


async def test_a_connection_that_has_closed_is_passed_over() -> None:
    pool, (oldest, newest) = pool_of(2, max_connections=2)
    newest.drop()
    assert pool.take() is oldest
    assert pool.take() is None
    assert (pool.in_use, pool.idle) == (2, 0)


async def test_a_full_pool_refuses_and_stays_as_it_is() -> None:
    pool, _ = pool_of(1, max_connections=1)
    pool.take()
    for refused in (pool.take, pool.reserve):
        with pytest.raises(PoolExhausted, match="all 1 connections to upstream"):
            refused()
    assert repr(pool) == "<Pool upstream.test: 1 in use, 0 idle, 1 open, at most 1>"


async def test_what_is_given_back_to_a_closed_pool_is_dropped() -> None:
    pool, (connection,) = pool_of(1, max_connections=1)
    assert pool.take() is connection
    pool.lost(connection)
    await pool.close()
    pool.give_back(connection, 1)
    assert (pool.in_use, pool.idle, connection.is_open) == (0, 0, False)
