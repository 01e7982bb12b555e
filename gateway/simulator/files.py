"""Files, and uploads in parts that become files.

Paths as of https://platform.openai.com/docs/api-reference/files and /uploads.
"""

from dataclasses import dataclass, field

import msgspec

from gateway.simulator.call import Call, Json, Reply, State, json_reply
from gateway.simulator.listing import list_reply
from gateway.simulator.multipart import file_field, read_form, text_field
from gateway.simulator.refusals import Refusal, missing, not_found

UPLOAD_LIFE_S = 3600


@dataclass(slots=True)
class StoredFile:
    """A file's object and its bytes."""

    body: Json
    content: bytes


@dataclass(slots=True)
class StoredUpload:
    """An upload's object and its parts so far, by id."""

    body: Json
    parts: dict[str, bytes] = field(default_factory=dict)


class UploadRequest(msgspec.Struct):
    bytes: int
    filename: str
    purpose: str
    mime_type: str = "application/octet-stream"


class CompleteRequest(msgspec.Struct):
    part_ids: list[str]


def create(call: Call) -> Reply:
    """POST /files (multipart: `file`, `purpose`)."""
    form = read_form(call.request)
    part = file_field(form, "file")
    if "purpose" not in form:
        raise missing("purpose")
    body = _put(call, part.filename or "upload", text_field(form, "purpose"), part.content)
    return json_reply(body)


def _put(call: Call, filename: str, purpose: str, content: bytes) -> Json:
    body = {
        "id": call.new_id("file-"),
        "object": "file",
        "bytes": len(content),
        "created_at": call.created(),
        "expires_at": None,
        "filename": filename,
        "purpose": purpose,
        "status": "processed",
        "status_details": None,
    }
    call.state.files.put(str(body["id"]), StoredFile(body, content), len(content))
    return body


def list_all(call: Call) -> Reply:
    """GET /files, newest first; `purpose` filters."""
    query = call.request.query()
    wanted = query.get("purpose", [None])[-1]
    files = [stored.body for stored in call.state.files.all()]
    return list_reply([body for body in files if wanted in (None, body["purpose"])], query)


def get(call: Call) -> Reply:
    """GET /files/{id}."""
    return json_reply(existing(call.state, call.ids[0]).body)


def content(call: Call) -> Reply:
    """GET /files/{id}/content: the bytes that were uploaded."""
    stored = existing(call.state, call.ids[0])
    disposition = f'attachment; filename="{stored.body["id"]}"'.encode()
    headers = [(b"content-disposition", disposition)]
    return Reply(stored.content, content_type=b"application/octet-stream", headers=headers)


def delete(call: Call) -> Reply:
    """DELETE /files/{id}."""
    existing(call.state, call.ids[0])
    call.state.files.take(call.ids[0])
    return json_reply({"id": call.ids[0], "object": "file", "deleted": True})


def existing(state: State, file_id: str) -> StoredFile:
    """Raises Refusal (404) if there is none."""
    stored: StoredFile | None = state.files.find(file_id)
    if stored is None:
        raise Refusal(404, f"No such File object: {file_id}", param="id")
    return stored


def create_upload(call: Call) -> Reply:
    """POST /uploads."""
    request = call.read(UploadRequest)
    body = {
        "id": call.new_id("upload_"),
        "object": "upload",
        "bytes": request.bytes,
        "created_at": call.created(),
        "expires_at": call.created() + UPLOAD_LIFE_S,
        "filename": request.filename,
        "purpose": request.purpose,
        "status": "pending",
        "file": None,
    }
    call.state.uploads.put(str(body["id"]), StoredUpload(body))
    return json_reply(body)


def add_part(call: Call) -> Reply:
    """POST /uploads/{id}/parts (multipart: `data`)."""
    upload = _pending(call)
    part_id = call.new_id("part_", len(upload.parts))
    upload.parts[part_id] = file_field(read_form(call.request), "data").content
    # Put again, so that the shelf knows how much it holds.
    call.state.uploads.put(call.ids[0], upload, sum(map(len, upload.parts.values())))
    return json_reply({"id": part_id, "object": "upload.part", "created_at": call.created(), "upload_id": call.ids[0]})


def complete_upload(call: Call) -> Reply:
    """POST /uploads/{id}/complete: the named parts, in that order, become a file."""
    upload = _pending(call)
    wanted = call.read(CompleteRequest).part_ids
    unknown = [part_id for part_id in wanted if part_id not in upload.parts]
    if unknown:
        raise not_found("Part", unknown[0], "part_ids")
    whole = b"".join(upload.parts[part_id] for part_id in wanted)
    if len(whole) != upload.body["bytes"]:
        message = f"Expected {upload.body['bytes']} bytes in all, but the parts hold {len(whole)}."
        raise Refusal(400, message, param="part_ids")
    upload.body["file"] = _put(call, upload.body["filename"], upload.body["purpose"], whole)
    return _ended(upload, "completed")


def cancel_upload(call: Call) -> Reply:
    """POST /uploads/{id}/cancel."""
    return _ended(_pending(call), "cancelled")


def _ended(upload: StoredUpload, status: str) -> Reply:
    upload.parts.clear()
    upload.body["status"] = status
    return json_reply(upload.body)


def _pending(call: Call) -> StoredUpload:
    upload: StoredUpload | None = call.state.uploads.find(call.ids[0])
    if upload is None:
        raise not_found("Upload", call.ids[0])
    if upload.body["status"] != "pending":
        raise Refusal(400, f"Upload '{call.ids[0]}' is {upload.body['status']}.", param="upload_id")
    return upload
