"""Add the aliases to upstream's list of models, and take out what a key may not use.

What stays of what upstream listed stays as it was, byte for byte.

Knows where the list lies in its body, and of a model its `id`. Refuses to know what else describes a model.
"""

from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from gateway.errors import BadRequest
from gateway.relay.body import Member, members, splice
from gateway.relay.client import ClientReply
from gateway.relay.live import LiveCall
from gateway.relay.mask import SecretMask
from gateway.relay.whole import read_whole
from gateway.upstream.transport import UpstreamReply

MAX_LIST_BYTES = 16 * 1024 * 1024

_LIST = msgspec.json.Decoder(list[Any])
_RAW_LIST = msgspec.json.Decoder(list[msgspec.Raw])


def add_aliases(body: bytes, aliases: Mapping[str, str]) -> bytes:
    """The list `body` with an entry for each alias; a body that is no list of models comes back unchanged.

    An alias is described as its target is, or by its name alone where upstream does not list the target.
    """
    data = _data(body)
    models = None if data is None else _models(body[data.value_start : data.end])
    if data is None or models is None:
        return body
    known = {model["id"]: model for model in models if isinstance(model, dict) and isinstance(model.get("id"), str)}
    entries = [_entry(alias, known.get(target)) for alias, target in aliases.items() if alias not in known]
    if not entries:
        return body
    bracket = data.end - 1
    last = len(body[data.value_start : bracket].rstrip()) + data.value_start
    return splice(body, last, bracket, (b"," if models else b"") + b",".join(entries))


def keep_allowed(body: bytes, allows: Callable[[str], bool]) -> bytes:
    """The list `body` without the models whose name `allows` refuses; unchanged if it is no list of models."""
    data = _data(body)
    models = None if data is None else _models(body[data.value_start : data.end])
    if data is None or models is None:
        return body
    raws = _RAW_LIST.decode(body[data.value_start : data.end])
    kept = [bytes(raw) for raw, model in zip(raws, models, strict=True) if _is_allowed(model, allows)]
    return body if len(kept) == len(raws) else splice(body, data.value_start, data.end, b"[" + b",".join(kept) + b"]")


def _is_allowed(model: object, allows: Callable[[str], bool]) -> bool:
    name = model.get("id") if isinstance(model, dict) else None
    return isinstance(name, str) and allows(name)


def _data(body: bytes) -> Member | None:
    """Where the list lies; of several the last one, as clients read it."""
    try:
        found = [member for member in members(body) if member.name == "data"]
    except BadRequest:
        return None
    return found[-1] if found else None


def _models(text: bytes) -> list[Any] | None:
    try:
        return _LIST.decode(text)
    except (msgspec.MsgspecError, ValueError, RecursionError):
        return None


def _entry(alias: str, target: dict[str, Any] | None) -> bytes:
    model = target or {"object": "model", "created": 0, "owned_by": "gateway"}
    return msgspec.json.encode({**model, "id": alias})


async def relay_models(
    call: LiveCall,
    reply: UpstreamReply,
    client: ClientReply,
    change: Callable[[bytes], bytes],
    mask: SecretMask,
) -> None:
    """Read the list whole, `change` it, send it masked. Raises `GatewayError`; nothing has been sent then."""
    body = change(await read_whole(call, reply, MAX_LIST_BYTES, "list of models"))
    # Masked last: the entry of an alias spells plainly what upstream may have spelled with JSON's escapes.
    await client.write(mask.mask(body), more=False)
    call.end("done")
