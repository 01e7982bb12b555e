"""Batches. They run no request: they are validated when made, and completed when next looked at.

Paths as of https://platform.openai.com/docs/api-reference/batch.
"""

import msgspec

from gateway.simulator import files
from gateway.simulator.call import Call, Json, Reply, json_reply
from gateway.simulator.listing import list_reply
from gateway.simulator.refusals import Refusal, not_found

LIFE_S = 24 * 3600
_TIMES = ("cancelled", "cancelling", "completed", "expired", "failed", "finalizing", "in_progress")


class BatchRequest(msgspec.Struct):
    input_file_id: str
    endpoint: str
    completion_window: str
    metadata: dict[str, str] | None = None


def create(call: Call) -> Reply:
    """POST /batches."""
    request = call.read(BatchRequest)
    content = files.existing(call.state, request.input_file_id).content
    body: Json = {
        "id": call.new_id("batch_"),
        "object": "batch",
        "endpoint": request.endpoint,
        "errors": None,
        "input_file_id": request.input_file_id,
        "completion_window": request.completion_window,
        "status": "validating",
        "output_file_id": None,
        "error_file_id": None,
        "created_at": call.created(),
        "expires_at": call.created() + LIFE_S,
        **{f"{phase}_at": None for phase in _TIMES},
        "request_counts": {"total": len(content.strip().splitlines()), "completed": 0, "failed": 0},
        "metadata": request.metadata,
    }
    call.state.batches.put(body["id"], body)
    return json_reply(body)


def list_all(call: Call) -> Reply:
    """GET /batches, newest first."""
    return list_reply(call.state.batches.all(), call.request.query())


def get(call: Call) -> Reply:
    """GET /batches/{id}."""
    body = _existing(call)
    if body["status"] == "validating":
        counts = body["request_counts"]
        body |= {"status": "completed", "completed_at": call.created() + 1}
        counts["completed"] = counts["total"]
    return json_reply(body)


def cancel(call: Call) -> Reply:
    """POST /batches/{id}/cancel."""
    body = _existing(call)
    if body["status"] != "validating":
        raise Refusal(409, f"Cannot cancel a batch with status '{body['status']}'.")
    body |= {"status": "cancelling", "cancelling_at": call.created() + 1}
    return json_reply(body)


def _existing(call: Call) -> Json:
    body = call.state.batches.find(call.ids[0])
    if body is None:
        raise not_found("Batch", call.ids[0])
    return body
