"""Who sent a request to the admin API: whom the key directory knows, and the store confirms.

Knows how a key becomes an actor. What an actor may do, the rules of administration know.
"""

import time
from collections.abc import Callable

import msgspec
from fastapi import Request

from gateway.access.administration import Administration
from gateway.access.directory import KeyDirectory, digest_of
from gateway.access.grants import check_address
from gateway.access.records import Actor
from gateway.http.admin.authentication import Authenticate
from gateway.http.client_address import Networks, address_of


def authenticator(
    directory: KeyDirectory,
    administration: Administration,
    trusted: Networks,
    note_use: Callable[[str, int], None],
) -> Authenticate:
    """Looks keys up in `directory`; `trusted` are the proxies whose word on a client's address counts.

    `note_use` is told of each key that was let in, and when, in Unix time. It raises `Forbidden` too.
    """

    async def authenticate(request: Request) -> Actor:
        headers = request.scope["headers"]
        authorization = dict(headers).get(b"authorization")
        principal = await directory.look_up(authorization)
        address = address_of(request.scope, headers, trusted)
        check_address(principal.grants, address)
        actor = Actor(principal.key_id, principal.role, principal.key_id, digest_of(authorization), address)
        # What is in memory may be older than the last rotation.
        role = await administration.check_lives(actor)
        note_use(principal.key_id, int(time.time()))
        return msgspec.structs.replace(actor, role=role)

    return authenticate
