"""Which handler answers which method and path.

The table is the whole of it. `{}` is one segment, `{...}` the rest of the path;
both are percent-decoded only after the path was split, as the SDKs expect of
`/models/openai%2Fgpt-5.2`.
"""

from collections.abc import Callable
from dataclasses import dataclass
from urllib.parse import unquote

from gateway.simulator import (
    batches,
    chat,
    conversations,
    files,
    responses,
    single_shot,
    vector_stores,
)
from gateway.simulator.call import Call, Reply
from gateway.simulator.refusals import method_not_allowed, unknown_url

Handler = Callable[[Call], Reply]
PREFIX = "/v1/"


@dataclass(frozen=True, slots=True)
class Route:
    """`makes_new`: the same request twice makes two objects, not the same one again.

    `stores`: what `store` stands for where a request does not say it; with it, the same holds. None: no such member.
    """

    method: str
    pattern: tuple[str, ...]
    handler: Handler
    makes_new: bool = False
    stores: bool | None = None


def _route(
    method: str, pattern: str, handler: Handler, *, makes_new: bool = False, stores: bool | None = None
) -> Route:
    return Route(method, tuple(pattern.split("/")), handler, makes_new, stores)


ROUTES = (
    _route("POST", "chat/completions", chat.create, stores=False),
    _route("GET", "chat/completions", chat.list_stored),
    _route("GET", "chat/completions/{}", chat.get),
    _route("POST", "chat/completions/{}", chat.update),
    _route("DELETE", "chat/completions/{}", chat.delete),
    _route("GET", "chat/completions/{}/messages", chat.messages),
    _route("POST", "responses", responses.create, stores=True),
    _route("POST", "responses/input_tokens", responses.count_input_tokens),
    _route("POST", "responses/compact", responses.compact),
    _route("GET", "responses/{}", responses.get),
    _route("DELETE", "responses/{}", responses.delete),
    _route("POST", "responses/{}/cancel", responses.cancel),
    _route("GET", "responses/{}/input_items", responses.list_input_items),
    _route("POST", "conversations", conversations.create, makes_new=True),
    _route("GET", "conversations/{}", conversations.get),
    _route("POST", "conversations/{}", conversations.update),
    _route("DELETE", "conversations/{}", conversations.delete),
    _route("POST", "conversations/{}/items", conversations.create_items, makes_new=True),
    _route("GET", "conversations/{}/items", conversations.list_items),
    _route("GET", "conversations/{}/items/{}", conversations.get_item),
    _route("DELETE", "conversations/{}/items/{}", conversations.delete_item),
    _route("GET", "models", single_shot.list_models),
    _route("GET", "models/{...}", single_shot.get_model),
    _route("POST", "embeddings", single_shot.embeddings),
    _route("POST", "completions", single_shot.completions),
    _route("POST", "moderations", single_shot.moderations),
    _route("POST", "images/generations", single_shot.images),
    _route("POST", "images/edits", single_shot.edited_images),
    _route("POST", "images/variations", single_shot.edited_images),
    _route("POST", "audio/speech", single_shot.speech),
    _route("POST", "audio/transcriptions", single_shot.transcription),
    _route("POST", "audio/translations", single_shot.transcription),
    _route("POST", "files", files.create, makes_new=True),
    _route("GET", "files", files.list_all),
    _route("GET", "files/{}", files.get),
    _route("DELETE", "files/{}", files.delete),
    _route("GET", "files/{}/content", files.content),
    _route("POST", "uploads", files.create_upload, makes_new=True),
    _route("POST", "uploads/{}/parts", files.add_part, makes_new=True),
    _route("POST", "uploads/{}/complete", files.complete_upload),
    _route("POST", "uploads/{}/cancel", files.cancel_upload),
    _route("POST", "batches", batches.create, makes_new=True),
    _route("GET", "batches", batches.list_all),
    _route("GET", "batches/{}", batches.get),
    _route("POST", "batches/{}/cancel", batches.cancel),
    _route("POST", "vector_stores", vector_stores.create, makes_new=True),
    _route("GET", "vector_stores", vector_stores.list_all),
    _route("GET", "vector_stores/{}", vector_stores.get),
    _route("POST", "vector_stores/{}", vector_stores.update),
    _route("DELETE", "vector_stores/{}", vector_stores.delete),
    _route("POST", "vector_stores/{}/search", vector_stores.search),
    _route("POST", "vector_stores/{}/files", vector_stores.attach),
    _route("GET", "vector_stores/{}/files", vector_stores.list_files),
    _route("GET", "vector_stores/{}/files/{}", vector_stores.get_file),
    _route("POST", "vector_stores/{}/files/{}", vector_stores.update_file),
    _route("DELETE", "vector_stores/{}/files/{}", vector_stores.detach),
    _route("GET", "vector_stores/{}/files/{}/content", vector_stores.file_content),
    _route("POST", "vector_stores/{}/file_batches", vector_stores.create_batch, makes_new=True),
    _route("GET", "vector_stores/{}/file_batches/{}", vector_stores.get_batch),
    _route("POST", "vector_stores/{}/file_batches/{}/cancel", vector_stores.get_batch),
    _route("GET", "vector_stores/{}/file_batches/{}/files", vector_stores.list_files),
)


def match(method: str, path: str) -> tuple[Route, tuple[str, ...]]:
    """The route and the decoded ids of a raw path; raises Refusal (404 or 405)."""
    if not path.startswith(PREFIX):
        raise unknown_url(method, path)
    segments = path.removeprefix(PREFIX).split("/")
    matches = [(route, _ids(route.pattern, segments)) for route in ROUTES]
    found = [(route, ids) for route, ids in matches if ids is not None]
    for route, ids in found:
        if route.method == method:
            return route, ids
    raise method_not_allowed(method, path) if found else unknown_url(method, path)


def _ids(pattern: tuple[str, ...], segments: list[str]) -> tuple[str, ...] | None:
    rest = pattern[-1] == "{...}"
    if len(segments) < len(pattern) or (len(segments) > len(pattern) and not rest):
        return None
    expected = [*pattern, *["{...}"] * (len(segments) - len(pattern))]
    if not all(want in (have, "{}", "{...}") for want, have in zip(expected, segments, strict=True)):
        return None
    ids = [unquote(have) for want, have in zip(expected, segments, strict=True) if want != have]
    return tuple(ids) if all(ids) else None
