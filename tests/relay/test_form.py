"""The name of the model in a form, found in whatever pieces the form comes."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from urllib3 import encode_multipart_formdata

from gateway.relay.form import FormModel
from gateway.relay.strict_form import read_form

TYPE = b"multipart/form-data; boundary=limit"


def found(body: bytes, content_type: bytes = TYPE, *, size: int = 1 << 20) -> str | None:
    form = FormModel(content_type)
    for at in range(0, len(body), size):
        form.feed(body[at : at + size])
    return form.name


def part(name: str, value: bytes, more: str = "") -> bytes:
    head = f'Content-Disposition: form-data; name="{name}"{more}'
    return b"--limit\r\n%b\r\n\r\n%b\r\n" % (head.encode(), value)


END = b"--limit--\r\n"
FILE = part("file", b"\x00\r\n--limi\r\n\r\n" * 50, '; filename="a.wav"\r\nContent-Type: audio/wav')


@given(
    before=st.lists(st.tuples(st.sampled_from(["file", "prompt", "modelled"]), st.binary(max_size=200)), max_size=3),
    model=st.text(st.characters(codec="utf-8"), max_size=80),
    after=st.lists(st.tuples(st.sampled_from(["file", "n"]), st.binary(max_size=200)), max_size=3),
    size=st.integers(1, 64),
)
def test_the_model_of_any_form_that_a_client_writes_is_found_in_pieces_of_any_size(
    before: list[tuple[str, bytes]], model: str, after: list[tuple[str, bytes]], size: int
) -> None:
    fields = [*before, ("model", model.encode()), *after]
    body, content_type = encode_multipart_formdata(fields)
    assert found(body, content_type.encode(), size=size) == model.encode().decode()


@pytest.mark.parametrize("size", [1, 7, 1 << 20])
def test_a_file_before_the_model_is_passed_over(size: int) -> None:
    assert found(FILE + part("model", b"whisper") + END, size=size) == "whisper"


@pytest.mark.parametrize("size", [1, 7, 1 << 20])
@pytest.mark.parametrize(
    "body",
    [
        b"",
        END,
        FILE + END,
        b"model=whisper",
        b'{"model": "whisper"}',
        part("model", b"cheap") + part("model", b"dear") + END,
        part("model", b"cheap") + part("x", b"y", "\r\nX-Long: " + 9000 * "x") + END,
        part("model", 2000 * b"m") + END,
        FILE + b'\r\nContent-Disposition: form-data; name="model"\r\n\r\ncheap\r\n' + END,
        END + part("model", b"after the end"),
        part("model", b"cheap") + part("n", b"1") * 2000 + END,
    ],
)
def test_where_no_one_model_is_named_nothing_is_said(body: bytes, size: int) -> None:
    assert found(body, size=size) is None


@pytest.mark.parametrize("content_type", [b"", b"application/json", b"multipart/form-data", b"multipart/mixed; x=1"])
def test_without_a_boundary_nothing_is_said(content_type: bytes) -> None:
    assert found(part("model", b"whisper") + END, content_type) is None


def test_the_same_name_twice_is_one() -> None:
    assert found(part("model", b"whisper") * 2 + END) == "whisper"


@pytest.mark.parametrize("name", [b'"model"', b"model", b'"model"; x=y'])
def test_a_name_may_come_without_quotes_and_with_more_behind(name: bytes) -> None:
    body = b"--limit\r\ncontent-type: text/plain\r\nCONTENT-DISPOSITION: form-data; name=%b\r\n\r\nwhisper\r\n" % name
    assert found(body + END) == "whisper"


def test_little_is_held_of_a_file() -> None:
    form = FormModel(TYPE)
    form.feed(part("file", b"")[:-2])
    for _ in range(100):
        form.feed(bytes(10_000))
    assert len(form._held) < 100


def test_a_form_of_too_many_parts_is_not_read_on() -> None:
    form, piece = FormModel(b"multipart/form-data; boundary=x"), b"\r\n--x\r\n\r\n" * 25_000
    form.feed(piece)
    form.feed(piece)
    assert form.name is None
    assert form._delimiter == b""
    assert form._held == b""


@pytest.mark.parametrize("size", [1, 7, 1 << 20])
@pytest.mark.parametrize(
    ("fields", "answers"),
    [
        (b"", 1),
        (part("n", b"10"), 10),
        (part("n", b" 10\n"), 10),
        (part("n", b"+010"), 10),
        (part("n", b"1e1"), 10),
        (part("n", b"2") + part("N", b"3") + part("n", b"1"), 3),
        (part("n", b"ten") + part("nn", b"9"), 1),
        (part("n", b"-3") + part("n", b""), 1),
        (part("n", 40 * b"9"), 1),
    ],
)
def test_so_is_how_many_answers_it_asks_for(fields: bytes, answers: int, size: int) -> None:
    form, body = FormModel(TYPE), FILE + fields + part("model", b"m") + END
    for at in range(0, len(body), size):
        form.feed(body[at : at + size])
    assert (form.answers, form.name) == (answers, "m")
    assert read_form(TYPE, body).answers == answers
