"""Who sent a request to the admin API: the key directory's answer, and what the store says of that key.

Knows how a key becomes an actor. What an actor may do, the rules of administration know.
"""

import time
from collections.abc import Callable

from fastapi import Request

from gateway.access.administration import Administration
from gateway.access.directory import KeyDirectory
from gateway.access.grants import check_address
from gateway.access.records import Actor
from gateway.call import Principal
from gateway.errors import Forbidden
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
        principal = await directory.look_up(dict(headers).get(b"authorization"))
        address = address_of(request.scope, headers, trusted)
        check_address(principal.grants, address)
        _refuse_in_grace(principal)
        key, _ = await administration.me(principal.key_id)
        note_use(key.id, int(time.time()))
        return Actor(key.id, key.role, key.team_id, key, address)

    return authenticate


def _refuse_in_grace(principal: Principal) -> None:
    """Or whoever still has an old secret could rotate the key, and so take it from whoever has the new one."""
    if principal.is_in_grace:
        raise Forbidden(
            "This secret was replaced, and works for calls alone until it ends. Send the newest secret of this key."
        )
