"""Where policy depends on the model of a form, only forms are taken that every server reads alike."""

import pytest

from gateway.errors import BadRequest
from gateway.metering.estimate import ATTACHMENT_BYTES
from gateway.relay.strict_form import read_form

TYPE = b"multipart/form-data; boundary=limit"
END = b"--limit--\r\n"
DISPOSITION = 'Content-Disposition: form-data; name="%s"'


def part(name: str, value: bytes, more: str = "") -> bytes:
    return raw(DISPOSITION % name + more, value)


def raw(head: str, value: bytes = b"x") -> bytes:
    return b"--limit\r\n%b\r\n\r\n%b\r\n" % (head.encode(), value)


MODEL = part("model", b"whisper")
SOUND = bytes(range(256)) * 8 + b"\r\n--\r\n\r\n--limi\r\n"
FILE = part("file", SOUND, '; filename="a \u00e9, \u6771\u4eac.wav"\r\nContent-Type: audio/wav')
TEXT = part("prompt", b"Na\xc3\xafve names")


@pytest.mark.parametrize(
    "body",
    [
        MODEL + END,
        MODEL + END[:-2],
        MODEL + END + b"\r\n",
        FILE + TEXT + MODEL + END,
        MODEL
        + part("timestamp_granularities[]", b"word")
        + part("chunking_strategy[type]", b"server_vad")
        + FILE
        + END,
        part("model", b"whisper", "\r\nContent-Type: text/plain; charset=UTF-8\r\nContent-Length: 7") + END,
        raw('content-type: text/plain;charset="us-ascii"\r\ncontent-disposition:form-data; name="model"', b"whisper")
        + END,
        MODEL + part("file", b"", "; filename=\"a.wav\"; filename*=UTF-8''%C3%A9.wav") + END,
        MODEL + part("file", b"", '; filename=""\r\nContent-Transfer-Encoding: binary') + END,
        MODEL + part("models", b"other") + part("file", b"", '; filename="model.wav"') + END,
    ],
)
def test_a_plain_form_is_read(body: bytes) -> None:
    assert read_form(TYPE, body).model == "whisper"


@pytest.mark.parametrize("name", ["m", "openai/gpt-image-1:2025 (x)", "\u6a21\u578b", 256 * "m"])
def test_the_name_is_what_the_form_says(name: str) -> None:
    assert read_form(TYPE, part("model", name.encode()) + END).model == name


CONTENT_TYPES = [
    b"",
    b"multipart/form-data",
    b"multipart/form-data; boundary=",
    b"multipart/form-data; boundary=other",
    b"multipart/form-data; boundary=limit;",
    b"multipart/form-data; boundary=limit; boundary=other",
    b"multipart/form-data; boundary=limit, boundary=other",
    b"multipart/form-data; boundary=limit; charset=utf-7",
    b"multipart/form-data; charset=utf-8; boundary=limit",
    b"multipart/form-data; boundary*=utf-8''limit",
    b"multipart/form-data; boundary*0=li; boundary*1=mit",
    b'multipart/form-data; boundary="limit',
    b'multipart/form-data; boundary=limit"',
    b'multipart/form-data; boundary="l\\imit"',
    b"multipart/form-data; boundary='limit'",
    b"multipart/form-data; boundary=limit ",
    b"multipart/form-data; boundary = limit",
    b"multipart/form-data ; boundary=limit",
    b"multipart/form-data; Boundary=limit",
    b"Multipart/Form-Data; boundary=limit",
    b"multipart/mixed; boundary=limit",
    b"multipart/form-data; boundary=limit\xff",
    b"multipart/form-data; boundary=limit=",
]


@pytest.mark.parametrize("content_type", CONTENT_TYPES)
def test_a_content_type_in_which_the_boundary_may_be_read_differently_is_refused(content_type: bytes) -> None:
    with pytest.raises(BadRequest):
        read_form(content_type, MODEL + END)


def test_a_boundary_may_stand_in_quotes() -> None:
    assert read_form(b'multipart/form-data; boundary="limit"', MODEL + END).model == "whisper"


def by_dotnet(boundary: bytes) -> tuple[bytes, bytes]:
    """A form as OpenAI's SDK for .NET writes it: its MultipartFormDataContent quotes nothing but the boundary."""
    head = "Content-Type: text/plain; charset=utf-8\r\nContent-Disposition: form-data; name="
    file = raw("Content-Disposition: form-data; name=file; filename=a.mp3; filename*=utf-8''a.mp3", SOUND)
    fields = file + raw(head + "model", b"whisper") + raw(head + '"timestamp_granularities[]"', b"word")
    body = (fields + END).replace(b"--limit", b"--" + boundary)
    return b'multipart/form-data; boundary="%b"' % boundary, body


