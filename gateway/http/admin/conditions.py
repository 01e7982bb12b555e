"""Conditional and repeated requests: ETag, If-Match (RFC 9110, sections 8.8.3 and 13.1.1), Idempotency-Key.

Knows how they are written; versions are compared, and repeats found, where the change is made.
"""

import re
from typing import Annotated

from fastapi import Depends, Header

from gateway.errors import BadRequest, PreconditionFailed

_TAG = re.compile(r'"([1-9][0-9]{0,9})"')
_ANY_TAG = re.compile(r'(?:W/)?"[!#-~]*"')
_KEY = re.compile(r"[!-~]{1,255}")


def etag(version: int) -> str:
    """The entity tag of an object's version."""
    return f'"{version}"'


async def _version(
    if_match: Annotated[
        str | None, Header(description='The ETag that the change is based on, such as `"3"`; `*` or none: any.')
    ] = None,
) -> int | None:
    if if_match is None or if_match.strip() == "*":
        return None
    if (found := _TAG.fullmatch(if_match.strip())) is not None:
        return int(found[1])
    if _ANY_TAG.fullmatch(if_match.strip()):
        raise PreconditionFailed("The object has another version than If-Match says. Read it again, then change it.")
    raise BadRequest('If-Match: must be one ETag as it was sent, with its quotes: "3".', param="if-match")


async def _idempotency_key(
    idempotency_key: Annotated[
        str | None, Header(description="A name of your own for this request: sent again, it makes nothing new.")
    ] = None,
) -> str | None:
    if idempotency_key is not None and not _KEY.fullmatch(idempotency_key):
        raise BadRequest("Idempotency-Key: must be 1 to 255 visible ASCII characters.", param="idempotency-key")
    return idempotency_key


Version = Annotated[int | None, Depends(_version)]
"""The version that the client has read; None where any will do."""

IdempotencyKey = Annotated[str | None, Depends(_idempotency_key)]
