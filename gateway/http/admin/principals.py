"""Who sent a request to the admin API: the key directory's answer, and what the store says of that key.

Knows how a key becomes an actor. What an actor may do, the rules of administration know.
"""

from fastapi import Request

from gateway.access.administration import Administration
from gateway.access.directory import KeyDirectory
from gateway.access.grants import check_address
from gateway.access.records import Actor
from gateway.http.admin.authentication import Authenticate
from gateway.http.client_address import Networks, address_of


def authenticator(directory: KeyDirectory, administration: Administration, trusted: Networks) -> Authenticate:
    """Looks keys up in `directory`; `trusted` are the proxies whose word on a client's address counts."""

    async def authenticate(request: Request) -> Actor:
        headers = request.scope["headers"]
        principal = await directory.look_up(dict(headers).get(b"authorization"))
        address = address_of(request.scope, headers, trusted)
        check_address(principal.grants, address)
        key, _ = await administration.me(principal.key_id)
        return Actor(key.id, key.role, key.team_id, key, address)

    return authenticate