@pytest.mark.parametrize("boundary", [b"limit", 35 * b"9=", b"=", b"==-"])
def test_names_and_a_boundary_as_net_writes_them_are_read(boundary: bytes) -> None:
    assert read_form(*by_dotnet(boundary)).model == "whisper"


def by_node_4(boundary: bytes) -> tuple[bytes, bytes]:
    """A form as OpenAI's SDK for Node wrote it before its version 5, and `got` does: an empty line is after its end."""
    file = raw('Content-Disposition: form-data; name="file"; filename="a.wav"\r\nContent-Type: audio/wav', SOUND)
    body = (MODEL + file + END + b"\r\n").replace(b"--limit", b"--" + boundary)
    return b"multipart/form-data; boundary=" + boundary, body


def test_a_form_may_end_in_an_empty_line_as_older_sdks_for_node_write_it() -> None:
    assert read_form(*by_node_4(b"form-data-boundary-uvzb9n2aw0pzmedb")).model == "whisper"


@pytest.mark.parametrize(
    "name",
    ["username=ada.wav", "a;filename=b.wav", "rename = x", "name.wav", "my name", "a=b; c", "model.wav", "a model"],
)
def test_a_file_may_have_every_name_that_nobody_takes_for_that_of_a_field(name: str) -> None:
    assert read_form(TYPE, MODEL + part("file", b"", f'; filename="{name}"') + END).model == "whisper"


