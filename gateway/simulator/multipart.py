"""Multipart bodies (RFC 7578), read whole.

Knows boundaries and the `name` and `filename` of a part; refuses to know what
the parts mean.
"""

import re
from dataclasses import dataclass

from gateway.simulator.call import Request
from gateway.simulator.refusals import invalid, missing


@dataclass(frozen=True, slots=True)
class Part:
    """One field of a form; `filename` is "" where it is no file."""

    content: bytes
    filename: str


def read_form(request: Request) -> dict[str, Part]:
    """Fields by name, the last of a name winning; raises Refusal."""
    found = re.search(r'boundary="?([^";,]+)"?', request.header(b"content-type"))
    if found is None:
        raise invalid(None, "Expected a multipart/form-data body with a boundary.", "invalid_content_type")
    delimiter = b"\r\n--" + found[1].encode("latin-1")
    sections = (b"\r\n" + request.body).split(delimiter)
    if len(sections) < 3 or not sections[-1].startswith(b"--"):
        raise invalid(None, "The multipart body is not complete.", "invalid_multipart")
    return dict(_part(section) for section in sections[1:-1])


def _part(section: bytes) -> tuple[str, Part]:
    head, _, content = section.partition(b"\r\n\r\n")
    text = head.decode("utf-8", "replace")
    name = re.search(r'[; ]name="([^"]*)"', text)
    filename = re.search(r'filename="([^"]*)"', text)
    return (name[1] if name else ""), Part(content, filename[1] if filename else "")


def text_field(form: dict[str, Part], name: str, default: str = "") -> str:
    return form[name].content.decode("utf-8", "replace") if name in form else default


def file_field(form: dict[str, Part], *names: str) -> Part:
    """The first of `names` that is there; raises Refusal."""
    for name in names:
        if name in form:
            return form[name]
    raise missing(names[0])
