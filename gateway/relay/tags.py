"""What a client wants its call to be found under: names and values, from a header or from the body.

Pure. A header is refused if it cannot be read, for whoever sends one counts on it. What a body holds is meant for
upstream too, so that what of it does not fit is left out.
"""

import re
from collections.abc import Mapping
from itertools import islice
from typing import Any

import msgspec

from gateway.errors import BadRequest

HEADER = b"x-gateway-tags"
MAX_TAGS, MAX_LENGTH = 10, 64
LARGEST_BYTES = 64 * 1024
"""What of a body is larger is not read: to build it would hold up other calls."""
NO_TAGS: Mapping[str, str] = {}

_NAME = re.compile(r"[A-Za-z0-9._-]{1,64}")
_VALUE = re.compile(r"[A-Za-z0-9._:/@+-]{1,64}")
_USER = "user"
_NULL = msgspec.Raw(b"null")


class _Body(msgspec.Struct, gc=False):
    metadata: msgspec.Raw = _NULL
    user: msgspec.Raw = _NULL


_BODY = msgspec.json.Decoder(_Body)


def read_tags(header: bytes) -> Mapping[str, str]:
    """The tags of an `x-gateway-tags` header: `name=value`, separated by commas. Raises `BadRequest`."""
    tags: dict[str, str] = {}
    for entry in header.decode("latin-1").split(","):
        name, _, value = (part.strip(" \t") for part in entry.partition("="))
        if not _NAME.fullmatch(name) or not _VALUE.fullmatch(value) or name in tags:
            raise _bad()
        tags[name] = value
    if len(tags) > MAX_TAGS:
        raise _bad()
    return tags


def tags_of_body(body: bytes) -> dict[str, str]:
    """Those of `user` and `metadata` in a JSON body that may be tags, in this order, `MAX_TAGS` at most. Never raises.

    There may be a `user` in `metadata` too, which stands where the body has none that may be a tag.
    """
    try:
        found = _BODY.decode(body)
    except (ValueError, RecursionError):
        return {}
    user, members = _read(found.user), _read(found.metadata)
    members = members if isinstance(members, dict) else {}
    named = {name: value for name, value in members.items() if _is_tag(name, value)}
    tags = joined({_USER: user}, named) if _is_tag(_USER, user) else named
    return dict(islice(tags.items(), MAX_TAGS))


def _read(member: msgspec.Raw) -> Any:
    """Its value; None where that is too large to be read, or cannot be."""
    try:
        return msgspec.json.decode(member) if memoryview(member).nbytes <= LARGEST_BYTES else None
    except (ValueError, RecursionError):
        return None


def joined(first: Mapping[str, str], then: Mapping[str, str]) -> Mapping[str, str]:
    """`first`, and those of `then` that are not among them: behind, where too many are cut off."""
    return {**first, **then, **first} if first and then else first or then


def _is_tag(name: Any, value: Any) -> bool:
    return (
        isinstance(name, str)
        and isinstance(value, str)
        and _NAME.fullmatch(name) is not None
        and 0 < len(value) <= MAX_LENGTH
        and value.isprintable()
    )


def _bad() -> BadRequest:
    return BadRequest(
        f"The header x-gateway-tags must be name=value, separated by commas: at most {MAX_TAGS}, each name once and of"
        f" letters, digits and ._- and each value of these and :/@+, {MAX_LENGTH} characters at most."
    )