ODD: dict[str, bytes] = {
    # Which model
    "empty": b"",
    "no fields": END,
    "no model": FILE + END,
    "two models": MODEL + part("model", b"other") + END,
    "the same model twice": MODEL * 2 + END,
    "no name": part("model", b"") + END,
    "a long name": part("model", b"m" * 257) + END,
    "not UTF-8": part("model", b"\xff") + END,
    "a control character": part("model", b"whis\x00per") + END,
    "a line break": part("model", b"whisper\r\n") + END,
    "a space before": part("model", b" whisper") + END,
    "a space after": part("model", b"whisper ") + END,
    "a mark of byte order": part("model", "\ufeffwhisper".encode()) + END,
    "a mark of direction": part("model", "\u202ewhisper".encode()) + END,
    "a file": part("model", b"whisper", '; filename="a"') + END,
    "a file without a name": part("model", b"whisper", '; filename=""') + END,
    "a file by the long way": part("model", b"whisper", "; filename*=UTF-8''a") + END,
    "JSON": part("model", b'"whisper"', "\r\nContent-Type: application/json") + END,
    "UTF-16": part("model", b"w\0", "\r\nContent-Type: text/plain; charset=utf-16") + END,
    "UTF-7": part("model", b"+AHc-", "\r\nContent-Type: text/plain; charset=utf-7") + END,
    "more than ASCII in ASCII": part("model", b"\xc3\xa9", "\r\nContent-Type: text/plain; charset=us-ascii") + END,
    # What looks like it
    "capitals": MODEL + part("Model", b"other") + END,
    "capitals alone": part("MODEL", b"other") + END,
    "a list": MODEL + part("model[]", b"other") + END,
    "an element": MODEL + part("model[0]", b"other") + END,
    "an element by a dot": MODEL + part("model.0", b"other") + END,
    "in brackets": MODEL + part("[model]", b"other") + END,
    "a dash": MODEL + part("-model", b"other") + END,
    "a space in the name": MODEL + part(" model", b"other") + END,
    "a space after the name": MODEL + part("model ", b"other") + END,
    "wide letters": MODEL + part("\uff4dodel", b"other") + END,
    "percent": MODEL + part("%6dodel", b"other") + END,
    "an entity": MODEL + part("&#109;odel", b"other") + END,
    "an encoded word": MODEL + part("=?utf-8?q?model?=", b"other") + END,
    "a NUL": MODEL + part("model\0", b"other") + END,
    "a backslash": MODEL + part("m\\odel", b"other") + END,
    "no name at all": MODEL + part("", b"other") + END,
    "a charset for all": part("_charset_", b"utf-16") + MODEL + END,
    "a file of that name": MODEL + part("file", b"other", '; filename="model"') + END,
    "a parameter in a file's name": MODEL + part("file", b"other", '; filename="a; name=model"') + END,
    "a long parameter in a file's name": MODEL + part("file", b"other", "; filename=\"a; name*=utf-8''model\"") + END,
    "a parameter at the beginning of a file's name": MODEL + part("file", b"", '; filename="name=a.wav"') + END,
    "capitals in a file's name": MODEL + part("file", b"", '; filename="a NAME = model"') + END,
    "a numbered parameter in a file's name": MODEL + part("file", b"", '; filename="a;name*0=mod;name*1=el"') + END,
    "a wide space in a file's name": MODEL + part("file", b"", '; filename="a;\u00a0name\u00a0=model"') + END,
    "the model after an equals sign": MODEL + part("file", b"", '; filename="username=model;"') + END,
    "a tab in a file's name": MODEL + part("file", b"", '; filename="a\tb"') + END,
    # Content-Disposition
    "without it": MODEL + raw("Content-Type: text/plain") + END,
    "without a head": MODEL + b"--limit\r\n\r\nother\r\n" + END,
    "an empty head": MODEL + b"--limit\r\n\r\n\r\nother\r\n" + END,
    "twice": raw('Content-Disposition: form-data; name="x"\r\nContent-Disposition: form-data; name="model"') + END,
    "no quotes, twice": MODEL + raw("Content-Disposition: form-data; name=model", b"other") + END,
    "no quotes and capitals": MODEL + raw("Content-Disposition: form-data; name=Model", b"other") + END,
    "no quotes and brackets": MODEL + raw("Content-Disposition: form-data; name=model[]", b"other") + END,
    "no quotes and a file": raw("Content-Disposition: form-data; name=model; filename=a", b"whisper") + END,
    "no quotes and a file of that name": MODEL + raw("Content-Disposition: form-data; name=x; filename=model") + END,
    "no quotes and a space": MODEL + raw("Content-Disposition: form-data; name=a file") + END,
    "half a name in quotes": raw('Content-Disposition: form-data; name=mod"el"', b"whisper") + END,
    "no quote at the beginning": raw('Content-Disposition: form-data; name=model"', b"whisper") + END,
    "half a file's name in quotes": MODEL + raw('Content-Disposition: form-data; name=x; filename=a"b"') + END,
    "single quotes": raw("Content-Disposition: form-data; name='model'", b"whisper") + END,
    "no quote at the end": raw('Content-Disposition: form-data; name="model', b"whisper") + END,
    "two names": raw('Content-Disposition: form-data; name="model"; name="x"', b"whisper") + END,
    "a long name besides": raw("Content-Disposition: form-data; name=\"x\"; name*=utf-8''model") + MODEL + END,
    "two names of files": part("file", b"", '; filename="a"; filename="b"') + MODEL + END,
    "the file before the name": raw('Content-Disposition: form-data; filename="a"; name="file"') + MODEL + END,
    "an escaped quote": part("file", b"", '; filename="a\\"; name=\\"model"') + MODEL + END,
    "a backslash at the end": part("file", b"", '; filename="a\\"') + MODEL + END,
    "other parameters": part("model", b"whisper", "; x=y") + END,
    "a semicolon at the end": part("model", b"whisper", ";") + END,
    "an attachment": raw('Content-Disposition: attachment; name="model"', b"whisper") + END,
    "capitals of form-data": raw('Content-Disposition: Form-Data; name="model"', b"whisper") + END,
    "capitals of the parameter": raw('Content-Disposition: form-data; Name="model"', b"whisper") + END,
    "spaces about the equals sign": raw('Content-Disposition: form-data; name = "model"', b"whisper") + END,
    "a tab": raw('Content-Disposition: form-data;\tname="model"', b"whisper") + END,
    # Other lines of a head
    "a folded line": raw('Content-Disposition: form-data;\r\n name="model"', b"whisper") + END,
    "a folded line of another": MODEL + raw('Content-Type: a\r\n b\r\nContent-Disposition: form-data; name="x"') + END,
    "a space before the colon": raw('Content-Disposition : form-data; name="model"', b"whisper") + END,
    "a line without a colon": part("model", b"whisper", "\r\nx") + END,
    "a bare LF in the head": MODEL + part("x", b"y", "\nX: y") + END,
    "a bare CR in the head": MODEL + part("x", b"y", '; filename="a\rb"') + END,
    "a next line in the head": MODEL + part("x", b"y", '; filename="a\x85b"') + END,
    "a line separator in the head": MODEL + part("x", b"y", '; filename="a\u2028b"') + END,
    "a vertical tab in the head": MODEL + part("x", b"y", '; filename="a\x0bb"') + END,
    "a head not in UTF-8": b'--limit\r\nContent-Disposition: form-data; name="x"; filename="\xff"\r\n\r\n\r\n'
    + MODEL
    + END,
    "a head without an end": b'--limit\r\nContent-Disposition: form-data; name="x"\r\n' + MODEL + END,
    "a long head": MODEL + part("x", b"y", '; filename="' + 9000 * "x" + '"') + END,
    "two types": MODEL + part("x", b"y", "\r\nContent-Type: text/plain\r\ncontent-type: text/html") + END,
    "another field in the head": MODEL + part("x", b"y", "\r\nX-Name: model") + END,
    "base64": part("model", b"d2hpc3Blcg==", "\r\nContent-Transfer-Encoding: base64") + END,
    "quoted-printable": part("model", b"=77", "\r\nContent-Transfer-Encoding: quoted-printable") + END,
    "a content coding": part("model", b"x", "\r\nContent-Encoding: gzip") + END,
    "a length that is not its own": MODEL + part("x", b"abc", "\r\nContent-Length: 2") + END,
    "parts within a part": MODEL + part("x", b"", "\r\nContent-Type: Multipart/mixed; boundary=b") + END,
    "a message within a part": MODEL + part("x", b"", "\r\nContent-Type: message/rfc822") + END,
    # Delimiters
    "not closed": MODEL,
    "cut": (FILE + MODEL + END)[:-10],
    "a preamble": b"\r\n" + MODEL + END,
    "words before": b"hello\r\n" + MODEL + END,
    "words after": MODEL + END + b"x",
    "two empty lines after": MODEL + END + b"\r\n\r\n",
    "a bare LF after": MODEL + END + b"\n",
    "a bare CR after": MODEL + END + b"\r",
    "words after an empty line": MODEL + END + b"\r\nx",
    "a part after the end": MODEL + END + part("model", b"other") + END,
    "bare LF": (MODEL + END).replace(b"\r\n", b"\n"),
    "bare LF before a delimiter": part("file", b'a\n--limit\nContent-Disposition: form-data; name="model"')
    + MODEL
    + END,
    "a bare LF at one delimiter": part("x", b"y")[:-2] + b"\n" + MODEL + END,
    "a bare CR at one delimiter": part("x", b"y")[:-2] + b"\r" + MODEL + END,
    "a space after a delimiter": MODEL.replace(b"limit\r\n", b"limit \r\n") + END,
    "other bytes after a delimiter": MODEL.replace(b"limit\r\n", b"limit\n\r") + END,
    "letters in place of a line break": MODEL.replace(b"limit\r\n", b"limited") + END,
    "a space after the end": MODEL + b"--limit-- \r\n",
    "the delimiter within a line": part("x", b"see --limit") + MODEL + END,
    "the delimiter in a longer one": part("x", b"y\r\n--limits") + MODEL + END,
    "the end within a line": part("x", b"see --limit--") + MODEL + END,
    "the delimiter in a head": part("x", b"y", '; filename="--limit"') + MODEL + END,
    "one line break for two": b'--limit\r\nContent-Disposition: form-data; name="x"\r\n\r\n' + MODEL + END,
    "many parts": part("n", b"1") * 1000 + MODEL + END,
    "no form": b'{"model": "whisper"}',
}


