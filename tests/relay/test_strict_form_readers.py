"""What libraries write the strict reader of forms takes; what it takes every other reader reads the same."""

import io
import re
from collections.abc import Callable
from email.parser import BytesParser
from email.policy import HTTP
from typing import Any

import httpx
import httpx2
import pytest
import requests
from hypothesis import example, given, settings
from hypothesis import strategies as st
from python_multipart.exceptions import FormParserError
from python_multipart.multipart import FormParser, parse_options_header
from urllib3 import encode_multipart_formdata

from gateway.errors import BadRequest
from gateway.relay.form import FormModel
from gateway.relay.strict_form import read_form
from tests.relay.test_strict_form import CONTENT_TYPES, END, FILE, MODEL, TEXT, TYPE, by_dotnet, by_node_4, part, raw

URL = "http://gateway.invalid/"

# What clients write

FIELDS = {"prompt": "a cat \u00e9", "model": "openai/gpt-image-1", "n": "2"}
NAME = 'a "cat"; \u732b.png'
Encode = Callable[[bytes], tuple[str, bytes]]


def by_httpx(content: bytes) -> tuple[str, bytes]:
    made = httpx.Request("POST", URL, data=FIELDS, files={"image[]": (NAME, content, "image/png")})
    return made.headers["content-type"], made.read()


def by_httpx2(content: bytes) -> tuple[str, bytes]:
    made = httpx2.Request("POST", URL, data=FIELDS, files={"image[]": (NAME, content, "image/png")})
    return made.headers["content-type"], made.read()


def by_requests(content: bytes) -> tuple[str, bytes]:
    files = {"image[]": (NAME, io.BytesIO(content), "image/png")}
    made = requests.Request("POST", URL, data=FIELDS, files=files).prepare()
    assert isinstance(made.body, bytes)
    return made.headers["content-type"], made.body


def by_requests_as_files(content: bytes) -> tuple[str, bytes]:
    files: dict[str, Any] = {**{name: (None, value) for name, value in FIELDS.items()}, "image[]": (NAME, content)}
    made = requests.Request("POST", URL, files=files).prepare()
    assert isinstance(made.body, bytes)
    return made.headers["content-type"], made.body


def by_urllib3(content: bytes) -> tuple[str, bytes]:
    body, content_type = encode_multipart_formdata({**FIELDS, "image[]": (NAME, content, "image/png")})
    return content_type, body


@pytest.mark.parametrize("encode", [by_httpx, by_httpx2, by_requests, by_requests_as_files, by_urllib3])
@given(content=st.binary(max_size=300))
def test_what_libraries_write_is_read(encode: Encode, content: bytes) -> None:
    content_type, body = encode(content)
    assert read_form(content_type.encode(), body).model == "openai/gpt-image-1"


# Against other readers

TOKENS = [
    *(
        b"\r\n",
        b"\n",
        b"\r",
        b"--",
        b"--limit",
        b"\r\n--limit",
        b"\r\n--limit--",
        b"limit",
        b"\r\n\r\n",
        b" ",
        b"\t",
        b";",
    ),
    *(
        b'"',
        b"\\",
        b"=",
        b":",
        b"'",
        b"*",
        b"\0",
        b"\x85",
        b"\xc2\x85",
        b"\xff",
        b"name=",
        b"name=model",
        b'name="model"',
        b"name*=utf-8''model",
    ),
    *(
        b'; filename="a"',
        b"model",
        b"Model",
        b"model[]",
        b"other",
        b"Content-Disposition: form-data; ",
        b"Content-Length: 3",
    ),
    *(
        b"Content-Type: text/plain",
        b"Content-Type: multipart/mixed; boundary=limit",
        b"Content-Transfer-Encoding: base64",
    ),
]
SMALL = part("file", b"x", "; filename=\"a.wav\"; filename*=UTF-8''a.wav\r\nContent-Type: audio/wav")
TYPED = part("n", b"2", "\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Length: 1")
BARE = raw("Content-Disposition: form-data; name=file; filename=a.mp3; filename*=utf-8''a.mp3")
BARE_MODEL = raw("Content-Disposition: form-data; name=model", b"other")
OTHERS = [FILE, TEXT, SMALL, TYPED, BARE]
TRAPS = [MODEL, END, BARE_MODEL, part("model", b"other"), part("Model", b"other"), part("model[]", b"other")]
TYPES = [TYPE, b'multipart/form-data; boundary="limit"']


@st.composite
def forms(draw: st.DrawFn) -> bytes:
    """Plain forms and nearly plain ones, with up to two pieces cut out, put in, or put in place of others."""
    parts = [*draw(st.lists(st.sampled_from(OTHERS), max_size=2)), draw(st.sampled_from([MODEL, BARE_MODEL]))]
    if draw(st.booleans()):
        parts.append(draw(st.sampled_from(TRAPS)))
    body = b"".join(draw(st.permutations(parts))) + draw(st.sampled_from([END, END + b"\r\n"]))
    for _ in range(draw(st.integers(0, 2))):
        at = draw(st.integers(0, len(body)))
        size = draw(st.sampled_from([0, 0, 1, 2, 8]))
        body = body[:at] + draw(st.sampled_from([b"", *TOKENS])) + body[at + size :]
    return body


