"""The model that a form names (RFC 7578), where policy depends on it: of forms that every server reads alike.

Pure: takes a whole form as OpenAI's SDKs (for .NET too), browsers and curl write it, down to the byte, and refuses
every other. Parsers differ on nearly all that RFC 7578 and its ancestors leave open, and whoever writes the form would
choose what this one sees. Refuses to know what the fields mean, but for `model` and `n`.
"""

import re
from collections.abc import Iterator
from typing import NamedTuple

from gateway.errors import BadRequest
from gateway.metering.estimate import ATTACHMENT_BYTES
from gateway.relay.body import answers_of

_MOST_PARTS = 1000
_LONGEST_HEAD = 8 * 1024
_LONGEST_HEADS = 128 * 1024
"""Of all fields together. Every byte of them is looked at several times, and meanwhile no other call is served."""
_LONGEST_MODEL = 256
"""Characters."""

_CONTENT_TYPE = re.compile(rb'multipart/form-data; ?boundary=(?:([0-9A-Za-z+_.-]{1,70})|"([0-9A-Za-z+_.=-]{1,70})")')
"""No other parameter: a `charset` would be that of the names. Of what RFC 2046 allows, the plain; `=` within quotes."""
_FIELD = re.compile(rb"([A-Za-z-]+): ?([^\x00-\x20\x7f](?:[^\x00-\x1f\x7f]*[^\x00-\x20\x7f])?)")
_FIELDS = frozenset((b"content-disposition", b"content-type", b"content-length", b"content-transfer-encoding"))
_DISPOSITION = re.compile(
    rb'form-data; name=(?:"([0-9A-Za-z_.\[\]-]{1,100})"|([0-9A-Za-z_.-]{1,100}))'
    rb'(?:; filename=(?:"([^"\\]*)"|([0-9A-Za-z+_.-]+)))?'
    rb"(; filename\*=[Uu][Tt][Ff]-8'[A-Za-z-]*'[0-9A-Za-z!#$&+.^_`|~%-]+)?"
)
_ENDS = (b"--", b"--\r\n", b"--\r\n\r\n")
"""The last as OpenAI's SDK for Node wrote it before its version 5. An empty line has nothing in it to differ on."""
_LURE = re.compile(rb"\bname[\W\d]*=|=[^\w=]*model\b|^[ \t]*model[ \t]*$", re.IGNORECASE)
"""In the name of a file: a parameter `name` to whoever does not heed quotes, also `name*0` or one with wide spaces; the
model to whoever takes what follows the last `name=`, even that of `filename=`."""
_SEPARATOR = re.compile(rb"[\[\].]+")
_NESTED = (b"multipart/", b"message/")
_IDENTITY = (b"binary", b"8bit", b"7bit")
_TEXT = re.compile(rb'text/plain(?:; ?charset=("?)(utf-8|us-ascii|iso-8859-1)\1)?', re.IGNORECASE)


class Form(NamedTuple):
    """What policy needs of a form. `text`: its fields, and of each file as many bytes as it counts for at most.

    `answers`: so many it asks for with `n`, the most where it says more than one number.
    """

    model: str
    text: bytes
    answers: int


class _Part(NamedTuple):
    """One field: where its content lies, and the fields of its head but for Content-Disposition."""

    name: bytes
    is_file: bool
    head: dict[bytes, bytes]
    start: int
    end: int


def read_form(content_type: bytes, body: bytes) -> Form:
    """The model of a form with this Content-Type. Raises `BadRequest` for one that servers may read in two ways."""
    model, text, answers = None, [], 1
    for part in _parts(body, b"--" + _boundary(content_type)):
        content = body[part.start : min(part.end, part.start + ATTACHMENT_BYTES) if part.is_file else part.end]
        text.append(content)
        if part.name == b"model":
            if model is not None:
                raise _odd("it has more than one field `model`")
            model = _model(part, content)
        elif _plain(part.name) == b"n":
            answers = max(answers, answers_of(content))
    if model is None:
        raise _odd("it has no field `model`")
    return Form(model, b"".join(text), answers)


def _boundary(content_type: bytes) -> bytes:
    found = _CONTENT_TYPE.fullmatch(content_type)
    if found is None:
        raise _odd("its Content-Type is not just `multipart/form-data; boundary=` with a boundary of plain characters")
    return bytes(found[1] or found[2])


