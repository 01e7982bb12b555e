"""Calls that make no object: models, embeddings, legacy completions, moderations, images, audio.

Shapes as of https://platform.openai.com/docs/api-reference; any model name will
do here, for nothing depends on it.
"""

import base64
import hashlib
import struct
from collections.abc import Iterator

import msgspec

from gateway.simulator.answer import Answer, Prompt, answer, cached_tokens, tokens_of
from gateway.simulator.call import CREATED, EVENT_STREAM, MODELS, Call, Json, Reply, json_reply, require_model
from gateway.simulator.chat import StreamOptions
from gateway.simulator.multipart import file_field, read_form, text_field
from gateway.simulator.refusals import invalid, missing, unknown_model
from gateway.simulator.sse import DONE, data_event

MAX_DIMENSIONS = 4096
MAX_IMAGES = 10
# A PNG of one grey pixel.
PIXEL = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAAAAAA6fptVAAAACklEQVR42mNoAAAAggCB2kUIOwAAAABJRU5ErkJggg=="
CATEGORIES = (
    "harassment",
    "harassment/threatening",
    "hate",
    "hate/threatening",
    "illicit",
    "illicit/violent",
    "self-harm",
    "self-harm/intent",
    "self-harm/instructions",
    "sexual",
    "sexual/minors",
    "violence",
    "violence/graphic",
)


def list_models(_: Call) -> Reply:
    """GET /models."""
    return json_reply({"object": "list", "data": [_model(name) for name in MODELS]})


def get_model(call: Call) -> Reply:
    """GET /models/{id}; the id may hold slashes, percent-encoded or not."""
    name = "/".join(call.ids)
    if name not in MODELS:
        raise unknown_model(name)
    return json_reply(_model(name))


def _model(name: str) -> Json:
    return {"id": name, "object": "model", "created": CREATED, "owned_by": "simulated"}


class EmbeddingRequest(msgspec.Struct):
    model: str
    input: str | list[str | int | list[int]]
    dimensions: int | None = None
    encoding_format: str | None = None


def embeddings(call: Call) -> Reply:
    """POST /embeddings: vectors of length 1 that follow from the text."""
    request = call.read(EmbeddingRequest)
    size = 1536 if request.dimensions is None else request.dimensions
    if not 1 <= size <= MAX_DIMENSIONS:
        raise invalid("dimensions", f"Invalid 'dimensions': expected an integer from 1 to {MAX_DIMENSIONS}.")
    texts = _texts(request.input)
    vectors = [_vector(text, size) for text in texts]
    encode = _as_base64 if request.encoding_format == "base64" else list
    data = [{"object": "embedding", "index": i, "embedding": encode(v)} for i, v in enumerate(vectors)]
    tokens = sum(map(tokens_of, texts))
    usage = {"prompt_tokens": tokens, "total_tokens": tokens}
    return json_reply({"object": "list", "data": data, "model": request.model, "usage": usage})


def _texts(given: str | list[str | int | list[int]]) -> list[str]:
    """Each thing to embed; a list of integers is one text in tokens."""
    if isinstance(given, str):
        return [given]
    if given and isinstance(given[0], int):
        return [str(given)]
    return [entry if isinstance(entry, str) else str(entry) for entry in given]


def _vector(text: str, size: int) -> list[float]:
    raw = [byte - 127.5 for byte in hashlib.shake_256(text.encode()).digest(size)]
    length = sum(value * value for value in raw) ** 0.5
    return [value / length for value in raw]


def _as_base64(vector: list[float]) -> str:
    return base64.b64encode(struct.pack(f"<{len(vector)}f", *vector)).decode()


class CompletionRequest(msgspec.Struct):
    model: str | None = None
    prompt: str | list[str | int | list[int]] | None = None
    max_tokens: int | None = 16
    stop: str | list[str] | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None