def accepted(content_type: bytes, body: bytes) -> str | None:
    try:
        return read_form(content_type, body).model
    except BadRequest:
        return None


def by_email(content_type: bytes, body: bytes) -> list[str]:
    """What the standard library takes for the model, names in any case."""
    message = BytesParser(policy=HTTP).parsebytes(
        b"MIME-Version: 1.0\r\nContent-Type: %b\r\n\r\n%b" % (content_type, body)
    )
    found = []
    for each in message.walk():
        if str(each.get_param("name", "", "content-disposition")).strip().lower() in ("model", "model[]"):
            content = each.get_payload(decode=True)
            assert isinstance(content, bytes)
            found.append(content.decode())
    assert not message.defects
    return found


def by_python_multipart(content_type: bytes, body: bytes) -> list[str]:
    """What Starlette, and so vLLM and SGLang, take for the model."""
    found: list[tuple[bytes | None, bytes | None]] = []
    kind, options = parse_options_header(content_type)

    def see(field: Any) -> None:
        found.append((field.field_name, field.value))

    parser = FormParser(
        kind.decode(), see, lambda file: found.append((file.field_name, None)), boundary=options[b"boundary"]
    )
    parser.write(body)
    parser.finalize()
    return [(value or b"").decode() for name, value in found if (name or b"").strip().lower() in (b"model", b"model[]")]


@settings(max_examples=500)
@given(content_type=st.sampled_from([*TYPES, *TYPES, *CONTENT_TYPES]) | st.just(TYPE), body=forms())
@example(TYPE, FILE + MODEL + END)
@example(TYPES[1], MODEL + END[:-2])
@example(*by_dotnet(b"limit"))
@example(*by_dotnet(35 * b"9="))
@example(*by_node_4(b"limit"))
@example(TYPE, MODEL + END + b"\r\n")
def test_whoever_reads_a_form_that_is_taken_reads_the_same_model(content_type: bytes, body: bytes) -> None:
    model = accepted(content_type, body)
    if model is None:
        return
    assert by_email(content_type, body) == [model]
    assert by_python_multipart(content_type, body) == [model]
    lenient = FormModel(content_type)
    lenient.feed(body)
    assert lenient.name == model


# Against readers that heed no quotes in a Content-Disposition

PIECES = [
    *("name", "Name", "model", "Model", "user", "file", "utf-8''", "a", "\u00e9", "_", "-", ".", "0", "*"),
    *("=", "=", ";", ";", " ", "\u00a0", "'", "[]"),
]


def by_semicolons(disposition: str) -> list[str]:
    """The names for whoever splits at each `;`, as cpp-httplib does."""
    parameters = [each.split("=", 1) for each in disposition.split(";") if "=" in each]
    return [value.strip('" ') for key, value in parameters if re.fullmatch(r"name\*?", key.strip(), re.IGNORECASE)]


def by_words(disposition: str) -> list[str]:
    """The names for whoever looks for the word `name`: formidable takes the first, Rack of old the last."""
    found = re.findall(r"(?<![0-9A-Za-z_])name\*?\s*=\s*([^;]*)", disposition, re.IGNORECASE)
    return [each.strip('" ') for each in found]


def by_letters(disposition: str) -> list[str]:
    """The names for whoever looks for the letters `name`, within words too."""
    found = re.findall(r"""name\s*=\s*(?=("[^"]*"|[^\s";]*))""", disposition, re.IGNORECASE)
    return [each.strip('" ') for each in found]


@settings(max_examples=1000)
@given(name=st.lists(st.sampled_from(PIECES), max_size=8).map("".join))
@example("username=ada.wav")
def test_no_name_of_a_file_that_is_taken_names_a_field_to_readers_that_heed_no_quotes(name: str) -> None:
    more = f'; filename="{name}"'
    if accepted(TYPE, MODEL + part("file", b"", more) + END) is None:
        return
    disposition = f'form-data; name="file"{more}'
    assert by_semicolons(disposition) == by_words(disposition) == ["file"]
    assert "model" not in [each.lower() for each in by_letters(disposition)]


def test_the_readers_that_heed_no_quotes_do_read() -> None:
    disposition = 'form-data; name="file"; filename="a; name=x username=model"'
    assert by_semicolons(disposition) == ["file", "x username=model"]
    assert by_words(disposition) == ["file", "x username=model"]
    assert "model" in by_letters(disposition)


@given(body=forms())
def test_no_form_makes_the_reader_fail(body: bytes) -> None:
    accepted(TYPE, body)


def test_the_other_readers_do_read() -> None:
    body = FILE + MODEL + part("Model", b"other") + END
    assert by_email(TYPE, body) == by_python_multipart(TYPE, body) == ["whisper", "other"]
    with pytest.raises(FormParserError):
        by_python_multipart(TYPE, b"nonsense")