def _parts(body: bytes, delimiter: bytes) -> Iterator[_Part]:
    """The fields. The delimiter may stand nowhere else, since some look for it anywhere in a line."""
    if not body.startswith(delimiter):
        raise _odd("it does not begin with its boundary")
    at, heads = len(delimiter), 0
    for _ in range(_MOST_PARTS + 1):
        if body[at : at + 7] in _ENDS:
            return
        end = body.find(delimiter, at)
        if body[at : at + 2] != b"\r\n" or end < 0 or body[end - 2 : end] != b"\r\n":
            raise _odd(
                "its boundary is not a line of its own before and after each field, with CRLF, and `--` at the end"
            )
        start = body.find(b"\r\n\r\n", at, min(end, at + _LONGEST_HEAD)) + 4
        if not at + 4 < start <= end - 2:
            raise _odd(f"a field has no head, or one that does not end within {_LONGEST_HEAD} bytes")
        head = body[at + 2 : start - 4]
        heads += len(head)
        if heads > _LONGEST_HEADS:
            raise _odd(f"the heads of its fields have more than {_LONGEST_HEADS} bytes together")
        yield _part(head, start, end - 2)
        at = end + len(delimiter)
    raise _odd(f"it has more than {_MOST_PARTS} fields")


def _part(head: bytes, start: int, end: int) -> _Part:
    fields = dict(_fields(head))
    disposition = _DISPOSITION.fullmatch(fields.pop(b"content-disposition", b""))
    if disposition is None:
        raise _odd(
            'a field does not have just `Content-Disposition: form-data; name="..."`, with a plain name, and with '
            '`; filename="..."` without backslashes if it is a file'
        )
    quoted, bare, quoted_file, bare_file, long_file = disposition.groups()
    name, file = quoted or bare, bare_file if quoted_file is None else quoted_file
    if (name != b"model" and _plain(name) == b"model") or name.lower() == b"_charset_" or _LURE.search(file or b""):
        raise _odd("a field or a file has a name that some servers may take for that of the model")
    if fields.get(b"content-type", b"").lower().startswith(_NESTED):
        raise _odd("a field is a message of several parts")
    if fields.get(b"content-length", b"%d" % (end - start)) != b"%d" % (end - start):
        raise _odd("a field has a Content-Length that is not its own")
    if fields.get(b"content-transfer-encoding", b"binary").lower() not in _IDENTITY:
        raise _odd("a field has a Content-Transfer-Encoding; send it as it is")
    return _Part(name, file is not None or long_file is not None, fields, start, end)


def _fields(head: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Names in lower case, and values; each of those that a form may have, at most once, on one line each."""
    lines = head.split(b"\r\n")
    try:
        is_plain = head.decode().splitlines() == [line.decode() for line in lines]
    except UnicodeDecodeError:
        is_plain = False
    found = [_FIELD.fullmatch(line) for line in lines] if is_plain else []
    fields = [(each[1].lower(), each[2]) for each in found if each is not None]
    names = {name for name, _ in fields}
    if len(names) != len(lines) or not names <= _FIELDS:
        raise _odd(
            "the head of a field is not in UTF-8, has control characters in it, or other lines than one "
            "Content-Disposition, Content-Type, Content-Length and Content-Transfer-Encoding at most, each of one line"
        )
    return iter(fields)


def _plain(name: bytes) -> bytes:
    """What some server may take a field's name for: `Model`, `model[]`, `[model]` and `model.name` are `model`."""
    first = next((each for each in _SEPARATOR.split(name) if each), b"")
    return first.translate(None, b"_-").lower()


def _model(part: _Part, content: bytes) -> str:
    media_type = _TEXT.fullmatch(part.head.get(b"content-type", b"text/plain"))
    if part.is_file or media_type is None:
        raise _odd("its field `model` is a file, or has a Content-Type other than text/plain in UTF-8")
    is_utf8 = (media_type[2] or b"utf-8").lower() == b"utf-8"
    try:
        name = content.decode("utf-8" if is_utf8 else "ascii")
    except UnicodeDecodeError:
        name = ""
    if not name or len(name) > _LONGEST_MODEL or not name.isprintable() or name != name.strip():
        raise _odd(
            f"its field `model` is empty, longer than {_LONGEST_MODEL} characters, not in UTF-8, or has white space "
            "around it or characters in it that cannot be printed"
        )
    return name


def _odd(why: str) -> BadRequest:
    return BadRequest(
        f"Servers may differ on the model of this form: {why}. What this API key may use depends on the model, so "
        "send a plain form with exactly one field `model`, as OpenAI's SDKs do.",
        param="model",
    )
