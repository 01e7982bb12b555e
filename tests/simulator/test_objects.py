"""Everything beside chat and responses, as openai-python reads it."""

import io

import openai
import pytest
import requests
from openai import OpenAI

from tests.simulator.conftest import MODEL

CONTENT = b"one\r\n--two\r\n" + bytes(range(256))


def test_models_are_listed_and_found_by_an_encoded_id(client: OpenAI, url: str) -> None:
    assert [model.id for model in client.models.list()] == [MODEL, f"{MODEL}-mini", "simulated"]
    assert client.models.retrieve(MODEL).id == MODEL
    assert requests.get(f"{url}/models/{MODEL}", timeout=10).json()["id"] == MODEL
    with pytest.raises(openai.NotFoundError) as refused:
        client.models.retrieve("gpt-0")
    assert refused.value.code == "model_not_found"


def test_a_file_comes_back_as_it_was_sent(client: OpenAI) -> None:
    made = client.files.create(file=("notes.bin", CONTENT), purpose="user_data")
    assert (made.bytes, made.filename) == (len(CONTENT), "notes.bin")
    assert client.files.content(made.id).read() == CONTENT
    assert made.id in [each.id for each in client.files.list(purpose="user_data")]
    assert client.files.delete(made.id).deleted
    with pytest.raises(openai.NotFoundError):
        client.files.retrieve(made.id)


def test_the_same_file_sent_twice_is_two_files(client: OpenAI) -> None:
    ids = {client.files.create(file=("a", b"same"), purpose="user_data").id for _ in range(3)}
    assert len(ids) == 3


def test_lists_come_in_pages(client: OpenAI) -> None:
    made = [client.files.create(file=(f"{n}", b"x"), purpose="vision").id for n in range(5)]
    page = client.files.list(purpose="vision", limit=2, order="asc")
    assert page.has_more
    assert [each.id for each in page] == made


def test_an_upload_in_parts_becomes_a_file(client: OpenAI) -> None:
    upload = client.uploads.create(bytes=6, filename="a.txt", mime_type="text/plain", purpose="batch")
    parts = [client.uploads.parts.create(upload.id, data=data).id for data in (b"one", b"two")]
    done = client.uploads.complete(upload.id, part_ids=list(reversed(parts)))
    assert done.status == "completed"
    assert done.file is not None
    assert client.files.content(done.file.id).read() == b"twoone"
    with pytest.raises(openai.BadRequestError):
        client.uploads.cancel(upload.id)


def test_a_batch_is_validated_and_then_completed(client: OpenAI) -> None:
    lines = client.files.create(file=("b.jsonl", b"{}\n{}\n"), purpose="batch")
    made = client.batches.create(input_file_id=lines.id, endpoint="/v1/responses", completion_window="24h")
    assert made.status == "validating"
    assert client.batches.retrieve(made.id).status == "completed"
    assert made.id in [each.id for each in client.batches.list()]
    with pytest.raises(openai.ConflictError):
        client.batches.cancel(made.id)


def test_a_vector_store_holds_files(client: OpenAI) -> None:
    file = client.files.create(file=("v.txt", b"some words"), purpose="assistants")
    store = client.vector_stores.create(name="s", file_ids=[file.id])
    assert store.file_counts.completed == 1
    assert client.vector_stores.files.retrieve(file.id, vector_store_id=store.id).status == "completed"
    found = list(client.vector_stores.search(store.id, query="words"))
    assert found[0].file_id == file.id
    assert [f.id for f in client.vector_stores.files.list(store.id)] == [file.id]
    batch = client.vector_stores.file_batches.create(store.id, file_ids=[file.id])
    assert client.vector_stores.file_batches.retrieve(batch.id, vector_store_id=store.id).id == batch.id
    assert client.vector_stores.files.delete(file.id, vector_store_id=store.id).deleted
    assert client.vector_stores.update(store.id, name="t").name == "t"
    assert client.vector_stores.delete(store.id).deleted


def test_a_conversation_and_its_items_live_and_die(client: OpenAI) -> None:
    made = client.conversations.create(items=[{"role": "user", "content": "Hi", "type": "message"}])
    added = client.conversations.items.create(made.id, items=[{"role": "user", "content": "More", "type": "message"}])
    item_id = added.data[0].id or ""
    assert client.conversations.items.retrieve(item_id, conversation_id=made.id).type == "message"
    assert len(list(client.conversations.items.list(made.id))) == 2
    client.conversations.items.delete(item_id, conversation_id=made.id)
    assert client.conversations.update(made.id, metadata={"a": "1"}).metadata == {"a": "1"}
    assert client.conversations.delete(made.id).deleted
    with pytest.raises(openai.NotFoundError):
        client.conversations.retrieve(made.id)


def test_two_empty_conversations_are_two(client: OpenAI) -> None:
    assert client.conversations.create().id != client.conversations.create().id


def test_embeddings_are_unit_vectors_in_both_encodings(client: OpenAI) -> None:
    packed = client.embeddings.create(model="any", input=["a", "b"], dimensions=64)
    plain = client.embeddings.create(model="any", input="a", dimensions=64, encoding_format="float")
    assert len(packed.data) == 2
    assert packed.data[0].embedding == pytest.approx(plain.data[0].embedding, abs=1e-6)
    assert sum(value * value for value in plain.data[0].embedding) == pytest.approx(1)


def test_legacy_completions_come_plain_and_streamed(client: OpenAI) -> None:
    plain = client.completions.create(model=MODEL, prompt="Once", max_tokens=100)
    stream = client.completions.create(model=MODEL, prompt="Once", max_tokens=100, stream=True)
    assert "".join(chunk.choices[0].text for chunk in stream) == plain.choices[0].text


def test_moderations_flag_nothing(client: OpenAI) -> None:
    assert [result.flagged for result in client.moderations.create(input=["a", "b"]).results] == [False] * 2


def test_images_are_one_pixel(client: OpenAI) -> None:
    made = client.images.generate(model="any", prompt="a cat", n=2)
    assert made.data is not None
    assert len(made.data) == 2
    edited = client.images.edit(image=("a.png", b"png"), prompt="a dog")
    assert edited.data is not None
    assert (edited.data[0].b64_json or "").startswith("iVBOR")


def test_audio_goes_both_ways(client: OpenAI) -> None:
    spoken = client.audio.speech.create(model="any", voice="alloy", input="Hello").read()
    heard = client.audio.transcriptions.create(model="any", file=("a.mp3", io.BytesIO(spoken)))
    assert heard.text == f"[simulated] {len(spoken)} bytes of audio."
