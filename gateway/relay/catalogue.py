"""Add the aliases to upstream's list of models; what upstream listed stays as it was, byte for byte."""

import json
from collections.abc import Mapping
from time import perf_counter
from typing import Any

import msgspec

from gateway.errors import UpstreamProtocolError
from gateway.relay.client import ClientReply
from gateway.relay.failures import as_gateway_error, kind_of
from gateway.relay.live import LiveCall
from gateway.upstream.transport import TransportError, UpstreamReply

MAX_LIST_BYTES = 16 * 1024 * 1024


class _ModelList(msgspec.Struct):
    data: msgspec.Raw


def add_aliases(body: bytes, aliases: Mapping[str, str]) -> bytes:
    """The list `body` with an entry for each alias; a body that is no list of models comes back unchanged.

    An alias is described as its target is, or by its name alone where upstream does not list the target.
    """
    try:
        raw = bytes(msgspec.json.decode(body, type=_ModelList).data)
        models = json.loads(raw)
    except (msgspec.MsgspecError, ValueError, RecursionError):
        return body
    if not isinstance(models, list):
        return body
    known = {model.get("id"): model for model in models if isinstance(model, dict)}
    entries = [_entry(alias, known.get(target)) for alias, target in aliases.items() if alias not in known]
    if not entries:
        return body
    start = body.index(raw)
    end = start + len(raw) - 1
    return body[:end].rstrip() + (b"," if models else b"") + b",".join(entries) + body[end:]


def _entry(alias: str, target: dict[str, Any] | None) -> bytes:
    model = target or {"object": "model", "created": 0, "owned_by": "gateway"}
    return json.dumps({**model, "id": alias}, separators=(",", ":")).encode()


async def relay_models(call: LiveCall, reply: UpstreamReply, client: ClientReply, aliases: Mapping[str, str]) -> None:
    """Read the list whole, add the aliases, send it. Raises `GatewayError`; nothing has been sent then."""
    body = b""
    try:
        while piece := await reply.read():
            call.first_byte_at = call.first_byte_at or perf_counter()
            body += piece
            if len(body) > MAX_LIST_BYTES:
                raise UpstreamProtocolError("The upstream API's list of models is too long to add aliases to.")
    except TransportError as error:
        call.upstream_error = kind_of(error)
        raise as_gateway_error(error) from error
    await client.write(add_aliases(body, aliases), more=False)
    call.end("done")