@pytest.mark.parametrize("name", ODD)
def test_a_form_that_servers_may_read_differently_is_refused_with_what_to_do(name: str) -> None:
    with pytest.raises(BadRequest) as refused:
        read_form(TYPE, ODD[name])
    assert refused.value.param == "model"
    assert "exactly one field `model`, as OpenAI's SDKs do" in refused.value.message


def test_a_form_may_have_a_thousand_fields() -> None:
    assert read_form(TYPE, part("n", b"1") * 999 + MODEL + END).model == "whisper"


def test_the_heads_of_all_fields_together_may_have_128_kib() -> None:
    def head(size: int) -> bytes:
        return raw((DISPOSITION % "file" + '; filename="').ljust(size - 1, "x") + '"')

    most = MODEL + head(8000) * 16 + head(128 * 1024 - 16 * 8000 - len(DISPOSITION % "model")) + END
    assert read_form(TYPE, most).model == "whisper"
    with pytest.raises(BadRequest) as refused:
        read_form(TYPE, most.replace(b"xx", b"xxx", 1))
    assert "131072 bytes" in refused.value.message


def test_fields_count_as_text_and_of_a_file_no_more_than_an_attachment_counts_for() -> None:
    file = part("file", bytes(100_000), '; filename="a.wav"')
    assert (
        read_form(TYPE, TEXT + file + MODEL + END).text == b"Na\xc3\xafve names" + bytes(ATTACHMENT_BYTES) + b"whisper"
    )
    assert read_form(TYPE, MODEL + part("file", b"abc", '; filename="a"') + END).text == b"whisperabc"
