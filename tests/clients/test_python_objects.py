"""Models, files, embeddings and the rest of the mirrored surface by openai-python."""

import io
import random

import openai
import pytest
from openai import OpenAI

from tests.clients.conftest import ALIAS, MODEL

CONTENT = b"one\r\n--two\r\n" + bytes(range(256))


def test_models_are_listed_with_the_aliases(client: OpenAI) -> None:
    names = [model.id for model in client.models.list()]
    assert MODEL in names
    assert names[-1] == ALIAS
    assert len(names) == len(set(names))


@pytest.mark.parametrize("name", [MODEL, ALIAS])
def test_a_model_is_found_by_its_name_and_by_its_alias(client: OpenAI, name: str) -> None:
    assert client.models.retrieve(name).id == MODEL


def test_a_file_can_be_sent_listed_read_and_deleted_and_comes_back_as_it_was(client: OpenAI) -> None:
    made = client.files.create(file=("notes.bin", CONTENT), purpose="user_data")
    assert (made.bytes, made.filename) == (len(CONTENT), "notes.bin")
    assert client.files.retrieve(made.id) == made
    assert made.id in [each.id for each in client.files.list(purpose="user_data")]
    assert client.files.content(made.id).read() == CONTENT
    assert client.files.delete(made.id).deleted
    with pytest.raises(openai.NotFoundError):
        client.files.content(made.id)


def test_a_file_of_10_mb_comes_back_as_it_was(client: OpenAI) -> None:
    content = random.Random(1).randbytes(10_000_000)
    made = client.files.create(file=("large.bin", io.BytesIO(content)), purpose="user_data")
    assert made.bytes == len(content)
    with client.files.with_streaming_response.content(made.id) as reply:
        assert b"".join(reply.iter_bytes()) == content
    client.files.delete(made.id)


def test_an_upload_in_parts_becomes_a_file(client: OpenAI) -> None:
    upload = client.uploads.create(bytes=6, filename="a.txt", mime_type="text/plain", purpose="batch")
    parts = [client.uploads.parts.create(upload.id, data=data).id for data in (b"one", b"two")]
    done = client.uploads.complete(upload.id, part_ids=parts)
    assert done.file is not None
    assert client.files.content(done.file.id).read() == b"onetwo"


def test_lists_come_in_pages(client: OpenAI) -> None:
    made = [client.files.create(file=(f"{n}", b"x"), purpose="vision").id for n in range(3)]
    page = client.files.list(purpose="vision", limit=2, order="asc")
    assert page.has_more
    assert [each.id for each in page] == made
    for each in made:
        client.files.delete(each)


def test_a_batch_is_made_and_read(client: OpenAI) -> None:
    lines = client.files.create(file=("b.jsonl", b"{}\n"), purpose="batch")
    made = client.batches.create(input_file_id=lines.id, endpoint="/v1/responses", completion_window="24h")
    assert client.batches.retrieve(made.id).id == made.id
    assert made.id in [each.id for each in client.batches.list()]


def test_a_vector_store_holds_and_finds_files(client: OpenAI) -> None:
    file = client.files.create(file=("v.txt", b"some words"), purpose="assistants")
    store = client.vector_stores.create(name="s", file_ids=[file.id])
    assert [each.file_id for each in client.vector_stores.search(store.id, query="words")] == [file.id]
    assert client.vector_stores.files.delete(file.id, vector_store_id=store.id).deleted
    assert client.vector_stores.delete(store.id).deleted


def test_embeddings_come_in_both_encodings(client: OpenAI) -> None:
    packed = client.embeddings.create(model=MODEL, input=["a", "b"], dimensions=64)
    plain = client.embeddings.create(model=MODEL, input="a", dimensions=64, encoding_format="float")
    assert len(packed.data) == 2
    assert packed.data[0].embedding == pytest.approx(plain.data[0].embedding, abs=1e-6)


def test_legacy_completions_come_plain_and_streamed(client: OpenAI) -> None:
    plain = client.completions.create(model=MODEL, prompt="Once", max_tokens=100)
    stream = client.completions.create(model=MODEL, prompt="Once", max_tokens=100, stream=True)
    assert "".join(chunk.choices[0].text for chunk in stream) == plain.choices[0].text


def test_moderations_images_and_audio_work_by_their_rows_alone(client: OpenAI) -> None:
    assert [result.flagged for result in client.moderations.create(input="a").results] == [False]
    assert len(client.images.generate(model=MODEL, prompt="a cat", n=2).data or []) == 2
    edited = client.images.edit(image=("a.png", b"png"), prompt="a dog")
    assert (edited.data or [])[0].b64_json
    spoken = client.audio.speech.create(model=MODEL, voice="alloy", input="Hello").read()
    heard = client.audio.transcriptions.create(model=MODEL, file=("a.mp3", io.BytesIO(spoken)))
    assert heard.text == f"[simulated] {len(spoken)} bytes of audio."
