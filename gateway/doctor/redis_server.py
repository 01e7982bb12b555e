"""Whether Redis (or Valkey) can be reached and lets us in.

Sends one PING. No finding holds a password.
"""

import asyncio
from urllib.parse import urlsplit

from redis.exceptions import AuthenticationError, NoPermissionError, RedisError, ResponseError

from gateway.doctor.findings import Finding, Mark
from gateway.store import redis_address


def examine_redis(url: str, timeout_s: float) -> Finding:
    """Whether the server at `url` answers within `timeout_s`."""
    where = _shown(url)
    try:
        asyncio.run(_ping(url, timeout_s))
    except (AuthenticationError, NoPermissionError, ResponseError) as error:
        cure = "check user and password in redis.url, what is special in them percent-encoded"
        return Finding(Mark.BAD, f"Redis at {where} refuses: {_reason(error)}", cure)
    except (RedisError, OSError) as error:
        cure = "check redis.url (rediss:// for TLS), that the server runs, and the firewall"
        return Finding(Mark.BAD, f"Redis at {where} cannot be reached: {_reason(error)}", cure)
    return Finding(Mark.GOOD, f"Redis at {where} can be reached")


async def _ping(url: str, timeout_s: float) -> None:
    client = redis_address.client(url, timeout_s)
    try:
        async with asyncio.timeout(timeout_s):
            await client.ping()
    finally:
        await client.aclose()


def _shown(url: str) -> str:
    parts = urlsplit(url)
    return parts.netloc.rpartition("@")[2] or parts.path


def _reason(error: Exception) -> str:
    return " ".join(str(error).split()) or "no answer in time"
