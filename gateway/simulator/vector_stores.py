"""Vector stores, their files and batches of files. Nothing is embedded; a search finds the files themselves.

Paths as of https://platform.openai.com/docs/api-reference/vector-stores.
"""

from dataclasses import dataclass, field

import msgspec

from gateway.simulator import files
from gateway.simulator.call import Call, Json, Reply, json_reply
from gateway.simulator.listing import list_reply
from gateway.simulator.refusals import not_found


@dataclass(slots=True)
class VectorStore:
    """A store's object, its files and its batches, both by id."""

    body: Json
    files: dict[str, Json] = field(default_factory=dict)
    batches: dict[str, Json] = field(default_factory=dict)

    def whole(self) -> Json:
        return {**self.body, "file_counts": _counts(len(self.files))}


class StoreRequest(msgspec.Struct):
    name: str | None = None
    file_ids: list[str] | None = None
    metadata: dict[str, str] | None = None


class FileRequest(msgspec.Struct):
    file_id: str
    attributes: dict[str, str | float | bool] | None = None


class AttributesRequest(msgspec.Struct):
    attributes: dict[str, str | float | bool] | None


class BatchRequest(msgspec.Struct):
    file_ids: list[str]


class SearchRequest(msgspec.Struct):
    query: str | list[str]


def _counts(completed: int) -> Json:
    return {"in_progress": 0, "completed": completed, "failed": 0, "cancelled": 0, "total": completed}


def create(call: Call) -> Reply:
    """POST /vector_stores."""
    request = call.read(StoreRequest)
    body = {
        "id": call.new_id("vs_"),
        "object": "vector_store",
        "created_at": call.created(),
        "name": request.name or "",
        "usage_bytes": 0,
        "status": "completed",
        "expires_after": None,
        "expires_at": None,
        "last_active_at": call.created(),
        "metadata": request.metadata or {},
    }
    store = VectorStore(body)
    for file_id in request.file_ids or []:
        _attach(call, store, file_id)
    call.state.vector_stores.put(str(body["id"]), store, len(call.request.body))
    return json_reply(store.whole())


def list_all(call: Call) -> Reply:
    """GET /vector_stores, newest first."""
    return list_reply([store.whole() for store in call.state.vector_stores.all()], call.request.query())


def get(call: Call) -> Reply:
    """GET /vector_stores/{id}."""
    return json_reply(_store(call).whole())


def update(call: Call) -> Reply:
    """POST /vector_stores/{id}."""
    store, request = _store(call), call.read(StoreRequest)
    if request.name is not None:
        store.body["name"] = request.name
    if request.metadata is not None:
        store.body["metadata"] = request.metadata
    return json_reply(store.whole())


def delete(call: Call) -> Reply:
    """DELETE /vector_stores/{id}."""
    _store(call)
    call.state.vector_stores.take(call.ids[0])
    return json_reply({"id": call.ids[0], "object": "vector_store.deleted", "deleted": True})


def search(call: Call) -> Reply:
    """POST /vector_stores/{id}/search."""
    store, request = _store(call), call.read(SearchRequest)
    found = [_hit(call, entry) for entry in store.files.values() if call.state.files.find(entry["id"])]
    query = [request.query] if isinstance(request.query, str) else request.query
    page = {"object": "vector_store.search_results.page", "search_query": query, "data": found}
    return json_reply({**page, "has_more": False, "next_page": None})


def _hit(call: Call, entry: Json) -> Json:
    stored = files.existing(call.state, entry["id"])
    text = stored.content[:200].decode("utf-8", "replace")
    return {
        "file_id": entry["id"],
        "filename": stored.body["filename"],
        "score": 0.5,
        "attributes": entry["attributes"],
        "content": [{"type": "text", "text": f"[simulated] {text}"}],
    }


def attach(call: Call) -> Reply:
    """POST /vector_stores/{id}/files."""
    request = call.read(FileRequest)
    entry = _attach(call, _store(call), request.file_id)
    entry["attributes"] = request.attributes or {}
    return json_reply(entry)


def _attach(call: Call, store: VectorStore, file_id: str) -> Json:
    stored = files.existing(call.state, file_id)
    store.files[file_id] = {
        "id": file_id,
        "object": "vector_store.file",
        "created_at": call.created(),
        "usage_bytes": len(stored.content),
        "vector_store_id": store.body["id"],
        "status": "completed",
        "last_error": None,
        "attributes": {},
    }
    return store.files[file_id]


def list_files(call: Call) -> Reply:
    """GET /vector_stores/{id}/files, and of a batch: /vector_stores/{id}/file_batches/{batch_id}/files."""
    return list_reply(list(_store(call).files.values()), call.request.query())


def get_file(call: Call) -> Reply:
    """GET /vector_stores/{id}/files/{file_id}."""
    return json_reply(_file(call))


def update_file(call: Call) -> Reply:
    """POST /vector_stores/{id}/files/{file_id}."""
    entry = _file(call)
    entry["attributes"] = call.read(AttributesRequest).attributes or {}
    return json_reply(entry)


def file_content(call: Call) -> Reply:
    """GET /vector_stores/{id}/files/{file_id}/content."""
    text = files.existing(call.state, _file(call)["id"]).content.decode("utf-8", "replace")
    page = {"object": "vector_store.file_content.page", "data": [{"type": "text", "text": text}]}
    return json_reply({**page, "has_more": False, "next_page": None})


def detach(call: Call) -> Reply:
    """DELETE /vector_stores/{id}/files/{file_id}."""
    del _store(call).files[_file(call)["id"]]
    return json_reply({"id": call.ids[1], "object": "vector_store.file.deleted", "deleted": True})


def create_batch(call: Call) -> Reply:
    """POST /vector_stores/{id}/file_batches."""
    store, request = _store(call), call.read(BatchRequest)
    for file_id in request.file_ids:
        _attach(call, store, file_id)
    batch: Json = {
        "id": call.new_id("vsfb_"),
        "object": "vector_store.files_batch",
        "created_at": call.created(),
        "vector_store_id": call.ids[0],
        "status": "completed",
        "file_counts": _counts(len(request.file_ids)),
    }
    store.batches[batch["id"]] = batch
    return json_reply(batch)


def get_batch(call: Call) -> Reply:
    """GET /vector_stores/{id}/file_batches/{batch_id}; POST …/cancel finds it completed too."""
    batch = _store(call).batches.get(call.ids[1])
    if batch is None:
        raise not_found("File batch", call.ids[1])
    return json_reply(batch)


def _store(call: Call) -> VectorStore:
    store: VectorStore | None = call.state.vector_stores.find(call.ids[0])
    if store is None:
        raise not_found("Vector store", call.ids[0])
    return store


def _file(call: Call) -> Json:
    entry = _store(call).files.get(call.ids[1])
    if entry is None:
        raise not_found("File", call.ids[1])
    return entry
