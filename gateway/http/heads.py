"""What a request's head says, where the parser leaves that open: its target, blanks, an upgrade. Pure."""

import httptools

Field = tuple[bytes, bytes]

_UPGRADE_HEADERS = frozenset((b"upgrade", b"connection", b"http2-settings"))
_MAYBE_BLANK = (b" ", b"\t", b" \r", b"\t\r")


def split_target(target: bytes) -> tuple[bytes, bytes]:
    """Path and query of a request's target, in ASCII. Raises httptools.HttpParserInvalidURLError."""
    if target.startswith(b"/") and b"#" not in target:
        path, _, query = target.partition(b"?")
        return path, query
    parsed = httptools.parse_url(target)
    return parsed.path or b"/", parsed.query or b""


def may_hold_blanks(data: bytes) -> bool:
    """Whether the value of some header in `data` may end in blanks."""
    return data.find(b" \r\n") >= 0 or data.find(b"\t\r\n") >= 0 or data.endswith(_MAYBE_BLANK)


def without_upgrade(fields: list[Field]) -> list[Field]:
    """The same, their names in lower case, as if no upgrade had been asked for."""
    kept = [field for field in fields if field[0] not in _UPGRADE_HEADERS]
    listed = b",".join(value for name, value in fields if name == b"connection").split(b",")
    tokens = [token.strip() for token in listed if token.strip().lower() not in _UPGRADE_HEADERS]
    if tokens:
        kept.append((b"connection", b", ".join(tokens)))
    return kept