def completions(call: Call) -> Reply:
    """POST /completions (legacy), plain or streaming."""
    request = call.read(CompletionRequest)
    model = require_model(request.model)
    if request.prompt is None:
        raise missing("prompt")
    texts = _texts(request.prompt)
    stop = (request.stop,) if isinstance(request.stop, str) else tuple(request.stop or ())
    prompt = Prompt(model, tuple(texts), last=" ".join(texts), stop=stop, max_tokens=request.max_tokens)
    said = answer(prompt, call.faults)
    usage = {
        "prompt_tokens": prompt.tokens,
        "completion_tokens": said.tokens,
        "total_tokens": prompt.tokens + said.tokens,
        "prompt_tokens_details": {"cached_tokens": cached_tokens(prompt.tokens)},
    }
    if request.stream:
        options = request.stream_options or StreamOptions()
        events = _completion_events(call, model, said, usage if options.include_usage else None)
        return Reply(events, content_type=EVENT_STREAM)
    reason = "length" if said.cut_short else "stop"
    return json_reply({**_completion(call, model, said.speech.text, reason), "usage": usage})


def _completion_events(call: Call, model: str, said: Answer, usage: Json | None) -> Iterator[bytes]:
    """The chunks; where `usage` is asked for, a null in each of them and one chunk more with it."""
    asked = {} if usage is None else {"usage": None}
    for piece in said.speech.pieces():
        yield data_event({**_completion(call, model, piece, None), **asked})
    yield data_event({**_completion(call, model, "", "length" if said.cut_short else "stop"), **asked})
    if usage is not None:
        yield data_event({**_completion(call, model, "", None), "choices": [], "usage": usage})
    yield DONE


def _completion(call: Call, model: str, text: str, reason: str | None) -> Json:
    return {
        "id": call.new_id("cmpl-"),
        "object": "text_completion",
        "created": call.created(),
        "model": model,
        "choices": [{"text": text, "index": 0, "logprobs": None, "finish_reason": reason}],
        "system_fingerprint": "fp_simulated",
    }


class ModerationRequest(msgspec.Struct):
    input: str | list[str | Json]
    model: str = "omni-moderation-latest"


def moderations(call: Call) -> Reply:
    """POST /moderations: nothing is ever flagged."""
    request = call.read(ModerationRequest)
    count = len(request.input) if isinstance(request.input, list) else 1
    result = {
        "flagged": False,
        "categories": dict.fromkeys(CATEGORIES, False),
        "category_scores": dict.fromkeys(CATEGORIES, 0.0),
        "category_applied_input_types": {name: ["text"] for name in CATEGORIES},
    }
    return json_reply({"id": call.new_id("modr-"), "model": request.model, "results": [result] * count})


class ImageRequest(msgspec.Struct):
    prompt: str
    n: int | None = None


def images(call: Call) -> Reply:
    """POST /images/generations."""
    request = call.read(ImageRequest)
    return _images(call, request.n or 1, request.prompt)


def edited_images(call: Call) -> Reply:
    """POST /images/edits and /images/variations (multipart: `image`)."""
    form = read_form(call.request)
    file_field(form, "image", "image[]")
    count = text_field(form, "n", "1")
    if not count.isascii() or not count.isdigit():
        raise invalid("n", f"Invalid 'n': expected an integer from 1 to {MAX_IMAGES}.")
    return _images(call, int(count[:9]), text_field(form, "prompt"))


def _images(call: Call, count: int, prompt: str) -> Reply:
    if not 1 <= count <= MAX_IMAGES:
        raise invalid("n", f"Invalid 'n': expected an integer from 1 to {MAX_IMAGES}.")
    tokens = tokens_of(prompt)
    usage = {
        "input_tokens": tokens,
        "input_tokens_details": {"text_tokens": tokens, "image_tokens": 0},
        "output_tokens": count,
        "total_tokens": tokens + count,
    }
    return json_reply({"created": call.created(), "data": [{"b64_json": PIXEL}] * count, "usage": usage})


class SpeechRequest(msgspec.Struct):
    model: str
    input: str
    voice: str | Json


def speech(call: Call) -> Reply:
    """POST /audio/speech: a body of made-up bytes that follow from the text, not playable."""
    request = call.read(SpeechRequest)
    noise = hashlib.shake_256(request.input.encode()).digest(4096)
    return Reply(b"[simulated]" + noise, content_type=b"audio/mpeg")


def transcription(call: Call) -> Reply:
    """POST /audio/transcriptions and /audio/translations (multipart: `file`)."""
    form = read_form(call.request)
    part = file_field(form, "file")
    text = f"[simulated] {len(part.content)} bytes of audio."
    if text_field(form, "response_format", "json") == "text":
        return Reply(f"{text}\n".encode(), content_type=b"text/plain; charset=utf-8")
    return json_reply({"text": text, "usage": {"type": "duration", "seconds": 1}})
